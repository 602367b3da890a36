"""Changes a few things of something valid: elements, lengths, flags, bytes; each knows what it changes."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from tests.fuzz.dataset import MARK, UNDEFINED, Element, Items
from tests.fuzz.messages import C_CANCEL, REFUSED, REQUESTS, RESPONSE, Command
from tests.fuzz.pdu import pdu

T = TypeVar("T")

_ALL_VRS = "AEASATCSDADSDTFDFLISLOLTOBODOFOLOVOWPNSHSLSQSSSTSVTMUCUIULUNURUSUTUV"
_VRS = [_ALL_VRS[at : at + 2] for at in range(0, len(_ALL_VRS), 2)]
_TEXTS = (
    *(b"", b" ", b"\0", b"\\", b"\\\\\\\\", b"*", b"?*", b"-1", b"0", b"1e400", b"nan", b"inf"),
    *(b"9" * 40, b"1" * 65, b"..", b"1.2.", b"1..2", b"../../../etc/passwd", b"\xff\xfe\xfd", b"\x1b$B"),
    *(b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO_IR 100", b"GB18030", b"%s%n", b"1\\2\\3"),
    *(b"00000000", b"99999999", b"20240230", b"-", b"'; DROP TABLE series;--", b"A" * 300, b"x" * 70_000),
    *(MARK.encode(), MARK.encode() + b"^\xc3\xa4=\xe5\xb1\xb1"),
)
_LENGTHS = (0, 1, 2, 3, 7, 0x7F, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, UNDEFINED)
_TAGS = (
    *(0x00000000, 0x00000100, 0x00020010, 0x00080000, 0x00080005, 0x00080016, 0x00080018, 0x00091010),
    *(0x0020000D, 0x0020000E, 0x00280008, 0x00280010, 0x00400252, 0x00400340, 0x52009230, 0x7FE00008),
    *(0x7FE00010, 0xFFFAFFFA, 0xFFFCFFFC, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF),
)
_BOMB_BYTES = 1 << 22


def _rearranged(things: Sequence[T], rng: Random) -> list[T]:
    """Leave one out, repeat one, or put two at each other's place."""
    left = list(things)
    if not left:
        return left
    at, other = rng.randrange(len(left)), rng.randrange(len(left))
    if (what := rng.randrange(3)) == 0:
        del left[at]
    elif what == 1:
        left.insert(other, left[at])
    else:
        left[at], left[other] = left[other], left[at]
    return left


def bytes_changed(content: bytes, rng: Random) -> bytes:
    """Flip bits, put in, take out, repeat or overwrite some bytes, or cut the end off."""
    changed = bytearray(content)
    at = rng.randrange(len(changed) + 1)
    length = rng.choice([1, 1, 2, 4, 8, 60])
    what = rng.randrange(6)
    if what == 0 and changed:
        changed[at % len(changed)] ^= 1 << rng.randrange(8)
    elif what == 1:
        changed[at:at] = rng.randbytes(length)
    elif what == 2:
        del changed[at : at + length]
    elif what == 3:
        changed[at:at] = changed[at : at + length] * rng.choice([1, 2, 50])
    elif what == 4:
        word = struct.pack(rng.choice(["<L", ">L"]), rng.choice(_LENGTHS))
        changed[at : at + 4] = word
    else:
        del changed[at:]
    return bytes(changed)


# -- data sets -----------------------------------------------------------------------------------------------


def elements_changed(elements: Sequence[Element], rng: Random) -> list[Element]:
    """Change one thing of a data set, at the top or within a sequence."""
    changed = list(elements)
    if not changed or rng.random() < 0.25:
        return _rearranged(changed, rng)
    at = rng.randrange(len(changed))
    changed[at] = rng.choice(_ON_ELEMENTS)(changed[at], rng)
    return changed


def _other_value(it: Element, rng: Random) -> Element:
    return replace(it, value=rng.choice(_TEXTS))


def _other_length(it: Element, rng: Random) -> Element:
    return replace(it, length=rng.choice(_LENGTHS))


def _other_vr(it: Element, rng: Random) -> Element:
    return replace(it, vr=rng.choice([*_VRS, "??", "\0\0", "ox"]))


def _other_tag(it: Element, rng: Random) -> Element:
    return replace(it, tag=rng.choice([*_TAGS, rng.getrandbits(32)]))


def _value_bytes(it: Element, rng: Random) -> Element:
    return replace(it, value=bytes_changed(it.value, rng)) if isinstance(it.value, bytes) else it


def _within(it: Element, rng: Random) -> Element:
    """Change an item of a sequence, or make one of it."""
    if not isinstance(it.value, Items):
        return replace(it, vr="SQ", value=Items(items=((it,),), delimited=rng.random() < 0.5))
    items = [tuple(elements_changed(one, rng)) for one in it.value.items]
    delimited, closed = rng.random() < 0.5, rng.random() < 0.7
    return replace(it, value=Items(items=tuple(items), delimited=delimited, closed=closed))


def _nested(it: Element, rng: Random) -> Element:
    """Put it deep into sequences within sequences."""
    delimited, closed = rng.random() < 0.7, rng.random() < 0.8
    for _ in range(rng.choice([2, 10, 60, 90])):
        it = Element(tag=0x00081140, vr="SQ", value=Items(items=((it,),), delimited=delimited, closed=closed))
    return it


def _many_items(it: Element, rng: Random) -> Element:
    return replace(
        it, vr="SQ", value=Items(items=((),) * rng.choice([100, 3000]), delimited=rng.random() < 0.5)
    )


