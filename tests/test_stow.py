"""STOW-RS: as safe as C-STORE, each instance judged by itself, and nothing left of what was not stored."""

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import UID

from tests.factories import mr_series, rewrite, uid_of
from tests.peers import data_set_bytes, wait_until
from tests.web import STOW_HEADERS, Answer, Web, stow_body, web_service

PENDING = ("tmp/stow", "tmp/incoming")


def store(web: Web, *contents: bytes, study: str = "") -> Answer:
    path = f"/studies/{study}" if study else "/studies"
    return web.ask(path, method="POST", body=stow_body(contents), headers=STOW_HEADERS)


def failures(answer: Answer) -> list[tuple[str, int]]:
    items = Dataset.from_json(answer.json).get("FailedSOPSequence", [])
    return [(it.ReferencedSOPInstanceUID, it.FailureReason) for it in items]


def left_open(web: Web) -> list[str]:
    """Files of the archive and connections that this process holds."""
    process = psutil.Process()
    files = [it.path for it in process.open_files() if it.path.startswith(str(web.archive.root))]
    ends = [it for it in process.net_connections("tcp") if it.laddr.port == web.port]
    return files + [it.status for it in ends if it.status != "LISTEN"]


def unfinished(web: Web) -> list[str]:
    return [path.name for folder in PENDING for path in (web.archive.root / folder).iterdir()]


def test_what_is_answered_as_stored_is_in_the_archive_as_sent_and_in_the_index(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "s", slices=3, transfer_syntax="1.2.840.10008.1.2.4.80", rows=32, columns=32)
    with web_service(tmp_path) as web:
        answer = store(web, *(path.read_bytes() for path in paths))

        kept = {uid: web.archive.root / path for uid, _, path in web.archive.instances()}
        assert answer.status == 200
        assert {uid: data_set_bytes(path) for uid, path in kept.items()} == {
            uid_of(path): data_set_bytes(path) for path in paths
        }
        response = Dataset.from_json(answer.json)
        assert [it.ReferencedSOPInstanceUID for it in response.ReferencedSOPSequence] == list(
            map(uid_of, paths)
        )
        assert "FailedSOPSequence" not in response
        assert response.RetrieveURL == f"{web.url}/studies/{dcmread(paths[0]).StudyInstanceUID}"
        found = web.client().search_for_instances(dcmread(paths[0]).StudyInstanceUID)
        assert len(found) == 3
        (instance,) = web.index.versions(uid_of(paths[0]))
        assert web.ask(response.ReferencedSOPSequence[0].RetrieveURL.partition("/dicom-web")[2]).status == 200
        assert instance.transfer_syntax_uid == "1.2.840.10008.1.2.4.80"
        assert unfinished(web) == []


