"""The receiver, with DCMTK and pynetdicom as scanners: who may store what, and what success means."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from socketserver import BaseServer

import pytest
from pydicom import dcmread
from pydicom.uid import (
    MPEG2MPML,
    UID,
    CTImageStorage,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RawDataStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom.association import Association

from gpnet_node.dimse.receiver import Receiver
from gpnet_node.errors import StorageError
from tests.factories import mr_series, rejection_note, rewrite, uid_of
from tests.peers import data_set_bytes, echoscu, storescu, wait_until
from tests.receiving import Node, associate, receiving, store

SIEMENS_RAW = "1.3.12.2.1107.5.9.1"  # Siemens CSA Non-Image Storage, a private class


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with receiving(tmp_path) as node:
        yield node


def ask(port: int, *, calling: str, host: str = "127.0.0.1") -> Association:
    return associate(port, [(MRImageStorage, ExplicitVRLittleEndian)], calling=calling, host=host)


# -- who may talk to us ------------------------------------------------------------------------------------


def test_echo_is_answered_to_a_known_peer(node: Node) -> None:
    assert echoscu(node.port).returncode == 0


def test_a_peer_that_may_not_store_may_still_echo(node: Node, tmp_path: Path) -> None:
    (image,) = mr_series(tmp_path, slices=1)

    assert echoscu(node.port, calling="PACS").returncode == 0
    assert storescu(node.port, [image], calling="PACS").returncode != 0
    assert node.files() == []


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [("STRANGER", "GPNET", 3), ("SCANNER", "OTHER", 7), ("ELSEWHERE", "GPNET", 3)],
    ids=["unknown calling AE", "wrong called AE", "known AE from another address"],
)
def test_who_is_not_known_is_rejected_with_the_reason_of_the_standard(
    node: Node, calling: str, called: str, reason: int
) -> None:
    association = associate(
        node.port, [(MRImageStorage, ExplicitVRLittleEndian)], calling=calling, called=called
    )

    answer = association.acceptor.primitive
    assert association.is_rejected
    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, reason)


def test_dcmtk_understands_the_rejection(node: Node) -> None:
    assert "Calling AE Title Not Recognized" in echoscu(node.port, calling="STRANGER").stdout
    assert "Called AE Title Not Recognized" in echoscu(node.port, called="OTHER").stdout


def test_a_foreign_class_and_a_foreign_transfer_syntax_are_refused_each_by_its_result(node: Node) -> None:
    association = associate(
        node.port,
        [
            (MRImageStorage, ExplicitVRLittleEndian),
            (CTImageStorage, ExplicitVRLittleEndian),
            (EnhancedMRImageStorage, MPEG2MPML),
        ],
    )
    refused = {str(context.abstract_syntax): context.result for context in association.rejected_contexts}
    association.release()

    assert refused == {CTImageStorage: 3, EnhancedMRImageStorage: 4}


def test_other_classes_are_taken_only_where_the_peers_entry_says_so(node: Node) -> None:
    mixed = [
        (uid, ExplicitVRLittleEndian)
        for uid in (EnhancedSRStorage, SecondaryCaptureImageStorage, RawDataStorage, SIEMENS_RAW)
    ]
    scanner = associate(node.port, [(SegmentationStorage, ExplicitVRLittleEndian), *mixed])
    console = associate(node.port, mixed, calling="CONSOLE")
    taken = [len(a.accepted_contexts) for a in (scanner, console)]
    scanner.release()
    console.release()

    assert taken == [1, len(mixed)]


def test_a_note_too_long_to_be_read_at_once_is_taken_from_who_may_store_no_other_class(
    node: Node, tmp_path: Path
) -> None:
    (image,) = mr_series(tmp_path, slices=1)
    note = dcmread(rejection_note(tmp_path / "note.dcm", [image]))
    (series,) = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    others = [deepcopy(series.ReferencedSOPSequence[0]) for _ in range(1000)]
    for number, item in enumerate(others):
        item.ReferencedSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.99999.{number}"
    series.ReferencedSOPSequence = [*others, series.ReferencedSOPSequence[0]]

    association = associate(node.port, [(note.SOPClassUID, ExplicitVRLittleEndian)])
    status = association.send_c_store(note).Status
    association.release()
    storescu(node.port, [image])

    assert status == 0
    (kept,) = node.indexed(uid_of(image))
    assert node.index.instances(kept.series_uid) == ()


def test_every_transfer_syntax_that_the_codecs_decode_is_accepted(node: Node) -> None:
    names = ".2 .2.1 .2.1.99 .2.2 .2.5 .2.4.57 .2.4.70 .2.4.80 .2.4.81 .2.4.90 .2.4.91 .2.4.50 .2.4.51"
    syntaxes = [f"1.2.840.10008.1{name}" for name in names.split()]
    association = associate(node.port, [(MRImageStorage, syntax) for syntax in syntaxes])
    accepted = {str(context.transfer_syntax[0]) for context in association.accepted_contexts}
    association.release()

    assert accepted == set(syntaxes)


def test_more_associations_than_ten_are_served_at_once(node: Node) -> None:
    held = [associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)]) for _ in range(20)]
    established = [association.is_established for association in held]
    for association in held:
        association.release()

    assert established == [True] * 20


def test_one_peer_leaves_room_for_the_others_and_is_let_in_again_later(tmp_path: Path) -> None:
    with receiving(tmp_path, max_associations=5, max_associations_per_peer=3) as node:
        flood = [ask(node.port, calling="CONSOLE") for _ in range(5)]
        scanner = [ask(node.port, calling="SCANNER") for _ in range(3)]

        assert [it.is_established for it in flood] == [True, True, True, False, False]
        assert [it.is_established for it in scanner] == [True, True, False]  # five in all
        for refused in (flood[4], scanner[2]):  # transient, by the provider, local limit exceeded
            rejection = refused.acceptor.primitive
            assert rejection is not None
            assert (rejection.result, rejection.result_source, rejection.diagnostic) == (2, 3, 2)
        for association in (*flood[:3], *scanner[:2]):
            association.release()
        wait_until(lambda: ask(node.port, calling="CONSOLE").is_established, what="an association")


def test_who_only_connects_keeps_nobody_out_and_is_let_go(tmp_path: Path) -> None:
    with receiving(tmp_path, max_associations=4, acse_timeout_seconds=2) as node:
        address = ("127.0.0.1", node.port)
        silent = [socket.create_connection(address, timeout=10) for _ in range(4)]
        fifth = ask(node.port, calling="SCANNER")
        scanner = ask(node.port, calling="SCANNER", host="127.0.0.2")

        assert not fifth.is_established
        assert scanner.is_established
        scanner.release()
        for connection in silent:
            with connection, suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        wait_until(lambda: echoscu(node.port).returncode == 0, what="an answer to an echo")


# -- what is kept --------------------------------------------------------------------------------------------


def test_a_series_from_dcmtk_is_kept_and_known_to_the_index(node: Node, tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=5)

    sent = storescu(node.port, paths)

    series = dcmread(paths[0]).SeriesInstanceUID
    assert sent.returncode == 0
    wait_until(lambda: len(node.index.instances(series)) == 5, what="5 instances in the index")
    assert len(node.files()) == 5
    assert node.unfinished() == []


def test_the_bytes_of_the_data_set_are_kept_as_sent_in_each_transfer_syntax(
    node: Node, shared_data: Path
) -> None:
    paths = sorted((shared_data / "dicom" / "dcm_qa_ts" / "In").glob("*.dcm"))
    assert len(paths) == 9

    answers = store(node.port, *paths)

    kept = {dcmread(path).SOPInstanceUID: path for path in node.files()}
    assert [answer.Status for answer in answers] == [0x0000] * 9
    for path in paths:
        original = dcmread(path)
        found = kept[original.SOPInstanceUID]
        assert dcmread(found).file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert data_set_bytes(found) == data_set_bytes(path)


def test_a_deflated_data_set_is_kept_as_sent(node: Node, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1, transfer_syntax="1.2.840.10008.1.2.1.99")

    (answer,) = store(node.port, path)

    assert answer.Status == 0x0000
    assert data_set_bytes(node.files()[0]) == data_set_bytes(path)


def test_the_kept_file_names_its_sender_and_is_read_by_dcmtk(node: Node, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    store(node.port, path)

    meta = dcmread(node.files()[0]).file_meta
    assert meta.SourceApplicationEntityTitle == "SCANNER"
    assert meta.MediaStorageSOPInstanceUID == dcmread(path).SOPInstanceUID


def test_the_same_instance_again_is_success_and_nothing_else(node: Node, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)

    answers = store(node.port, path, path)

    assert [answer.Status for answer in answers] == [0, 0]
    assert len(node.files()) == 1
    assert node.unfinished() == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_the_same_instance_in_another_transfer_syntax_is_success_and_nothing_else(
    node: Node, tmp_path: Path, syntax: str
) -> None:
    (path,) = mr_series(tmp_path, slices=1, rows=64, columns=64)
    dataset = dcmread(path)
    if UID(syntax).is_compressed:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    other = tmp_path / "other.dcm"
    dataset.save_as(other, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)

    answers = store(node.port, path, other)

    assert [answer.Status for answer in answers] == [0, 0]
    (kept,) = node.files()
    assert data_set_bytes(kept) == data_set_bytes(path)


def test_a_corrected_header_is_kept_as_a_second_version_beside_the_first(node: Node, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    corrected = rewrite(Path(shutil.copy(path, tmp_path / "corrected.dcm")), PatientID="P2")

    answers = store(node.port, path, corrected)

    dataset = dcmread(path)
    versions = node.indexed(dataset.SOPInstanceUID, count=2)
    history = [event.sentence for event in node.index.history(dataset.SeriesInstanceUID)]
    assert [answer.Status for answer in answers] == [0, 0]
    assert [version.version for version in versions] == [1, 2]
    assert {data_set_bytes(file) for file in node.files()} == {data_set_bytes(p) for p in (path, corrected)}
    assert any("version 2" in sentence for sentence in history)


def test_a_mixed_exam_in_one_job_is_kept_whole(node: Node, tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=4)
    for path, sop_class in zip(
        paths[1:], (EnhancedSRStorage, SecondaryCaptureImageStorage, SIEMENS_RAW), strict=True
    ):
        dataset = dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
        dataset.save_as(path)

    answers = store(node.port, *paths, calling="CONSOLE")

    assert [answer.Status for answer in answers] == [0] * 4
    assert len(node.files()) == 4


def test_several_associations_at_once_lose_nothing(node: Node, tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=24)
    held = [associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)]) for _ in range(4)]
    for number, path in enumerate(paths):
        assert held[number % 4].send_c_store(path).Status == 0x0000
    for association in held:
        association.release()

    series = dcmread(paths[0]).SeriesInstanceUID
    wait_until(lambda: len(node.index.instances(series)) == 24, what="24 instances in the index")
    assert len(node.files()) == 24


# -- the index -----------------------------------------------------------------------------------------------


def test_an_association_is_told_to_have_ended_after_all_that_came_on_it(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "sent", slices=10)
    with receiving(tmp_path) as node:
        store(node.port, *paths)
        node.receiver.drain(seconds=5)

        assert node.outcomes() == ["released"]
        assert len(node.index.instances(dcmread(paths[0]).SeriesInstanceUID)) == 10


def ended(receiver: Receiver) -> str:
    """What ends the receiver's role, if anything does."""
    try:
        receiver.tend()
    except StorageError as exc:
        return str(exc)
    return ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_indexer_that_died_ends_the_role_and_meanwhile_nothing_is_acknowledged(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "sent", slices=2)
    with receiving(tmp_path, clock=lambda: datetime(2024, 1, 1)) as node:  # no zone: the index refuses it
        association = associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)])
        first = association.send_c_store(paths[0])
        reason = wait_until(lambda: ended(node.receiver), what="the role ended")
        second = association.send_c_store(paths[1])

        assert (first.Status, second.Status) == (0x0000, 0xA700)
        assert "index" in reason
        assert len(node.files()) == 1
        assert not node.receiver.drain(seconds=0)
        assert [thread for thread in threading.enumerate() if thread.name.startswith("indexer")] == []


