"""Encodes the answers to a query: thousands of small data sets of the same attributes (PS3.5 7.1)."""

import struct
from collections.abc import Mapping, Sequence

from pydicom.datadict import dictionary_VR, tag_for_keyword

from gpnet_node.store.answers import UTF_8
from gpnet_node.store.attributes import Attribute

_CHARACTER_SET = "SpecificCharacterSet"
_LONGEST_VALUE = 0xFFFE  # of a VR with a length of 16 bits


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
