"""What clients fetch over HTTP is put together before it is told."""

import time
from datetime import datetime
from pathlib import Path

from gpnet_node.audit.message import Outcome
from gpnet_node.audit.trail import Trail
from gpnet_node.store.catalogue import Held
from gpnet_node.web.account import Fetched
from tests.audits import Told, told
from tests.peers import wait_until
from tests.stores import MR_IMAGE, START


def held(number: int, *, study: str = "1.2") -> Held:
    return Held(
        path=Path(f"{number}.dcm"),
        sop_class_uid=MR_IMAGE,
        sop_instance_uid=f"{study}.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_uid=study,
        series_uid=f"{study}.9",
        patient_id="P1",
        instance_number=number,
        size_bytes=1,
    )


def test_what_a_client_fetched_is_told_once_it_has_been_quiet() -> None:
    messages: list[Told] = []

    def write(content: bytes, at: datetime, outcome: Outcome) -> None:
        messages.append(told(content))

    trail = Trail(ae_title="GPNET", owner="web test", write=write, clock=lambda: START)
    fetched = Fetched(trail, quiet_seconds=0.3)
    for _ in range(3):
        fetched.note("192.0.2.7", [held(1), held(2)], whole=True)
        fetched.note("192.0.2.7", [held(3, study="1.3")], whole=True)
        fetched.tell()
    assert messages == []
    time.sleep(0.3)
    fetched.tell()
    wait_until(lambda: len(messages) == 2, what="two messages")
    fetched.tell(everything=True)
    trail.close()

    assert [(it.ids("Study Instance UID"), it.counts()) for it in messages] == [
        (["1.2"], {MR_IMAGE: 2}),
        (["1.3"], {MR_IMAGE: 1}),
    ]
    assert {it.requestor for it in messages} == {"192.0.2.7"}