def test_a_bug_costs_the_instance_that_met_it_and_not_the_association(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "sent", slices=3)
    broken = threading.Event()

    def clock() -> datetime:
        if broken.is_set():
            raise ZeroDivisionError
        return datetime.now(UTC)

    with receiving(tmp_path, clock=clock) as node:
        association = associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)])
        first = association.send_c_store(paths[0])
        broken.set()
        second = association.send_c_store(paths[1])
        broken.clear()
        third = association.send_c_store(paths[2])
        association.release()

        assert (first.Status, second.Status, third.Status) == (0x0000, 0x0110, 0x0000)
        assert node.unfinished() == []


def test_a_listener_that_ended_ends_the_role(node: Node) -> None:
    assert ended(node.receiver) == ""
    server = node.receiver._server
    assert server is not None
    BaseServer.shutdown(server)

    assert "listen" in wait_until(lambda: ended(node.receiver), what="the role ended")


def test_an_aborted_association_is_told_as_aborted(node: Node, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    association = associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)])
    association.send_c_store(path)
    association.abort()

    wait_until(lambda: node.outcomes() == ["aborted"], what="told as aborted")


def test_a_connection_that_just_ends_is_told_as_aborted(node: Node, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    association = associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)])
    association.send_c_store(path)
    transport = association.dul.socket
    assert transport is not None
    assert transport.socket is not None
    transport.socket.shutdown(socket.SHUT_RDWR)

    def told() -> bool:
        node.receiver.tend()
        return node.outcomes() == ["aborted"]

    wait_until(told, what="told as aborted")


