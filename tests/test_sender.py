"""The sender, against DCMTK's storescp and a storage SCP that answers as told."""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import, from a table

from gpnet_node.config import NodeConfig, PeerConfig
from gpnet_node.dimse.sender import Outcome, Verdict, echo, send
from gpnet_node.errors import TransientPeerError
from tests.factories import mr_series
from tests.faults.memory_pacs import Mood, memory_pacs
from tests.peers import data_set_bytes, dcmtk_storescp, free_port
from tests.stores import silent_trail


def node(tmp_path: Path, **settings: object) -> NodeConfig:
    defaults: dict[str, object] = {"archive": tmp_path, "acse_timeout_seconds": 5, "dimse_timeout_seconds": 5}
    return NodeConfig.model_validate(defaults | settings)


def pacs(port: int, *, ae_title: str = "PACS", host: str = "127.0.0.1") -> PeerConfig:
    return PeerConfig(name="pacs", ae_title=ae_title, host=host, port=port)


def images(folder: Path, count: int = 1) -> list[Path]:
    return mr_series(folder, slices=count)


def segmentation(folder: Path) -> Path:
    """A file that says that it is a segmentation, which is all that negotiation sees."""
    (path,) = mr_series(folder, slices=1, series="seg")
    dataset = dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    dataset.save_as(path)
    return path


@contextlib.contextmanager
def answering(
    statuses: Sequence[int | None], *, syntaxes: Sequence[str] = (ExplicitVRLittleEndian,)
) -> Iterator[int]:
    """A storage SCP that answers each C-STORE with the next status; None aborts. Yields its port."""
    remaining = iter(statuses)

    def on_store(event: evt.Event) -> int:
        status = next(remaining)
        if status is None:
            event.assoc.abort()
            return 0x0000
        return status

    ae = AE(ae_title="PACS")
    ae.add_supported_context(MRImageStorage, list(syntaxes))
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def sent(tmp_path: Path, port: int, paths: Sequence[Path]) -> list[Outcome]:
    return list(send(pacs(port), paths, node=node(tmp_path), trail=silent_trail()))


def test_each_file_reaches_dcmtk_with_the_bytes_of_its_data_set(tmp_path: Path) -> None:
    paths = [
        *images(tmp_path / "explicit", 2),
        *mr_series(tmp_path, slices=1, series="2", transfer_syntax=ImplicitVRLittleEndian),
        *mr_series(tmp_path, slices=1, series="3", transfer_syntax=RLELossless),
    ]
    with dcmtk_storescp(tmp_path / "pacs", "+xa", "+B") as scp:
        outcomes = sent(tmp_path, scp.port, paths)
        received = {data_set_bytes(path) for path in scp.files()}

    assert [outcome.verdict for outcome in outcomes] == [Verdict.DELIVERED] * 4
    assert received == {data_set_bytes(path) for path in paths}


def test_all_files_of_one_call_travel_on_one_association(tmp_path: Path) -> None:
    with dcmtk_storescp(tmp_path / "pacs", "-v") as scp:
        sent(tmp_path, scp.port, images(tmp_path, 3))
    log = (tmp_path / "pacs" / "storescp.log").read_text()

    assert log.count("Received Store Request") == 3
    assert log.count("Association Release") == 1


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.DELIVERED),
        (0xB000, Verdict.DELIVERED),
        (0xB006, Verdict.DELIVERED),
        (0xB007, Verdict.DELIVERED),
        (0xA700, Verdict.TRANSIENT),
        (0xA7FF, Verdict.TRANSIENT),
        (0xA900, Verdict.PERMANENT),
        (0xC000, Verdict.PERMANENT),
        (0xC123, Verdict.PERMANENT),
        (0x0110, Verdict.PERMANENT),
        (0x0122, Verdict.NOT_TAKEN),
        (0x0124, Verdict.PERMANENT),
    ],
)
def test_a_status_is_judged_as_the_standard_says(tmp_path: Path, status: int, verdict: Verdict) -> None:
    with answering([status]) as port:
        (outcome,) = sent(tmp_path, port, images(tmp_path))

    assert (outcome.verdict, outcome.status) == (verdict, status)
    assert "pacs" in outcome.text
    assert f"0x{status:04X}" in outcome.text


def test_the_warning_of_a_stored_object_is_kept(tmp_path: Path) -> None:
    with answering([0xB000, 0x0000]) as port:
        coerced, plain = sent(tmp_path, port, images(tmp_path, 2))

    assert "coerced" in coerced.warning
    assert plain.warning == ""


def test_an_abort_leaves_this_object_and_the_next_to_a_later_try(tmp_path: Path) -> None:
    with answering([0x0000, None]) as port:
        outcomes = sent(tmp_path, port, images(tmp_path, 3))

    assert [o.verdict for o in outcomes] == [Verdict.DELIVERED, Verdict.TRANSIENT, Verdict.TRANSIENT]
    assert outcomes[1].status is None


def test_after_an_answer_that_did_not_come_none_is_waited_for(tmp_path: Path) -> None:
    patience = node(tmp_path, dimse_timeout_seconds=20)
    with memory_pacs() as lossy:
        lossy.mood = Mood.LOSES_CONNECTION
        began = time.monotonic()
        outcomes = list(send(pacs(lossy.port), images(tmp_path, 2), node=patience, trail=silent_trail()))
        seconds = time.monotonic() - began

    assert [o.verdict for o in outcomes] == [Verdict.TRANSIENT, Verdict.TRANSIENT]
    assert seconds < 15


