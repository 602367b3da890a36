"""Data sets by hand, in every native encoding (PS3.5 7), so that any of their parts can be wrong."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

UNDEFINED = 0xFFFFFFFF
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED, RLE = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
MARK = "Verborgen"  # the patient's name; wherever it turns up beside the archive, something leaks
ROWS, COLUMNS = 16, 12

Value = Union[bytes, int, "Items"]


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items of a sequence. ``delimited``: lengths are undefined; ``closed``: and their ends are told."""

    items: tuple[tuple["Element", ...], ...]
    delimited: bool = False
    closed: bool = True


@dataclass(frozen=True, kw_only=True)
class Element:
    """One element; an int is a US. ``length``: what it claims, where that is not the truth."""

    tag: int
    vr: str
    value: Value
    length: int | None = None


def texts(**by_tag_and_vr: str) -> list[Element]:
    """Make elements of texts, written as ``x00100010PN="..."``."""
    return [
        Element(tag=int(name[1:9], 16), vr=name[9:], value=_padded(text, name[9:]))
        for name, text in by_tag_and_vr.items()
    ]


def _padded(text: str, vr: str) -> bytes:
    content = text.encode()
    return content + (b"\0" if vr == "UI" else b" ") * (len(content) % 2)


def encoded(elements: Sequence[Element], transfer_syntax: str) -> bytes:
    """Encode a data set."""
    order = ">" if transfer_syntax == BIG_ENDIAN else "<"
    content = _encoded(elements, order, implicit=transfer_syntax == IMPLICIT)
    if transfer_syntax != DEFLATED:
        return content
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = deflate.compress(content) + deflate.flush()
    return packed + b"\0" * (len(packed) % 2)


def _encoded(elements: Sequence[Element], order: str, *, implicit: bool) -> bytes:
    return b"".join(_element(it, order, implicit=implicit) for it in elements)


def _element(it: Element, order: str, *, implicit: bool) -> bytes:
    value, length = it.value, it.length
    if isinstance(value, Items):
        content = _items(value, order, implicit=implicit)
        length = UNDEFINED if length is None and value.delimited else length
    else:
        content = struct.pack(order + "H", value) if isinstance(value, int) else value
    length = len(content) if length is None else length
    head = struct.pack(order + "HH", it.tag >> 16, it.tag & 0xFFFF)
    if implicit:
        return head + struct.pack(order + "L", length) + content
    head += it.vr.encode("latin-1")
    if it.vr in _LONG:
        return head + struct.pack(order + "HL", 0, length) + content
    return head + struct.pack(order + "H", length & 0xFFFF) + content


def _items(value: Items, order: str, *, implicit: bool) -> bytes:
    content = b""
    for elements in value.items:
        inner = _encoded(elements, order, implicit=implicit)
        content += _tag(0xE000, order, UNDEFINED if value.delimited else len(inner)) + inner
        if value.delimited and value.closed:
            content += _tag(0xE00D, order, 0)
    return content + (_tag(0xE0DD, order, 0) if value.delimited and value.closed else b"")


def _tag(element: int, order: str, length: int) -> bytes:
    return struct.pack(order + "HHL", 0xFFFE, element, length)


def sequence(tag: int, *items: Sequence[Element], delimited: bool = False) -> Element:
    """Make a sequence."""
    return Element(tag=tag, vr="SQ", value=Items(items=tuple(map(tuple, items)), delimited=delimited))


def mr_image(uid: str, *, study: str, series: str, transfer_syntax: str, sop_class: str) -> list[Element]:
    """Make the elements of a classic MR image."""
    reference = texts(x00081150UI=MR_IMAGE, x00081155UI="1.2.3.4")
    head = texts(
        x00080005CS="ISO_IR 192",
        x00080008CS="ORIGINAL\\PRIMARY\\M\\ND\\DIS3D",
        x00080016UI=sop_class,
        x00080018UI=uid,
        x00080020DA="20240131",
        x00080030TM="101500",
        x00080050SH=MARK,
        x00080060CS="MR",
        x00080070LO="Example Scanners",
    )
    head.append(sequence(0x00081140, reference, reference, delimited=True))
    head += texts(
        x00100010PN=f"{MARK}^Person",
        x00100020LO=MARK,
        x00100030DA="19600101",
        x00180020CS="SE",
        x00180021CS="SK",
        x00180023CS="2D",
        x00180050DS="2",
        x00180080DS="6000",
        x00180081DS="60",
        x00180087DS="7",
        x0020000DUI=study,
        x0020000EUI=series,
        x00200011IS="5",
        x00200012IS="1",
        x00200013IS="1",
        x00200032DS="-10\\-10\\0",
        x00200037DS="1\\0\\0\\0\\1\\0",
        x00200052UI="1.2.3.4.5",
        x00201002IS="10",
    )
    head.append(Element(tag=0x00280002, vr="US", value=1))
    head += texts(x00280004CS="MONOCHROME2")
    head += [Element(tag=0x00280010, vr="US", value=ROWS), Element(tag=0x00280011, vr="US", value=COLUMNS)]
    head += texts(x00280030DS="1.5\\1.5")
    head += [
        Element(tag=0x00280100 + number, vr="US", value=value) for number, value in enumerate((16, 16, 15, 0))
    ]
    return [*head, _pixels(transfer_syntax)]


def _pixels(transfer_syntax: str) -> Element:
    native = bytes(range(256))[: ROWS * COLUMNS] * 2
    if transfer_syntax != RLE:
        return Element(tag=0x7FE00010, vr="OW", value=native)
    fragment = struct.pack("<16L", 1, 64, *[0] * 14) + b"".join(
        bytes([127]) + native[at : at + 128] for at in range(0, len(native), 128)
    )
    parts = _tag(0xE000, "<", 0) + _tag(0xE000, "<", len(fragment)) + fragment + _tag(0xE0DD, "<", 0)
    return Element(tag=0x7FE00010, vr="OB", value=parts, length=UNDEFINED)
