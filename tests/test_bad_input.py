"""What a sender may do wrong, and what it is told: over real sockets, with DCMTK and pynetdicom."""

import gc
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)
from pynetdicom.association import Association

from tests.factories import mr_series, rewrite
from tests.peers import data_set_bytes, echoscu, wait_until
from tests.receiving import Node, associate, receiving, store


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with receiving(tmp_path) as node:
        yield node


def raw_file(path: Path, data_set: bytes, *, of: Path, instance: str | None = None) -> Path:
    """A file whose meta information is that of ``of`` and whose data set is any bytes."""
    dataset = dcmread(of)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance or dataset.SOPInstanceUID)
    dataset.save_as(path)
    head = path.read_bytes()
    path.write_bytes(head[: len(head) - len(data_set_bytes(path))] + data_set)
    return path


def test_a_data_set_that_ends_too_early_is_refused_wherever_it_ends(node: Node, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    whole = data_set_bytes(path)
    cuts = [len(whole) - 1, len(whole) - 200, *random.Random(1).sample(range(1, len(whole)), 20)]
    broken = [raw_file(tmp_path / f"cut{cut}.dcm", whole[:cut], of=path) for cut in cuts]

    answers = store(node.port, *broken, path)

    assert {answer.Status for answer in answers[:-1]} <= {0xC000, 0xA900}
    assert answers[-1].Status == 0x0000
    assert all(answer.ErrorComment for answer in answers[:-1])
    assert len(node.files()) == 1


def test_compressed_pixels_that_end_too_early_are_refused(node: Node, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1, transfer_syntax=RLELossless)
    broken = raw_file(tmp_path / "cut.dcm", data_set_bytes(path)[:-20], of=path)

    (answer,) = store(node.port, broken)

    assert answer.Status == 0xC000
    assert node.files() == []


@pytest.mark.parametrize(
    "data_set", [b"", b"\0" * 64, b"not DICOM at all, just text", b"\xff" * 200], ids=len
)
def test_bytes_that_are_no_data_set_are_refused_with_a_comment(
    node: Node, tmp_path: Path, data_set: bytes
) -> None:
    (path,) = mr_series(tmp_path, slices=1)

    (answer,) = store(node.port, raw_file(tmp_path / "bad.dcm", data_set, of=path))

    assert answer.Status == 0xC000
    assert answer.ErrorComment
    assert node.files() == []
    assert node.unfinished() == []


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3/../4", "/tmp/x"])
def test_a_uid_with_path_characters_is_refused_and_names_no_file(
    node: Node, tmp_path: Path, uid: str
) -> None:
    (path,) = mr_series(tmp_path / "sent", slices=1)
    before = {p for p in tmp_path.rglob("*") if "sent" not in p.parts}

    evil = raw_file(tmp_path / "sent" / "evil.dcm", data_set_bytes(path), of=path, instance=uid)
    (answer,) = store(node.port, evil)

    after = {p for p in tmp_path.rglob("*") if "sent" not in p.parts}
    assert answer.Status == 0xC000
    assert "UID" in answer.ErrorComment
    assert {p for p in after - before if "archive" not in p.parts} == set()
    assert node.files() == []


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"SeriesInstanceUID": None}, 0xC000),
        ({"StudyInstanceUID": None}, 0xC000),
        ({"SeriesInstanceUID": "a/b"}, 0xC000),
    ],
)
def test_a_data_set_without_a_uid_that_it_needs_is_refused(
    node: Node, tmp_path: Path, attributes: dict[str, object], status: int
) -> None:
    (path,) = mr_series(tmp_path, slices=1)

    (answer,) = store(node.port, rewrite(path, **attributes))

    assert answer.Status == status
    assert node.files() == []


def test_a_data_set_that_is_another_than_the_request_says_is_refused(node: Node, tmp_path: Path) -> None:
    one, other = mr_series(tmp_path, slices=2)
    swapped = raw_file(tmp_path / "swapped.dcm", data_set_bytes(other), of=one)

    (answer,) = store(node.port, swapped)

    assert answer.Status == 0xA900
    assert node.files() == []


def test_an_archive_that_cannot_be_written_is_out_of_resources_and_works_again_later(
    node: Node, tmp_path: Path
) -> None:
    (path,) = mr_series(tmp_path / "sent", slices=1)
    incoming = node.archive.root / "tmp" / "incoming"
    incoming.rmdir()
    (refused,) = store(node.port, path)
    incoming.mkdir()
    (kept,) = store(node.port, path)

    assert (refused.Status, kept.Status) == (0xA700, 0x0000)
    assert refused.ErrorComment == "out of resources; the node's log says why"
    assert str(node.archive.root) not in str(refused)


