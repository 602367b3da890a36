"""Reads the header of an image whose encoding is plain, as nearly every one is: little endian, lengths known.

It is read while the sender waits. pydicom, which reads all others, asks the system at each element where it
is in the file, whereupon the interpreter turns to other associations.
"""

import struct
from functools import lru_cache
from typing import BinaryIO

from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

PIXEL_GROUP = 0x7FE0
PIXELS = 0x7FE00008  # Float Pixel Data, the first of the three elements that hold pixels
UNDEFINED = 0xFFFFFFFF

_BLOCK_BYTES = 1 << 14
_HEAD_BYTES = 12
_CHARACTER_SET = 0x00080005
_IMPLICIT, _EXPLICIT, _LENGTH = struct.Struct("<HHL"), struct.Struct("<HH2sH"), struct.Struct("<L")
_SHORT = {vr.encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_16}
_LONG = {vr.encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_32}

_Head = tuple[int, str | None, int, int]  # tag, VR, length, and where the value begins


class _Blocks:
    """A file that is read by blocks, but for what nobody asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = 0
        self._block = b""

    def at(self, position: int, count: int) -> bytes:
        """Return so many bytes from there, or fewer where the file ends."""
        offset = position - self._start
        if offset + count > len(self._block):
            self._file.seek(position)
            self._block = self._file.read(max(_BLOCK_BYTES, count))
            self._start, offset = position, 0
        return self._block[offset : offset + count]


def plain_header(file: BinaryIO, syntax: UID, *, longest: int) -> Dataset | None:
    """Read the elements from where ``file`` stands to the pixels, and stop there, as pydicom would.

    Values of more than ``longest`` bytes are left out. None where something is not plain, or the file ends
    before the pixels; then ``file`` stands anywhere.
    """
    if not syntax.is_little_endian:
        return None
    implicit = syntax.is_implicit_VR
    blocks, at = _Blocks(file), file.tell()
    if implicit and _is_vr(blocks.at(at, _HEAD_BYTES)[4:6]):
        return None
    elements: dict[BaseTag, DataElement | RawDataElement] = {}
    while head := _head(blocks.at(at, _HEAD_BYTES), at, implicit=implicit):
        tag, vr, length, value_at = head
        if tag >= PIXELS:
            file.seek(at)
            return _data_set(elements, implicit=implicit) if tag >> 16 == PIXEL_GROUP else None
        at = value_at + length
        if length == UNDEFINED or (tag == _CHARACTER_SET and length > longest):
            return None
        if length <= longest:
            value = blocks.at(value_at, length)
            number = BaseTag(tag)
            elements[number] = RawDataElement(number, vr, length, value, value_at, implicit, True)
    return None


def _head(head: bytes, at: int, *, implicit: bool) -> _Head | None:
    """Read an element's head (PS3.5 7.1.2, 7.1.3), or None where it is cut short or has no known VR."""
    if len(head) < _HEAD_BYTES:
        return None
    if implicit:
        group, number, length = _IMPLICIT.unpack_from(head)
        return group << 16 | number, None, length, at + 8
    group, number, vr, length = _EXPLICIT.unpack_from(head)
    if vr in _SHORT:
        return group << 16 | number, _SHORT[vr], length, at + 8
    if vr in _LONG:
        (length,) = _LENGTH.unpack_from(head, 8)
        return group << 16 | number, _LONG[vr], length, at + 12
    return None


def _is_vr(code: bytes) -> bool:
    return all(ord("A") <= letter <= ord("Z") for letter in code)


def _data_set(elements: dict[BaseTag, DataElement | RawDataElement], *, implicit: bool) -> Dataset:
    data_set = Dataset(elements)
    named = elements.get(BaseTag(_CHARACTER_SET))
    encodings = list(_encodings(named.VR, named.value)) if named else default_encoding
    data_set.set_original_encoding(implicit, True, encodings)
    return data_set


@lru_cache(maxsize=64)
def _encodings(vr: str | None, character_set: bytes) -> list[str]:
    element = RawDataElement(
        BaseTag(_CHARACTER_SET), vr, len(character_set), character_set, 0, vr is None, True
    )
    return convert_encodings(convert_raw_data_element(element).value)
