"""Storage commitment both ways, with Orthanc and pynetdicom as peers, and a C-FIND in its place."""

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.store.commitments import FailureReason
from gpnet_node.store.states import DebtState, JobState
from tests.factories import mr_series
from tests.nodes import RunningNode, configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import Orthanc, free_port, orthanc, storescu, wait_until

SAFE, FAILED = 1, 2  # Event Type ID


@dataclass(frozen=True, kw_only=True)
class Told:
    """One report as a peer got it."""

    event_type: int
    information: Dataset
    role_negotiated: bool


@contextlib.contextmanager
def console(port: int) -> Iterator[list[Told]]:
    """A console that takes reports on ``port``; the first one it refuses, as if it were busy."""
    told: list[Told] = []
    busy = [True]

    def take(event: evt.Event) -> tuple[int, None]:
        if busy.pop() if busy else False:
            return 0x0213, None
        roles = event.assoc.requestor.role_selection
        event_type = cast(N_EVENT_REPORT, event.request).EventTypeID
        assert event_type is not None
        told.append(
            Told(
                event_type=event_type,
                information=event.event_information,
                role_negotiated=roles[StorageCommitmentPushModel].scp_role is True,
            )
        )
        return 0x0000, None

    ae = AE(ae_title="CONSOLE")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)])
    assert server is not None
    try:
        yield told
    finally:
        server.shutdown()


def with_peer(configuration: Configuration, **peer: Any) -> Configuration:  # noqa: ANN401
    """The configuration with one peer more."""
    return configuration.model_copy(update={"peers": (*configuration.peers, PeerConfig(**peer))})


