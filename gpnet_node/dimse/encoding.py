"""Encodes and reads what there are thousands of: command sets, PDUs of data, the answers to a query.

PS3.5 7.1, PS3.7 6.3.1, PS3.8 9.3.5.
"""

import struct
from collections.abc import Mapping, Sequence

from pydicom.datadict import dictionary_VR, tag_for_keyword

from gpnet_node.store.answers import UTF_8
from gpnet_node.store.attributes import Attribute

_CHARACTER_SET = "SpecificCharacterSet"
_LONGEST_VALUE = 0xFFFE  # of a VR with a length of 16 bits
_PDV_HEAD_BYTES = 6  # length, context and control header of a fragment
_COMMAND_ELEMENT = struct.Struct("<HHL")
_COMMAND, _LAST = 1, 2  # bits of the control header (PS3.8 E.2)


def command_set(elements: Mapping[int, str | int]) -> bytes:
    """Return a command set (PS3.7 6.3.1) of elements of group 0000, in order: texts are UIDs, numbers US."""
    content = b""
    for element, value in elements.items():
        encoded = struct.pack("<H", value) if isinstance(value, int) else value.encode()
        encoded += b"\0" * (len(encoded) % 2)
        content += _COMMAND_ELEMENT.pack(0, element, len(encoded)) + encoded
    return struct.pack("<HHLL", 0, 0, 4, len(content)) + content


def read_command_set(encoded: bytes) -> dict[int, bytes]:
    """Return the values of a command set by their elements. Raises ValueError for what is none."""
    elements, position = {}, 0
    while position < len(encoded):
        if position + _COMMAND_ELEMENT.size > len(encoded):
            raise ValueError("a command set that ends within an element")
        group, element, length = _COMMAND_ELEMENT.unpack_from(encoded, position)
        position += _COMMAND_ELEMENT.size
        if group or position + length > len(encoded):
            raise ValueError("a command set with what is none of its elements")
        elements[element] = encoded[position : position + length]
        position += length
    return elements


def message_pdus(context_id: int, command: bytes, data: bytes, *, longest: int) -> bytes:
    """Return the PDUs of one message: command and data, if any, in one if that is no longer than ``longest``.

    ``longest`` is what the peer takes, in bytes behind a PDU's own length; 0: of any length.
    """
    together = _pdv(context_id, _COMMAND | _LAST, command) + (_pdv(context_id, _LAST, data) if data else b"")
    if not longest or len(together) <= longest:
        return _pdu(together)
    most = longest - _PDV_HEAD_BYTES
    pieces = []
    for kind, content in ((_COMMAND, command), (0, data)):
        for first in range(0, len(content), most):
            last = _LAST if first + most >= len(content) else 0
            pieces.append(_pdu(_pdv(context_id, kind | last, content[first : first + most])))
    return b"".join(pieces)


def _pdu(items: bytes) -> bytes:
    return struct.pack(">BBL", 4, 0, len(items)) + items


def _pdv(context_id: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context_id, control) + fragment


class AnswerEncoder:
    """Encodes rows of texts, little endian. All attributes have VRs whose length takes 16 bits.

    ``keywords``: which of the attributes are in the answer; ``constants``: what is the same in every answer.
    An answer that is not plain ASCII is in UTF-8, and says so.
    """

    def __init__(
        self,
        attributes: Sequence[Attribute],
        *,
        keywords: frozenset[str],
        constants: Mapping[str, str],
        implicit_vr: bool,
    ) -> None:
        self._implicit_vr = implicit_vr
        parts: list[tuple[int, bytes, int | None, str]] = [
            (int(it.tag), self._head(int(it.tag), it.vr), place, it.vr)
            for place, it in enumerate(attributes)
            if it.keyword in keywords
        ]
        for keyword, text in {**constants, _CHARACTER_SET: UTF_8}.items():
            tag = tag_for_keyword(keyword)
            assert tag is not None  # the dictionary's own keywords
            vr = dictionary_VR(tag)
            whole = self._element(self._head(tag, vr), vr, text)
            if keyword == _CHARACTER_SET:
                self._utf_8 = whole  # the lowest of all tags
            else:
                parts.append((tag, whole, None, vr))
        self._parts = [part[1:] for part in sorted(parts)]

    def encode(self, row: Sequence[str]) -> bytes:
        """Return the data set of one row."""
        pieces = [
            head if place is None else self._element(head, vr, row[place]) for head, place, vr in self._parts
        ]
        shown = all(row[place].isascii() for _, place, _ in self._parts if place is not None)
        return b"".join(pieces if shown else [self._utf_8, *pieces])

    def _head(self, tag: int, vr: str) -> bytes:
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        return head if self._implicit_vr else head + vr.encode()

    def _element(self, head: bytes, vr: str, text: str) -> bytes:
        if vr == "US":
            value = struct.pack("<H", int(text)) if text else b""
        else:
            value = text.encode()[:_LONGEST_VALUE]
            if len(value) % 2:
                value += b"\0" if vr == "UI" else b" "
        return head + struct.pack("<L" if self._implicit_vr else "<H", len(value)) + value