def test_a_file_is_synchronised_before_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = mr_series(tmp_path / "s", slices=1)
    with web_service(tmp_path) as web:

        def fail(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("gpnet_node.store.archive.os.fsync", fail)
        answer = store(web, path.read_bytes())
        monkeypatch.undo()

        assert answer.status == 409
        assert failures(answer) == [(uid_of(path), 0xA700)]
        assert list(web.archive.instances()) == []
        assert unfinished(web) == []
        assert store(web, path.read_bytes()).status == 200


def test_each_instance_is_judged_by_itself_with_the_reasons_of_the_standard(tmp_path: Path) -> None:
    good, other_study, other_uid, empty, foreign = mr_series(
        tmp_path / "s",
        slices=5,
        StudyInstanceUID=lambda index: "1.2.3" if index != 1 else "1.2.4",
        PixelData=None,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
    )
    mismatched = dcmread(other_uid)
    mismatched.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.99")
    buffer = io.BytesIO()
    dcmwrite(buffer, mismatched)
    rewrite(empty, SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    unknown = foreign.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    contents = [good.read_bytes(), other_study.read_bytes(), buffer.getvalue(), empty.read_bytes(), unknown]
    with web_service(tmp_path) as web:
        answer = store(web, *contents, b"no DICOM" * 100, good.read_bytes()[:-3], study="1.2.3")

        assert answer.status == 202
        stored = Dataset.from_json(answer.json).ReferencedSOPSequence
        assert [it.ReferencedSOPInstanceUID for it in stored] == [uid_of(good)]
        assert failures(answer) == [
            (uid_of(other_study), 0xA900),
            ("1.2.3.99", 0xA900),
            (uid_of(empty), 0xA900),
            (uid_of(foreign), 0xC122),
            ("", 0xC000),
            (uid_of(good), 0xC000),
        ]
        assert [uid for uid, _, _ in web.archive.instances()] == [uid_of(good)]
        assert unfinished(web) == []


def test_the_same_instance_again_is_success_and_other_content_is_a_version(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "s", slices=1)
    with web_service(tmp_path) as web:
        first, again = store(web, path.read_bytes()), store(web, path.read_bytes())
        changed = store(web, rewrite(path, EchoTime=99).read_bytes())

        assert [it.status for it in (first, again, changed)] == [200, 200, 200]
        assert [it.version for it in web.index.versions(uid_of(path))] == [1, 2]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/dicom"}, b"x", 415),
        ({"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=b'}, b"x", 415),
        ({"Content-Type": 'multipart/related; type="application/dicom"'}, b"x", 400),
        (STOW_HEADERS, b"", 400),
        (STOW_HEADERS, b"--b--", 400),
        (STOW_HEADERS, b"--b\r\nContent-Type: application/dicom\r\n\r\ncut", 400),
        (STOW_HEADERS, b"--b\r\n" + b"X-Endless: " + b"x" * 100_000, 400),
        (STOW_HEADERS, b"x" * 100_000, 400),
        (STOW_HEADERS, b"--b\r\n\r\n\r\n" * 300 + b"--b--", 413),
        ({**STOW_HEADERS, "Accept": "text/html"}, b"--b--", 406),
    ],
)
def test_what_is_no_such_request_is_refused_as_a_whole(
    tmp_path: Path, headers: dict[str, str], body: bytes, status: int
) -> None:
    with web_service(tmp_path, max_parts=100) as web:
        assert web.ask("/studies", method="POST", body=body, headers=headers).status == status
        assert web.ask("/studies").json == []


def test_a_node_that_may_not_be_stored_to_takes_nothing(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "s", slices=1)
    with web_service(tmp_path, may_store=False) as web:
        assert store(web, path.read_bytes()).status == 403
        assert list(web.archive.instances()) == []


def test_an_instance_beyond_the_limit_ends_the_request_with_bounded_memory_and_disk(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "s", slices=1)
    head = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes()
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield head
        while True:
            sent += 1 << 20
            yield b"\0" * (1 << 20)

    process = psutil.Process()
    with web_service(tmp_path, node={"max_instance_bytes": 8 << 20}) as web:
        store(web, path.read_bytes())  # whatever is loaded once
        before = process.memory_info().rss
        try:
            status = web.ask("/studies", method="POST", body=endless(), headers=STOW_HEADERS).status
        except (BrokenPipeError, ConnectionResetError):  # it hangs up while we still send
            status = 413
        assert status == 413
        assert sent < 100 << 20
        assert process.memory_info().rss - before < 64 << 20
        wait_until(lambda: unfinished(web) == [], what="the unfinished file being removed")
        assert web.ask("/studies").status == 200


def test_a_connection_that_drops_keeps_what_was_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    first, second = mr_series(tmp_path / "s", slices=2, rows=1024, columns=1024)
    body = stow_body([first.read_bytes(), second.read_bytes()])
    with web_service(tmp_path) as web:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", web.port)) as connection:
                head = (
                    f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
                )
                head += f"Content-Type: {STOW_HEADERS['Content-Type']}\r\n\r\n"
                connection.sendall(head.encode() + body[:-1000])
        wait_until(lambda: unfinished(web) == [], what="nothing unfinished")
        wait_until(lambda: len(web.index.versions(uid_of(first))) == 1, what="the whole one being indexed")
        wait_until(lambda: left_open(web) == [], what="nothing left open")
        assert web.index.versions(uid_of(second)) == ()
        assert threading.active_count() < 60