def test_an_instance_beyond_the_limit_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "sent", slices=1, rows=64, columns=64)
    with receiving(tmp_path, max_instance_bytes=4096) as node:
        (answer,) = store(node.port, path)

        assert answer.Status == 0xC000  # it will not become shorter: to send it again would not help
        assert "longer than 4096 bytes" in answer.ErrorComment
        assert node.unfinished() == []


def test_a_bomb_of_deflated_zeros_is_refused(tmp_path: Path) -> None:
    (path,) = mr_series(
        tmp_path / "sent",
        slices=1,
        PixelData=b"\0" * 4_000_000,
        transfer_syntax="1.2.840.10008.1.2.1.99",
    )
    with receiving(tmp_path, max_instance_bytes=100_000) as node:
        (answer,) = store(node.port, path)

        assert answer.Status == 0xC000
        assert node.files() == []


def test_what_was_half_sent_when_the_sender_aborted_leaves_nothing(node: Node, tmp_path: Path) -> None:
    whole, half = mr_series(tmp_path, slices=2, rows=256, columns=256)
    association = associate(node.port, [(MRImageStorage, ExplicitVRLittleEndian)])
    association.send_c_store(whole)
    fragment = struct.pack(">IBB", 1026, association.accepted_contexts[0].context_id, 0) + b"\0" * 1024
    send_command(association, half)
    send_pdu(association, fragment)
    wait_until(node.unfinished, what="the half instance in the archive")
    association.abort()

    wait_until(lambda: not node.unfinished(), what="the half instance gone")
    assert len(node.files()) == 1
    assert echoscu(node.port).returncode == 0


def test_a_pdu_longer_than_agreed_ends_the_connection_and_not_the_node(node: Node) -> None:
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 0x7FFFFFFF) + b"\0" * 1000)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""

    assert echoscu(node.port).returncode == 0


def test_a_sender_that_falls_silent_within_a_pdu_is_let_go(tmp_path: Path) -> None:
    with receiving(tmp_path, acse_timeout_seconds=0.5) as node:
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
            connection.sendall(struct.pack(">BBL", 1, 0, 300) + b"\0" * 10)
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""

        assert echoscu(node.port).returncode == 0


def test_a_sender_whose_pdu_comes_in_drops_is_let_go(tmp_path: Path) -> None:
    with receiving(tmp_path, acse_timeout_seconds=1) as node:
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
            connection.sendall(struct.pack(">BBL", 1, 0, 300))
            began = time.monotonic()
            with suppress(ConnectionError):
                while time.monotonic() - began < 10:
                    connection.sendall(b"\0")
                    time.sleep(0.2)

            assert time.monotonic() - began < 5
        assert echoscu(node.port).returncode == 0


def test_a_connection_that_the_peer_reset_is_closed_at_once_and_not_some_day(node: Node) -> None:
    gc.disable()  # it would close what is forgotten
    try:
        before = open_sockets()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(struct.pack(">BBL", 1, 0, 300))
        assert echoscu(node.port).returncode == 0

        wait_until(lambda: open_sockets() <= before, what="no more open sockets than before")
    finally:
        gc.enable()


def test_connections_that_end_before_they_ask_for_anything_leave_no_thread(node: Node) -> None:
    before = threading.active_count()
    for _ in range(20):
        socket.create_connection(("127.0.0.1", node.port), timeout=10).close()
    assert echoscu(node.port).returncode == 0

    wait_until(lambda: threading.active_count() <= before, what="no more threads", seconds=10)  # of the 30


def open_sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def send_command(association: Association, path: Path) -> None:
    """Send only the command of a C-STORE request, by hand."""
    meta = dcmread(path).file_meta
    elements = [
        (0x0002, _even(meta.MediaStorageSOPClassUID)),
        (0x0100, struct.pack("<H", 1)),
        (0x0110, struct.pack("<H", 1)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 1)),
        (0x1000, _even(meta.MediaStorageSOPInstanceUID)),
    ]
    body = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)
    body = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    context_id = association.accepted_contexts[0].context_id
    send_pdu(association, struct.pack(">IBB", len(body) + 2, context_id, 3) + body)


def send_pdu(association: Association, item: bytes) -> None:
    transport = association.dul.socket
    assert transport is not None
    transport.send(struct.pack(">BBL", 4, 0, len(item)) + item)


def _even(uid: str) -> bytes:
    value = uid.encode()
    return value + b"\0" * (len(value) % 2)