def _bomb(it: Element, rng: Random) -> Element:
    """Much of the same, which a deflated data set makes small."""
    return Element(
        tag=it.tag, vr=rng.choice(["OB", "UN", "UT"]), value=b"0" * rng.choice([_BOMB_BYTES, 1 << 18])
    )


_ON_ELEMENTS: Sequence[Callable[[Element, Random], Element]] = (
    *(_other_value, _other_length, _other_vr, _other_tag, _value_bytes, _within) * 3,
    *(_nested, _many_items),
)


def bombed(elements: Sequence[Element], rng: Random) -> list[Element]:
    """Make one value huge."""
    at = rng.randrange(len(elements))
    return [*elements[:at], _bomb(elements[at], rng), *elements[at + 1 :]]


def deep(depth: int, *, closed: bool) -> bytes:
    """Return sequences within sequences, explicit and of undefined length, by hand: deeper than any stack."""
    begin = struct.pack("<HH2sHLHHL", 0x0008, 0x1140, b"SQ", 0, UNDEFINED, 0xFFFE, 0xE000, UNDEFINED)
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return begin * depth + (end * depth if closed else b"")


# -- command sets --------------------------------------------------------------------------------------------


def command_changed(command: Command, rng: Random) -> Command:
    """Change one element of a command set, or leave it out, repeat it, or move it."""
    if not command or rng.random() < 0.3:
        return _rearranged(command, rng)
    changed = list(command)
    at = rng.randrange(len(changed))
    number, value = changed[at]
    what = rng.randrange(5)
    if what == 0:
        changed[at] = (number, rng.choice(_TEXTS))
    elif what == 1:
        changed[at] = (number, rng.choice([0, 1, 0x0101, 0xFF00, 0xFFFF, *REQUESTS, C_CANCEL, RESPONSE | 1]))
    elif what == 2:
        changed[at] = (number, rng.randbytes(rng.choice([1, 2, 3, 4, 64, 66])))
    elif what == 3:
        changed[at] = (
            rng.choice([0, 2, 3, 0x100, 0x110, 0x120, 0x600, 0x800, 0x900, 0x1000, 0x1005, 0xFFFF]),
            value,
        )
    else:
        field = rng.choice([*REQUESTS, *(it | RESPONSE for it in REQUESTS), C_CANCEL, rng.getrandbits(16)])
        changed = [(n, field if n == 0x0100 else v) for n, v in changed]
    return changed


# -- fragments and PDUs --------------------------------------------------------------------------------------

Fragment = tuple[int, int, bytes]


def fragments_changed(fragments: Sequence[Fragment], rng: Random) -> list[Fragment]:
    """Change the context, the control header or the content of one fragment, or its place."""
    changed = list(fragments)
    if not changed or rng.random() < 0.35:
        return _rearranged(changed, rng)
    at = rng.randrange(len(changed))
    context, control, fragment = changed[at]
    what = rng.randrange(4)
    if what == 0:
        changed[at] = (rng.choice([0, 1, 2, 3, REFUSED, 255]), control, fragment)
    elif what == 1:
        changed[at] = (context, rng.choice([0, 1, 2, 3, 4, 0x80, 0xFF]), fragment)
    elif what == 2:
        changed[at] = (context, control, rng.choice([b"", fragment[: len(fragment) // 2], fragment + b"\0"]))
    else:
        half = len(fragment) // 2
        changed[at : at + 1] = [(context, control & 1, fragment[:half]), (context, control, fragment[half:])]
    return changed


def pdu_changed(content: bytes, rng: Random) -> bytes:
    """Change a PDU's type, the length that it claims, or its bytes, or put another before or behind it."""
    what = rng.randrange(5)
    if what == 0:
        return bytes([rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 0x47, 0xFF])]) + content[1:]
    if what == 1:
        length = rng.choice([*_LENGTHS, len(content) - 7, len(content) - 5])
        return content[:2] + struct.pack(">L", length) + content[6:]
    if what == 2:
        return content[:6] + bytes_changed(content[6:], rng)
    if what == 3:
        return bytes_changed(content, rng)
    other = pdu(rng.choice([1, 2, 3, 4, 5, 6, 7, 9]), rng.randbytes(rng.choice([0, 3, 4, 10, 68, 100])))
    return other + content if rng.random() < 0.5 else content + other


def items_changed(items: Sequence[bytes], rng: Random) -> list[bytes]:
    """Change an item of an association request: its type, its length, its bytes, its place."""
    if rng.random() < 0.3:
        return _rearranged(items, rng)
    changed = list(items)
    at = rng.randrange(len(changed))
    it = changed[at]
    what = rng.randrange(4)
    if what == 0:
        kinds = [
            0x10,
            0x20,
            0x21,
            0x30,
            0x40,
            0x50,
            0x51,
            0x52,
            0x53,
            0x54,
            0x55,
            0x56,
            0x57,
            0x58,
            0x59,
            0xFF,
        ]
        changed[at] = bytes([rng.choice(kinds)]) + it[1:]
    elif what == 1:
        changed[at] = it[:2] + struct.pack(">H", rng.choice(_LENGTHS) & 0xFFFF) + it[4:]
    elif what == 2:
        inner = bytes_changed(it[4:], rng)[:0xFFFF]
        changed[at] = it[:2] + struct.pack(">H", len(inner)) + inner
    else:
        changed[at] = bytes_changed(it, rng)
    return changed
