"""Reads the header of a data set as it arrived, and finds out whether the data set is whole (PS3.5 7)."""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import SEEK_CUR, SEEK_END
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.intake.plain import PIXEL_GROUP, PIXELS, UNDEFINED, plain_header
from gpnet_node.store.versions import UNREADABLE

_LONG_VALUE_BYTES = 1 << 16  # longer values stay in the file
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_INFLATED_IN_MEMORY_BYTES = 1 << 22
_CHUNK_BYTES = 1 << 20
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def is_safe_uid(value: object) -> bool:
    """Whether the value is a UID by its characters and length (PS3.5 9.1), and so also safe as a file name.

    Components with a leading zero are let through: old devices write them, and their images are wanted.
    """
    return isinstance(value, str) and len(value) <= 64 and _UID.fullmatch(value) is not None


def uid_of(header: pydicom.Dataset, keyword: str) -> object:
    """Return a UID from its bytes: of every image some are asked for, and pydicom takes long to convert."""
    element: object = header.get_item(_tag(keyword))  # None where it is not there, whatever its type says
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        return element.value.rstrip(b"\0 ").decode("ascii", "replace")
    return getattr(element, "value", None)


@lru_cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


@dataclass(frozen=True, kw_only=True, eq=False)
class Received:
    """A whole data set: its elements before the pixels, and whether there are pixels."""

    header: pydicom.Dataset
    has_pixels: bool


def read_received(file: BinaryIO, *, start: int, transfer_syntax: UID, max_bytes: int) -> Received:
    """Read the data set that begins at byte ``start`` of ``file``, as it was sent.

    Long values and pixels are left in the file, so memory stays bounded whatever the data set's size.

    Raises UnreadableInstanceError where the data set cannot be parsed, ends too early, or lacks a UID that it
    needs to be kept at all; StorageError where the disk does not do its work: what was still in the buffer of
    ``file`` may find it full. The text never quotes a value.
    """
    try:
        if transfer_syntax.is_deflated:
            with SpooledTemporaryFile(max_size=_INFLATED_IN_MEMORY_BYTES) as plain:
                _inflate(file, start, cast(BinaryIO, plain), max_bytes)
                received = _parsed(cast(BinaryIO, plain), 0, transfer_syntax)
        else:
            received = _parsed(file, start, transfer_syntax)
        missing = [keyword for keyword in _REQUIRED if not is_safe_uid(uid_of(received.header, keyword))]
    except UNREADABLE as exc:
        raise UnreadableInstanceError(f"the data set cannot be parsed ({type(exc).__name__})") from exc
    except OSError as exc:
        if exc.errno is None:  # not the system's: pydicom's, for a sequence that ends too early
            raise _truncated() from exc
        raise StorageError(f"archive: {exc.strerror}") from exc
    if missing:
        raise UnreadableInstanceError(f"{missing[0]} is missing or is not a UID")
    return received


def _parsed(file: BinaryIO, start: int, transfer_syntax: UID) -> Received:
    size = file.seek(0, SEEK_END)
    file.seek(start)
    header = plain_header(file, transfer_syntax, longest=_LONG_VALUE_BYTES)
    if header is None:
        file.seek(start)
        header = _elements(file, transfer_syntax, size, stop_before_pixels=True)
    order = "<" if transfer_syntax.is_little_endian else ">"
    has_pixels = _next_group(file, order) == PIXEL_GROUP
    if has_pixels:
        _skip_pixels(file, size=size, implicit=bool(header.original_encoding[0]), order=order)
    if file.tell() < size:
        _elements(file, transfer_syntax, size)  # what stands behind the pixels
    if file.tell() != size:
        raise _truncated()
    return Received(header=header, has_pixels=has_pixels)


def _elements(file: BinaryIO, syntax: UID, size: int, *, stop_before_pixels: bool = False) -> pydicom.Dataset:
    """Read elements to the pixels or the end; a value that is cut short is an error, unlike in pydicom."""
    at_pixels = cast(Callable[..., bool], lambda tag, *_: int.__ge__(tag, PIXELS))
    data_set = read_dataset(
        file,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        stop_when=at_pixels if stop_before_pixels else None,
        defer_size=_LONG_VALUE_BYTES,
    )
    end = file.tell()
    for element in data_set.values():
        if isinstance(element, RawDataElement) and element.length != UNDEFINED:
            held = element.length if element.value is None else len(element.value)
            end = element.value_tell + element.length
            if held < element.length or end > size:
                raise _truncated()
        else:
            end = file.tell()
    remainder = file.tell() - end
    file.seek(end)
    if any(_exactly(file, remainder)):  # less than an element's head, and not padding either
        raise _truncated()
    return data_set


def _next_group(file: BinaryIO, order: str) -> int | None:
    head = file.read(2)
    file.seek(-len(head), SEEK_CUR)
    return int(struct.unpack(order + "H", head)[0]) if len(head) == 2 else None


def _skip_pixels(file: BinaryIO, *, size: int, implicit: bool, order: str) -> None:
    """Step over the pixel element; its fragments are walked where its length is undefined (PS3.5 A.4)."""
    head = _exactly(file, 8)
    if implicit:
        (length,) = struct.unpack_from(order + "L", head, 4)
    else:
        (length,) = struct.unpack(order + "L", _exactly(file, 4))
    if length != UNDEFINED:
        _step(file, length, size)
        return
    while True:
        group, element, length = struct.unpack(order + "HHL", _exactly(file, 8))
        if (group, element) == _SEQUENCE_END:
            return
        if (group, element) != _ITEM:
            raise UnreadableInstanceError("the compressed pixels are not a sequence of fragments")
        _step(file, length, size)


def _step(file: BinaryIO, length: int, size: int) -> None:
    if file.tell() + length > size:
        raise _truncated()
    file.seek(length, SEEK_CUR)


def _exactly(file: BinaryIO, count: int) -> bytes:
    read = file.read(count)
    if len(read) < count:
        raise _truncated()
    return read


def _inflate(file: BinaryIO, start: int, plain: BinaryIO, max_bytes: int) -> None:
    """Undo the deflation of a whole data set (PS3.5 A.5)."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    file.seek(start)
    while (chunk := file.read(_CHUNK_BYTES)) and not inflate.eof:
        while chunk and not inflate.eof:  # behind the end stands a byte of padding, which is never consumed
            plain.write(inflate.decompress(chunk, _CHUNK_BYTES))
            chunk = inflate.unconsumed_tail
            if plain.tell() > max_bytes:
                raise UnreadableInstanceError(f"the data set inflates to more than {max_bytes} bytes")
    plain.write(inflate.flush())
    if not inflate.eof:
        raise _truncated()


def _truncated() -> UnreadableInstanceError:
    return UnreadableInstanceError("the data set ends too early")