def test_nobody_listening_is_transient_and_names_the_peer(tmp_path: Path) -> None:
    (outcome,) = sent(tmp_path, free_port(), images(tmp_path))

    assert outcome.verdict is Verdict.TRANSIENT
    assert "pacs" in outcome.text


def test_a_peer_that_never_answers_is_given_up_after_the_time_out(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        patience = node(tmp_path, acse_timeout_seconds=0.3)
        (outcome,) = list(
            send(pacs(silent.getsockname()[1]), images(tmp_path), node=patience, trail=silent_trail())
        )

    assert outcome.verdict is Verdict.TRANSIENT


def test_an_unknown_host_name_is_transient(tmp_path: Path) -> None:
    peer = pacs(104, host="no-such-host.invalid")
    (outcome,) = list(send(peer, images(tmp_path), node=node(tmp_path), trail=silent_trail()))

    assert outcome.verdict is Verdict.TRANSIENT


def test_a_class_that_is_not_taken_is_named_while_the_others_are_delivered(tmp_path: Path) -> None:
    with answering([0x0000]) as port:
        image, refused = sent(tmp_path, port, [*images(tmp_path), segmentation(tmp_path)])

    assert image.verdict is Verdict.DELIVERED
    assert refused.verdict is Verdict.NOT_TAKEN
    assert "Segmentation Storage" in refused.text


def test_a_peer_may_take_none_of_the_classes(tmp_path: Path) -> None:
    with answering([]) as port:
        (refused,) = sent(tmp_path, port, [segmentation(tmp_path)])

    assert refused.verdict is Verdict.NOT_TAKEN
    assert "Segmentation Storage" in refused.text


def test_a_refused_transfer_syntax_is_permanent_and_named(tmp_path: Path) -> None:
    compressed = mr_series(tmp_path, slices=1, series="2", transfer_syntax=RLELossless)
    with answering([0x0000]) as port:
        _, refused = sent(tmp_path, port, [*images(tmp_path), *compressed])

    assert refused.verdict is Verdict.PERMANENT
    assert "RLE Lossless" in refused.text


def test_a_rejection_of_the_association_is_tried_again_for_an_administrator_may_admit_us(
    tmp_path: Path,
) -> None:
    ae = AE(ae_title="PACS")
    ae.require_called_aet = True
    ae.add_supported_context(MRImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    try:
        peer = pacs(server.server_address[1], ae_title="NOT-PACS")
        (outcome,) = list(send(peer, images(tmp_path), node=node(tmp_path), trail=silent_trail()))
    finally:
        server.shutdown()

    assert outcome.verdict is Verdict.TRANSIENT
    assert "reason 7" in outcome.text


def test_a_transient_rejection_of_the_association_is_transient(tmp_path: Path) -> None:
    ae = AE(ae_title="PACS")
    ae.maximum_associations = 1
    ae.add_supported_context(MRImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    occupant = AE()
    occupant.add_requested_context(MRImageStorage)
    held = occupant.associate("127.0.0.1", server.server_address[1])
    try:
        assert held.is_established
        (outcome,) = sent(tmp_path, server.server_address[1], images(tmp_path))
    finally:
        held.release()
        server.shutdown()

    assert outcome.verdict is Verdict.TRANSIENT


def test_a_file_that_cannot_be_opened_is_tried_again_and_holds_no_other_up(tmp_path: Path) -> None:
    with answering([0x0000]) as port:
        gone, other = sent(tmp_path, port, [tmp_path / "gone.dcm", *images(tmp_path)])

    assert (gone.verdict, other.verdict) == (Verdict.TRANSIENT, Verdict.DELIVERED)
    assert "gone.dcm" in gone.text


def test_a_file_that_is_lost_on_the_way_is_named_and_what_follows_is_tried_again(tmp_path: Path) -> None:
    paths = images(tmp_path, 3)
    with answering([0x0000, 0x0000]) as port:
        outcomes = send(pacs(port), paths, node=node(tmp_path), trail=silent_trail())
        first = next(outcomes)
        paths[1].unlink()
        lost, last = outcomes

    assert first.verdict is Verdict.DELIVERED
    assert (lost.verdict, last.verdict) == (Verdict.TRANSIENT, Verdict.TRANSIENT)
    assert paths[1].name in lost.text


@pytest.mark.parametrize("damage", ["no preamble", "a class that is no UID", "cut short"])
def test_a_file_that_is_no_dicom_file_is_permanent_and_holds_no_other_up(tmp_path: Path, damage: str) -> None:
    good, bad = images(tmp_path, 2)
    content = bad.read_bytes()
    bad.write_bytes(
        {
            "no preamble": b"just text",
            "a class that is no UID": content.replace(MRImageStorage.encode(), b"x" * len(MRImageStorage)),
            "cut short": content[:170],
        }[damage]
    )
    with answering([0x0000]) as port:
        refused, stored = sent(tmp_path, port, [bad, good])

    assert (refused.verdict, stored.verdict) == (Verdict.PERMANENT, Verdict.DELIVERED)
    assert bad.name in refused.text


def test_for_files_of_which_none_can_be_sent_no_association_is_opened(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no preamble")
    (outcome,) = sent(tmp_path, free_port(), [tmp_path / "notes.txt"])

    assert outcome.verdict is Verdict.PERMANENT  # nobody listening would be transient


def test_echo_passes_where_the_peer_answers_and_raises_where_nobody_does(tmp_path: Path) -> None:
    with dcmtk_storescp(tmp_path / "pacs") as scp:
        echo(pacs(scp.port), node=node(tmp_path))
    with pytest.raises(TransientPeerError, match="pacs"):
        echo(pacs(free_port()), node=node(tmp_path))
