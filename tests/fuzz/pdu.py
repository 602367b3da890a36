"""PDUs and command sets by hand (PS3.8 9.3, PS3.7 6.3): what a peer with nothing to lose can send."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND, LAST = 1, 2  # bits of the control header (PS3.8 E.2)
NO_DATA_SET = 0x0101
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION = b"1.2.826.0.1.3680043.9.7433.9.9"

US_ELEMENTS = frozenset({0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1002, 0x1008, 0x1031})


@dataclass(frozen=True, kw_only=True)
class Context:
    """A presentation context that is proposed."""

    number: int
    abstract_syntax: str
    transfer_syntax: str


def item(kind: int, content: bytes) -> bytes:
    """Return an item of an association request."""
    return struct.pack(">BBH", kind, 0, len(content)) + content


def pdu(kind: int, content: bytes) -> bytes:
    """Return a PDU."""
    return struct.pack(">BBL", kind, 0, len(content)) + content


RELEASE = pdu(RELEASE_RQ, bytes(4))
ABORTED = pdu(ABORT, bytes(4))


def request_items(contexts: Iterable[Context], both_roles: Iterable[str]) -> list[bytes]:
    """Return the variable items of an A-ASSOCIATE-RQ; of ``both_roles`` the peer is SCU and SCP."""
    proposed = [
        item(
            0x20,
            bytes([it.number, 0, 0, 0])
            + item(0x30, it.abstract_syntax.encode())
            + item(0x40, it.transfer_syntax.encode()),
        )
        for it in contexts
    ]
    roles = [
        item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes([1, 1])) for uid in sorted(both_roles)
    ]
    user = [item(0x51, struct.pack(">L", 16384)), item(0x52, _IMPLEMENTATION), *roles]
    return [item(0x10, _APPLICATION_CONTEXT), *proposed, item(0x50, b"".join(user))]


def associate(items: Sequence[bytes], *, called: bytes = b"GPNET", calling: bytes = b"SCANNER") -> bytes:
    """Return an A-ASSOCIATE-RQ of variable items."""
    fixed = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    return pdu(ASSOCIATE_RQ, fixed + b"".join(items))


def pdv(context: int, control: int, fragment: bytes) -> bytes:
    """Return a presentation data value."""
    return struct.pack(">LBB", len(fragment) + 2, context, control) + fragment


def element(number: int, value: int | str | bytes, *, length: int | None = None) -> bytes:
    """Return an element of group 0000; ``length``: what it claims, where that is not the truth."""
    if isinstance(value, int):
        value = struct.pack("<H", value)
    content = value.encode() if isinstance(value, str) else value
    content += b"\0" * (len(content) % 2)
    return struct.pack("<HHL", 0, number, len(content) if length is None else length) + content


def with_group_length(elements: Iterable[bytes]) -> bytes:
    """Return a command set."""
    content = b"".join(elements)
    return struct.pack("<HHLL", 0, 0, 4, len(content)) + content


def read_command(content: bytes) -> Mapping[int, bytes]:
    """Read the elements of a command set that the node sent."""
    found, at = {}, 0
    while at + 8 <= len(content):
        _, number, length = struct.unpack_from("<HHL", content, at)
        found[number] = content[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def read_pdvs(content: bytes) -> list[tuple[int, int, bytes]]:
    """Read context, control header and fragment of each presentation data value, as far as they go."""
    found, at = [], 0
    while at + 6 <= len(content):
        length, context, control = struct.unpack_from(">LBB", content, at)
        found.append((context, control, content[at + 6 : at + 4 + length]))
        at += 4 + max(length, 2)
    return found
