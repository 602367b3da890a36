"""One association on which images are sent by hand: while it rests it costs nothing, as a scanner's would.

pynetdicom's own sender looks about a thousand times a second; twenty of it measure each other.
"""

import struct
import time

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from tests.fuzz.connection import Connection
from tests.fuzz.messages import C_STORE, RESPONSE
from tests.fuzz.pdu import (
    ASSOCIATE_AC,
    COMMAND,
    LAST,
    P_DATA,
    RELEASE,
    RELEASE_RP,
    Context,
    associate,
    element,
    pdu,
    pdv,
    read_command,
    read_pdvs,
    request_items,
    with_group_length,
)

_LIMIT_SECONDS = 60.0
_FRAGMENT_BYTES = 16378  # fills the smallest PDU that receivers offer by default
_CONTEXT = Context(number=1, abstract_syntax=MRImageStorage, transfer_syntax=ExplicitVRLittleEndian)
_HAS_DATA_SET = 1


class Sender:
    """An accepted association that sends MR images."""

    def __init__(self, port: int) -> None:
        self._connection = Connection(port)
        self._connection.send(associate(request_items([_CONTEXT], ())))
        kind, _ = self._received()
        assert kind == ASSOCIATE_AC

    def store(self, uid: str, data_set: bytes) -> float:
        """Send an image that must be taken; the seconds from its first byte to the answer."""
        message = _command(uid) + _data(data_set)
        began = time.perf_counter()
        self._connection.send(message)
        kind, content = self._received()
        took = time.perf_counter() - began
        assert kind == P_DATA
        ((_, _, fragment),) = read_pdvs(content)
        answer = read_command(fragment)
        assert answer[0x0100] == struct.pack("<H", C_STORE | RESPONSE)
        assert answer[0x0900] == struct.pack("<H", 0x0000)
        return took

    def release(self) -> None:
        self._connection.send(RELEASE)
        kind, _ = self._received()
        assert kind == RELEASE_RP
        self._connection.close()

    def _received(self) -> tuple[int, bytes]:
        came = self._connection.receive(_LIMIT_SECONDS)
        assert came is not None
        return came


def _command(uid: str) -> bytes:
    elements = [
        element(0x0002, MRImageStorage),
        element(0x0100, C_STORE),
        element(0x0110, 1),
        element(0x0700, 0),
        element(0x0800, _HAS_DATA_SET),
        element(0x1000, uid),
    ]
    return pdu(P_DATA, pdv(_CONTEXT.number, COMMAND | LAST, with_group_length(elements)))


def _data(data_set: bytes) -> bytes:
    ends = range(0, len(data_set), _FRAGMENT_BYTES)
    return b"".join(
        pdu(P_DATA, pdv(_CONTEXT.number, LAST * (at == ends[-1]), data_set[at : at + _FRAGMENT_BYTES]))
        for at in ends
    )