@dataclass(frozen=True, kw_only=True)
class Asked:
    node: RunningNode
    told: list[Told]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A node of which a console may ask commitment, and what that console is told."""
    port, folder = free_port(), tmp_path_factory.mktemp("node")
    peer = {"name": "console", "ae_title": "CONSOLE", "host": "127.0.0.1", "port": port}
    configuration = with_peer(configuration_of(folder), may_store=True, may_commit=True, **peer)
    with console(port) as told, running_node(configuration) as node:
        yield Asked(node=node, told=told)


def ask(node: RunningNode, wanted: Dataset, calling: str = "CONSOLE") -> int | None:
    """The status of the answer, or None: the class is not offered."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(StorageCommitmentPushModel)
    association = ae.associate("127.0.0.1", node.port, ae_title="GPNET")
    if not association.is_established:
        return None
    answer, _ = association.send_n_action(
        wanted, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    association.release()
    status: int = answer.Status
    return status


def request(*uids: str, sop_class: str = MRImageStorage, transaction: str | None = None) -> Dataset:
    wanted = Dataset()
    wanted.TransactionUID = transaction or generate_uid()
    wanted.ReferencedSOPSequence = Items([reference(uid, sop_class) for uid in uids])
    return wanted


def reference(uid: str, sop_class: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


def sent(node: RunningNode, folder: Path, count: int = 3) -> list[str]:
    """Images that the node has in its index; their UIDs."""
    paths = mr_series(folder, slices=count, SeriesInstanceUID=generate_uid())
    assert storescu(node.port, paths, calling="CONSOLE").returncode == 0
    uids = [str(dcmread(path).SOPInstanceUID) for path in paths]
    wait_until(lambda: all(node.parts.index.versions(uid) for uid in uids), what="them in the index")
    return uids


def report_on(asked: Asked, wanted: Dataset) -> Told:
    def found() -> Told | None:
        asked.node.supervisor.tend()
        return next((it for it in asked.told if it.information.TransactionUID == wanted.TransactionUID), None)

    told = wait_until(found, what="the report")
    assert told is not None
    return told


def reasons(told: Told) -> dict[str, int]:
    items = told.information.get("FailedSOPSequence") or ()
    return {str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in items}


# -- peers ask this node -------------------------------------------------------------------------------------


def test_what_is_safe_is_reported_on_an_association_of_its_own_and_tried_again(
    asked: Asked, tmp_path: Path
) -> None:
    uids = sent(asked.node, tmp_path)
    wanted = request(*uids)

    assert ask(asked.node, wanted) == 0x0000

    told = report_on(asked, wanted)  # the first try was refused
    assert (told.event_type, told.role_negotiated) == (SAFE, True)
    named = [item.ReferencedSOPInstanceUID for item in told.information.ReferencedSOPSequence]
    assert sorted(named) == sorted(uids)
    assert "FailedSOPSequence" not in told.information


def test_each_instance_is_read_again_and_what_is_not_whole_is_named(asked: Asked, tmp_path: Path) -> None:
    whole, damaged, cut = sent(asked.node, tmp_path)
    root = asked.node.parts.archive.root
    (version,) = asked.node.parts.index.versions(damaged)
    content = bytearray((root / version.path).read_bytes())
    content[-1] ^= 1
    (root / version.path).write_bytes(content)
    (version,) = asked.node.parts.index.versions(cut)
    (root / version.path).unlink()
    unknown = generate_uid()
    wanted = request(whole, damaged, cut, unknown)

    assert ask(asked.node, wanted) == 0x0000

    told = report_on(asked, wanted)
    assert told.event_type == FAILED
    assert [item.ReferencedSOPInstanceUID for item in told.information.ReferencedSOPSequence] == [whole]
    assert reasons(told) == {
        damaged: FailureReason.PROCESSING_FAILURE,
        cut: FailureReason.PROCESSING_FAILURE,
        unknown: FailureReason.NO_SUCH_INSTANCE,
    }


def test_an_instance_of_another_class_is_a_conflict(asked: Asked, tmp_path: Path) -> None:
    uid, *_ = sent(asked.node, tmp_path)
    wanted = request(uid, sop_class=CTImageStorage)

    ask(asked.node, wanted)

    assert reasons(report_on(asked, wanted)) == {uid: FailureReason.CLASS_INSTANCE_CONFLICT}


def test_a_transaction_uid_names_one_request(asked: Asked, tmp_path: Path) -> None:
    one, two, _ = sent(asked.node, tmp_path)
    transaction = generate_uid()

    assert ask(asked.node, request(one, transaction=transaction)) == 0x0000
    assert ask(asked.node, request(one, transaction=transaction)) == 0x0000  # asked again
    assert ask(asked.node, request(two, transaction=transaction)) == 0x0115


@pytest.mark.parametrize(
    "wanted", [Dataset(), request("../../etc/passwd"), request("1.2", transaction="x")],
    ids=["no transaction", "no UID", "a transaction that is none"],
)  # fmt: skip
def test_a_request_that_cannot_be_understood_is_refused(asked: Asked, wanted: Dataset) -> None:
    if not wanted:
        wanted.ReferencedSOPSequence = Items([reference("1.2", MRImageStorage)])

    assert ask(asked.node, wanted) == 0x0115


def test_who_may_not_commit_is_not_offered_the_class(asked: Asked) -> None:
    assert ask(asked.node, request("1.2"), calling="SCANNER") is None


def test_orthanc_is_told_what_the_node_keeps_safe(tmp_path: Path) -> None:
    port, pacs_port = free_port(), free_port()
    peer = {"name": "archive", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port}
    configuration = with_peer(configuration_of(tmp_path, port=port), may_commit=True, **peer)
    paths = mr_series(tmp_path / "series", slices=3)
    with (
        orthanc(tmp_path / "orthanc", port=pacs_port, DicomModalities=_node_at(port)) as pacs,
        running_node(configuration) as node,
    ):
        storescu(node.port, paths)
        storescu(pacs.dicom_port, paths, called="PACS")
        uid = str(dcmread(paths[0]).SOPInstanceUID)
        wait_until(lambda: node.parts.index.versions(uid), what="the images in the index")
        asked = _post(pacs, "/modalities/node/storage-commitment", {"Resources": pacs.get("/series")})

        def ended() -> Any:  # noqa: ANN401
            found = pacs.get(asked["Path"])
            return found if found["Status"] != "Pending" else None

        found = wait_until(ended, what="the report at Orthanc")
        assert found["Status"] == "Success"
        assert len(found["Success"]) == 3


# -- this node asks its peers --------------------------------------------------------------------------------


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_a_job_is_confirmed_once_orthanc_keeps_all_its_objects(tmp_path: Path, confirm: str) -> None:
    head, port = draw_head(tmp_path / "series"), free_port()
    with orthanc(tmp_path / "orthanc", DicomModalities=_node_at(port)) as pacs:
        configuration = _confirming(configuration_of(tmp_path, pacs=pacs.dicom_port, port=port), confirm)
        with running_node(configuration) as node:
            storescu(node.port, head.paths)

            job = node.job(JobState.CONFIRMED)

            debts = node.parts.outbox.of_job(job.uid)
            assert {debt.state for debt in debts} == {DebtState.CONFIRMED}
            states = [event.to_state for event in node.parts.jobs.history(job.uid)]
            assert states[-3:] == [JobState.WRITTEN, JobState.DELIVERED, JobState.CONFIRMED]


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_what_orthanc_lost_is_sent_again(tmp_path: Path, confirm: str) -> None:
    head, port = draw_head(tmp_path / "series"), free_port()
    with orthanc(tmp_path / "orthanc", DicomModalities=_node_at(port)) as pacs:
        plain = configuration_of(tmp_path, pacs=pacs.dicom_port, port=port)
        with running_node(plain) as node:
            storescu(node.port, head.paths)
            job = node.job(JobState.DELIVERED)
            for name in pacs.get("/instances"):
                _delete(pacs, f"/instances/{name}")
        with running_node(_confirming(plain, confirm)) as node:
            node.job(JobState.CONFIRMED)

            assert len(pacs.get("/instances")) == len(node.parts.jobs.results(job.uid))
            told = " ".join(event.sentence for event in node.parts.jobs.history(job.uid))
            assert "is owed to pacs again" in told


def test_a_report_on_the_association_of_the_request_is_taken(tmp_path: Path) -> None:
    """As some PACS do: the report comes before the request's association is released."""
    head = draw_head(tmp_path / "series")
    ae = AE(ae_title="PACS")
    for uid in ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34", StorageCommitmentPushModel):
        ae.add_supported_context(uid)

    def asked(event: evt.Event) -> tuple[int, None]:
        wanted, association = event.action_information, event.assoc

        def report() -> None:
            association.send_n_event_report(
                wanted, SAFE, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )

        threading.Timer(0.2, report).start()
        return 0x0000, None

    handlers: Sequence[evt.EventHandlerType] = [
        (evt.EVT_C_STORE, lambda _: 0x0000),
        (evt.EVT_N_ACTION, asked),
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    assert server is not None
    try:
        configuration = configuration_of(tmp_path, pacs=server.server_address[1])
        with running_node(_confirming(configuration, "commitment")) as node:
            storescu(node.port, head.paths)

            assert node.job(JobState.CONFIRMED).state is JobState.CONFIRMED
    finally:
        server.shutdown()


def _confirming(configuration: Configuration, confirm: str) -> Configuration:
    peers = tuple(
        peer.model_copy(update={"confirm": confirm}) if peer.name == "pacs" else peer
        for peer in configuration.peers
    )
    return configuration.model_copy(update={"peers": peers})


def _node_at(port: int) -> dict[str, list[object]]:
    return {"node": ["GPNET", "127.0.0.1", port]}


def _post(pacs: Orthanc, path: str, body: object) -> Any:  # noqa: ANN401  # JSON
    url = f"http://127.0.0.1:{pacs.http_port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=20) as answer:
        return json.loads(answer.read())


def _delete(pacs: Orthanc, path: str) -> None:
    url = f"http://127.0.0.1:{pacs.http_port}{path}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=20).close()
