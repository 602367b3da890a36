"""multipart/related (RFC 2387, PS3.18 8.6.1.2): read as it comes in, within bounds, and written by parts."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from fastapi import HTTPException

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")  # RFC 2046 5.1.1
_MAX_HEAD_BYTES = 8192  # of one part, and of what may stand before the first boundary


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part to be written; ``content`` is asked for while it is sent."""

    content_type: str
    content: Iterable[bytes]
    location: str = ""


def written(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    """Yield the bytes of a message, piece by piece; of a part no more than one piece is held."""
    for part in parts:
        location = f"Content-Location: {part.location}\r\n" if part.location else ""
        yield f"\r\n--{boundary}\r\nContent-Type: {part.content_type}\r\n{location}\r\n".encode()
        yield from part.content
    yield f"\r\n--{boundary}--\r\n".encode()


class Sink(Protocol):
    """Takes the parts of a message one after the other."""

    def begin(self, headers: Mapping[str, str]) -> None:
        """A part begins; its headers' names are in lower case."""

    def take(self, piece: bytes) -> None:
        """Some of its content comes."""

    def end(self) -> None:
        """It is whole."""


class _Where(Enum):
    BEFORE = auto()
    BEHIND_BOUNDARY = auto()
    IN_HEAD = auto()
    IN_CONTENT = auto()
    BEHIND = auto()


class Reader:
    """Takes a message apart as its bytes come in; of a part's content it holds less than a boundary's length.

    Raises HTTPException: 400 for what is no such message, 413 for more than ``max_parts``.
    """

    def __init__(self, boundary: str, sink: Sink, *, max_parts: int) -> None:
        if not _BOUNDARY.fullmatch(boundary):
            raise HTTPException(400, "the content type states no boundary")
        self._line = b"\r\n--" + boundary.encode()
        self._sink = sink
        self._max_parts = max_parts
        self._buffer = bytearray(b"\r\n")  # so that a boundary that opens the message is like any other
        self._where = _Where.BEFORE
        self._parts = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the message."""
        self._buffer += data
        steps = {
            _Where.BEFORE: self._before,
            _Where.BEHIND_BOUNDARY: self._behind_boundary,
            _Where.IN_HEAD: self._head,
            _Where.IN_CONTENT: self._content,
        }
        while self._where is not _Where.BEHIND and steps[self._where]():
            pass
        if self._where is _Where.BEHIND:
            self._buffer.clear()

    def finish(self) -> None:
        """Say that no more comes."""
        if self._where is not _Where.BEHIND:
            raise HTTPException(400, "the multipart message ends before its last boundary")

    def _before(self) -> bool:
        found = self._buffer.find(self._line)
        if (len(self._buffer) if found < 0 else found) > _MAX_HEAD_BYTES:
            raise HTTPException(400, "the multipart message does not begin with its boundary")
        if found < 0:
            return False
        del self._buffer[: found + len(self._line)]
        self._where = _Where.BEHIND_BOUNDARY
        return True

    def _behind_boundary(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self._where = _Where.BEHIND
            return True
        self._parts += 1
        if self._parts > self._max_parts:
            raise HTTPException(413, f"the message has more than {self._max_parts} parts")
        self._where = _Where.IN_HEAD  # the boundary's line end stays: a part may have no headers
        return True

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if (len(self._buffer) if end < 0 else end) > _MAX_HEAD_BYTES:
            raise HTTPException(400, f"the headers of a part are longer than {_MAX_HEAD_BYTES} bytes")
        if end < 0:
            return False
        self._sink.begin(_headers(bytes(self._buffer[:end])))
        del self._buffer[: end + 4]
        self._where = _Where.IN_CONTENT
        return True

    def _content(self) -> bool:
        found = self._buffer.find(self._line)
        size = found if found >= 0 else max(0, len(self._buffer) - len(self._line) + 1)
        if size:
            self._sink.take(bytes(self._buffer[:size]))
            del self._buffer[:size]
        if found < 0:
            return False
        self._sink.end()
        del self._buffer[: len(self._line)]
        self._where = _Where.BEHIND_BOUNDARY
        return True


def _headers(head: bytes) -> Mapping[str, str]:
    lines = head.decode("latin-1").split("\r\n")
    if lines[0].strip():
        raise HTTPException(400, "a boundary of the multipart message is followed by something else")
    pairs = (line.partition(":") for line in lines[1:])
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}