def test_a_request_that_comes_while_its_association_is_cut_is_dropped_without_a_trace(
    tmp_path: Path,
) -> None:
    (path,) = mr_series(tmp_path / "sent", slices=1)
    with receiving(tmp_path) as node:
        association = associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)])
        wait_until(lambda: node.receiver._visits, what="the association accepted")
        node.receiver._visits.clear()  # the drain has closed its books, the peer does not know yet
        answer = association.send_c_store(path)
        association.abort()

        assert answer.Status == 0xA700
        assert node.files() == []
        assert node.unfinished() == []


def test_draining_lets_an_open_association_finish_and_takes_no_new_one(tmp_path: Path) -> None:
    first, second = mr_series(tmp_path / "sent", slices=2)
    with receiving(tmp_path) as node:
        association = associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)])
        association.send_c_store(first)
        finished: list[bool] = []
        drain = threading.Thread(target=lambda: finished.append(node.receiver.drain(seconds=20)))
        drain.start()
        wait_until(lambda: echoscu(node.port).returncode != 0, what="no new association")
        answer = association.send_c_store(second)
        association.release()
        drain.join()

        assert answer.Status == 0x0000
        assert finished == [True]
        assert len(node.index.instances(dcmread(first).SeriesInstanceUID)) == 2


