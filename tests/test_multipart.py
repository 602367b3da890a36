"""multipart/related: whatever pieces it comes in, and whatever is wrong with it."""

from collections.abc import Mapping

import pytest
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

from gpnet_node.web.multipart import Part, Reader, written

PARTS = [b"", b"\r\n", b"one\r\n--", b"\r\n--other\r\n", b"x" * 5000, b"--b", b"\r\n--\r\n"]


class Collected:
    """Keeps all parts, and the longest piece that it was given at once."""

    def __init__(self) -> None:
        self.parts: list[tuple[Mapping[str, str], bytes]] = []
        self.ended = 0

    def begin(self, headers: Mapping[str, str]) -> None:
        self.parts.append((headers, b""))

    def take(self, piece: bytes) -> None:
        headers, content = self.parts[-1]
        self.parts[-1] = headers, content + piece

    def end(self) -> None:
        self.ended += 1


def read(message: bytes, *, boundary: str = "bound", size: int = 1 << 20, max_parts: int = 100) -> Collected:
    found = Collected()
    reader = Reader(boundary, found, max_parts=max_parts)
    for start in range(0, len(message), size):
        reader.feed(message[start : start + size])
    reader.finish()
    return found


def message_of(*contents: bytes, boundary: str = "bound") -> bytes:
    parts = (
        Part(content_type="application/dicom", content=[it], location=f"/{n}")
        for n, it in enumerate(contents)
    )
    return b"".join(written(parts, boundary))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_a_message_is_the_same_whatever_pieces_it_comes_in(size: int) -> None:
    found = read(message_of(*PARTS), size=size)

    assert [content for _, content in found.parts] == PARTS
    assert found.ended == len(PARTS)
    assert found.parts[1][0] == {"content-type": "application/dicom", "content-location": "/1"}


@given(contents=st.lists(st.binary(max_size=300), min_size=1, max_size=5), size=st.integers(1, 50))
def test_any_content_comes_out_as_it_was_put_in(contents: list[bytes], size: int) -> None:
    found = read(message_of(*contents, boundary="b-7f3"), boundary="b-7f3", size=size)

    assert [content for _, content in found.parts] == contents


def test_a_preface_an_epilogue_and_parts_without_headers_are_read() -> None:
    message = (
        b"to whom it may concern\r\n--bound  \r\n\r\none\r\n--bound\r\nA: b\r\n\r\ntwo\r\n--bound--\r\nbye"
    )

    found = read(message)

    assert [content for _, content in found.parts] == [b"one", b"two"]
    assert found.parts[0][0] == {}


def test_no_more_of_a_part_is_held_than_a_boundary_is_long() -> None:
    found = Collected()
    reader = Reader("bound", found, max_parts=1)
    reader.feed(b"--bound\r\n\r\n")
    for _ in range(100):
        reader.feed(b"x" * 10_000)

    assert len(found.parts[0][1]) >= 100 * 10_000 - len("\r\n--bound")


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"", 400),
        (b"--bound\r\n\r\nnever ended", 400),
        (b"--bound\r\nA: b", 400),
        (b"--boundless\r\n\r\nx\r\n--bound--", 400),
        (b"x" * 9000, 400),
        (b"--bound\r\nA: " + b"b" * 9000, 400),
        (b"--bound\r\n\r\n" + b"\r\n--bound\r\n\r\n" * 100 + b"\r\n--bound--", 413),
    ],
)
def test_what_is_no_message_or_has_no_end_is_refused(message: bytes, status: int) -> None:
    with pytest.raises(HTTPException) as raised:
        read(message, size=1000)

    assert raised.value.status_code == status


@pytest.mark.parametrize("boundary", ["", "x" * 71, 'quo"ted', "line\r\nend"])
def test_a_boundary_that_is_none_is_refused(boundary: str) -> None:
    with pytest.raises(HTTPException):
        Reader(boundary, Collected(), max_parts=1)
