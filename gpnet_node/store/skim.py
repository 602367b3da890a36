"""Goes through a data set as it lies in its file, and holds nothing but what is asked for (PS3.5 7).

Every instance is read so while its sender waits, and whatever a sender encodes takes no more memory than
that. What is odd is read as pydicom reads it; what pydicom only guesses at is refused.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import SEEK_END
from typing import BinaryIO

from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from gpnet_node.errors import UnreadableInstanceError

PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

_BLOCK_BYTES = 1 << 14
_DEEPEST = 64  # sequences within sequences, far more than images and reports have
_SHORTEST_BYTES = 8  # of an element: one without a value
_UNDEFINED = 0xFFFFFFFF
_NO_ELEMENTS = (_ITEM, _ITEM_END, _SEQUENCE_END) = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARACTER_SET = 0x00080005
_LONG = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Skimmed:
    """A whole data set: the elements before the pixels that were asked for, and whether there are pixels."""

    header: Dataset
    has_pixels: bool


_Element = tuple[int, bytes | None, int, int]  # tag, VR where it is named, length, where the value begins


def skim(file: BinaryIO, *, start: int, syntax: UID, wanted: Mapping[int, BaseTag], longest: int) -> Skimmed:
    """Take the elements of ``wanted`` out of the data set from byte ``start`` to the end of ``file``.

    A value of undefined length, or of more than ``longest`` bytes, is not taken out. Raises
    UnreadableInstanceError where the data set ends too early or is none, and what pydicom raises for a
    character set that it does not know.
    """
    little_endian = syntax.is_little_endian
    walk = _Walk(file, little_endian=little_endian)
    at, implicit = start, not walk.is_explicit(start)
    has_pixels = False
    elements: dict[BaseTag, RawDataElement] = {}
    while at + _SHORTEST_BYTES <= walk.size:
        number, vr, length, value_at = walk.element(at, implicit=implicit)
        at = walk.behind(number, length, value_at, implicit=implicit)
        has_pixels = has_pixels or number in PIXELS
        if (tag := wanted.get(number)) is not None and length <= longest and not has_pixels:
            elements[tag] = RawDataElement(
                tag,
                vr.decode("latin-1") if vr else None,
                length,
                walk.read(value_at, length),
                value_at,
                implicit,
                little_endian,
            )
    if any(walk.read(at, walk.size - at)):  # else it is padding, too short for an element
        raise ends_too_early()
    header = Dataset(elements)  # type: ignore[arg-type]  # a dict's type does not widen
    character_set = elements.get(BaseTag(_CHARACTER_SET))
    encodings = list(_encodings(character_set.VR, character_set.value or b"")) if character_set else None
    header.set_original_encoding(implicit, little_endian, encodings or default_encoding)
    return Skimmed(header=header, has_pixels=has_pixels)


class _Walk:
    """A file that is read forwards, by blocks, but for what nobody asks for."""

    def __init__(self, file: BinaryIO, *, little_endian: bool) -> None:
        order = "<" if little_endian else ">"
        self._implicit, self._explicit = struct.Struct(order + "HHL"), struct.Struct(order + "HH2sH")
        self._length = struct.Struct(order + "L")
        self._file = file
        self._start = 0
        self._block = b""
        self.size = file.seek(0, SEEK_END)

    def read(self, at: int, count: int) -> bytes:
        """Return so many bytes from there, which is not before what was read last."""
        offset = at - self._start
        if offset + count > len(self._block):
            if at + count > self.size:
                raise ends_too_early()
            self._file.seek(at)
            self._block = self._file.read(max(_BLOCK_BYTES, count))
            self._start, offset = at, 0
        return self._block[offset : offset + count]

    def is_explicit(self, at: int) -> bool:
        """Whether the element there names its VR: the transfer syntax, which says so too, may be wrong."""
        if at + _SHORTEST_BYTES > self.size:
            return False
        return all(ord("A") <= letter <= ord("Z") for letter in self.read(at, _SHORTEST_BYTES)[4:6])

    def element(self, at: int, *, implicit: bool) -> _Element:
        """Read an element's head (PS3.5 7.1.2, 7.1.3). What is no VR in an explicit one makes it implicit."""
        head = self.read(at, _SHORTEST_BYTES)
        if not implicit:
            group, number, vr, length = self._explicit.unpack(head)
            if vr in _LONG:
                (length,) = self._length.unpack(self.read(at + 8, 4))
                return group << 16 | number, vr, length, at + 12
            if b"AA" <= vr <= b"ZZ":
                return group << 16 | number, vr, length, at + 8
        group, number, length = self._implicit.unpack(head)
        return group << 16 | number, None, length, at + 8

    def behind(self, number: int, length: int, at: int, *, implicit: bool, depth: int = 0) -> int:
        """Return where the value that begins there ends."""
        if number in _NO_ELEMENTS:
            raise UnreadableInstanceError("an item, or the end of one, stands where an element should")
        if length == _UNDEFINED:
            return self._behind_items(at, fragments=number in PIXELS, implicit=implicit, depth=depth + 1)
        if at + length > self.size:
            raise ends_too_early()
        return at + length

    def _behind_items(self, at: int, *, fragments: bool, implicit: bool, depth: int) -> int:
        """Return where a sequence of undefined length ends, or the fragments of pixels (PS3.5 7.5, A.4)."""
        if depth > _DEEPEST:
            raise UnreadableInstanceError(f"its sequences are nested more than {_DEEPEST} deep")
        while True:
            group, number, length = self._implicit.unpack(self.read(at, 8))
            at += 8
            if group << 16 | number == _SEQUENCE_END:
                return at
            if group << 16 | number != _ITEM or (length == _UNDEFINED and fragments):
                raise UnreadableInstanceError("a value of undefined length is neither sequence nor fragments")
            if length == _UNDEFINED:
                at = self._behind_item(at, implicit=implicit or not self.is_explicit(at), depth=depth)
            else:
                at += length

    def _behind_item(self, at: int, *, implicit: bool, depth: int) -> int:
        """Return where an item of undefined length ends. One may be implicit in what is not (PS3.5 6.2.2)."""
        while True:
            number, _, length, at = self.element(at, implicit=implicit)
            if number == _ITEM_END:
                return at
            at = self.behind(number, length, at, implicit=implicit, depth=depth)


def ends_too_early() -> UnreadableInstanceError:
    """Return the error for a data set that is cut short."""
    return UnreadableInstanceError("the data set ends too early")


@lru_cache(maxsize=64)
def _encodings(vr: str | None, character_set: bytes) -> list[str]:
    element = RawDataElement(
        BaseTag(_CHARACTER_SET), vr, len(character_set), character_set, 0, vr is None, True
    )
    return convert_encodings(convert_raw_data_element(element).value)