# -- the disk is filling up ----------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Node]:
    """A node that holds more in reserve than any disk has."""
    with receiving(tmp_path, min_free_bytes=1 << 62) as node:
        yield node


def test_who_only_stores_is_rejected_for_now_where_nothing_more_fits(full: Node, tmp_path: Path) -> None:
    association = associate(full.port, [(MRImageStorage, ExplicitVRLittleEndian)])
    answer = association.acceptor.primitive

    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 1)
    assert "Temporary Congestion" in storescu(full.port, mr_series(tmp_path, slices=1)).stdout
    assert echoscu(full.port).returncode == 0


def test_a_stranger_is_rejected_for_good_however_full_the_disk_is(full: Node) -> None:
    association = associate(full.port, [(MRImageStorage, ExplicitVRLittleEndian)], calling="STRANGER")

    answer = association.acceptor.primitive
    assert answer is not None
    assert (answer.result, answer.diagnostic) == (1, 3)


def test_an_association_that_was_open_before_is_told_to_come_again(full: Node, tmp_path: Path) -> None:
    (image,) = mr_series(tmp_path, slices=1)
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    contexts = [(MRImageStorage, ExplicitVRLittleEndian), (find, ExplicitVRLittleEndian)]
    association = associate(full.port, contexts)  # who asks as well is let in
    answer = association.send_c_store(image)
    association.release()

    assert answer.Status == 0xA700
    assert full.files() == []
    assert full.unfinished() == []


# -- peers that write in pieces ------------------------------------------------------------------------------


def test_a_peer_that_waits_for_each_acknowledgement_is_not_kept_waiting(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = mr_series(tmp_path / "sent", slices=100, rows=16, columns=16)

    def seconds() -> float:
        began = time.monotonic()
        assert storescu(node.port, images).returncode == 0
        return time.monotonic() - began

    seconds()
    waiting = seconds()
    monkeypatch.setenv("TCP_NODELAY", "1")  # DCMTK then sends every piece at once
    assert waiting < 2 * seconds() + 1.0  # a delayed acknowledgement of each would take 4 s more
