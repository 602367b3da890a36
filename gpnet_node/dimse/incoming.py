"""PDUs and messages as they come in (PS3.7 6.3, PS3.8 E): where their data sets go, and what is no message.

A C-STORE is answered by the thread that reads it. pynetdicom hands every PDU through two queues and each
message to another thread, which costs more than to keep the instance.
"""

import contextlib
import queue
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, DimseServiceType
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ, _PDUType
from pynetdicom.pdu_primitives import P_DATA

from gpnet_node.dimse.bounded_socket import PDU_HEAD, BoundedSocket
from gpnet_node.dimse.encoding import read_command_set
from gpnet_node.dimse.store_request import Answer, StoreRequest
from gpnet_node.intake.spool import Identifier, Spool
from gpnet_node.log import BugLine, get_logger
from gpnet_node.store.versions import UNREADABLE

DATA_TRANSFER = "Sta6"  # PS3.8 9.2.2
_PATIENCE_SECONDS = 0.1  # for the end of a thread to be noticed
_LONGEST_COMMAND = 1 << 16  # bytes; the longest of the standard's is far below
_MOST_CANCELS = 10  # as pynetdicom keeps
_COMMAND, _LAST = 1, 2  # bits of the control header (PS3.8 E.2)
_REQUEST_CAME, _CONNECTION_CLOSED, _INVALID_PDU = "Evt6", "Evt17", "Evt19"  # PS3.8 9.2.2
_PDV_HEAD = struct.Struct(">LB")  # length and context (PS3.8 9.3.5.1)
_A_ASSOCIATE_RQ, _P_DATA_TF = 1, 4
_PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.17

OpenSpool = Callable[[Association, StoreRequest], Spool]
Store = Callable[[Association, StoreRequest, Spool], Answer]

log = get_logger(__name__)


@dataclass(frozen=True)
class _Storing:
    """A request whose data set comes in."""

    request: StoreRequest
    spool: Spool


class SpoolingDimse(DIMSEServiceProvider):
    """Writes the data set of a C-STORE request to a Spool, and answers at once with what ``store`` returns.

    Other messages are pynetdicom's, with their data sets in Identifiers, and wait for their turn. What is no
    message ends the association.
    """

    def __init__(self, assoc: Association, open_spool: OpenSpool, store: Store) -> None:
        super().__init__(assoc)
        self._open_spool = open_spool
        self._store = store
        self._command = b""  # as far as it has come
        self._storing: _Storing | None = None
        self.accepted = threading.Event()  # set when the receiver knows of the association

    def get_msg(self, block: bool = False) -> tuple[None, None] | tuple[int, DimseServiceType]:
        """Return the next message; where pynetdicom would look and sleep, wait for it a moment instead."""
        if block:
            return super().get_msg(block=True)
        try:
            return self.msg_queue.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            return None, None

    def wake(self) -> None:
        """Let who waits for a message look about: the peer wants to end the association."""
        if not self.msg_queue.qsize():
            self.msg_queue.put((None, None))  # as pynetdicom does at an abort

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the next fragments of a message."""
        self.receive(primitive.presentation_data_value_list)

    @property
    def is_storing(self) -> bool:
        """Whether a data set comes in."""
        return self._storing is not None

    def receive(self, fragments: Iterable[tuple[int, bytes | memoryview]]) -> bool:
        """Take the next fragments of a message, one by one; whether they were fragments of one."""
        try:
            for context_id, fragment in fragments:
                self._take(context_id, fragment)
        except (IndexError, *UNREADABLE) as exc:
            calling_ae = self.assoc.requestor.ae_title.strip()
            log.warning("what came is no message", calling_ae=calling_ae, reason=type(exc).__name__)
            self.discard()
            self.dul.event_queue.put(_INVALID_PDU)
            return False
        return True

    def _take(self, context_id: int, fragment: bytes | memoryview) -> None:
        control = fragment[0]
        if control & _COMMAND:
            if self._storing or self.message:
                raise ValueError("a command set within the data set of another")
            self._command += bytes(fragment[1:])
            if len(self._command) > _LONGEST_COMMAND:
                raise ValueError("a command set without end")
            if control & _LAST:
                command, self._command = self._command, b""
                self._begin(context_id, command)
        elif self._storing:
            self._storing.spool.write(fragment[1:])
            if control & _LAST:
                self._answer(self._storing)
        elif self.message:
            self._decode(self.message, context_id, bytes(fragment))
        else:
            raise ValueError("a data set without a command")

    def _begin(self, context_id: int, command: bytes) -> None:
        """See what a whole command asks for, and so where its data set goes."""
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise ValueError("a context that was not agreed on")
        request = StoreRequest.of(read_command_set(command), context)
        if request is None or self.dul.state_machine.current_state != DATA_TRANSFER:
            self.message = DIMSEMessage()
            self.message.data_set = Identifier()
            self._decode(self.message, context_id, bytes([_COMMAND | _LAST]) + command)
            return
        self._storing = _Storing(request, self._open_spool(self.assoc, request))
        if not request.has_data_set:
            self._answer(self._storing)

    def _decode(self, message: DIMSEMessage, context_id: int, fragment: bytes) -> None:
        single = P_DATA()
        single.presentation_data_value_list.append((context_id, fragment))
        if not message.decode_msg(single, self.assoc):
            return
        self.message = None
        primitive = message.message_to_primitive()
        if not isinstance(primitive, C_CANCEL):
            self.msg_queue.put((message.context_id or 0, primitive))
        elif len(self.cancel_req) < _MOST_CANCELS:
            self.cancel_req[primitive.MessageIDBeingRespondedTo or 0] = primitive

    def _answer(self, storing: _Storing) -> None:
        """Answer a request. A bug in ``store`` costs this instance, and nothing else."""
        if not self.accepted.wait(self.assoc.acse_timeout):
            raise ValueError("a request before the association was accepted")
        self._storing = None  # from here on the spool is store's, and nobody else's to discard
        self.dul._idle_timer.stop()  # the peer waits for us
        answer = Answer(_PROCESSING_FAILURE)
        with contextlib.suppress(SystemExit), BugLine():
            answer = self._store(self.assoc, storing.request, storing.spool)
        self.dul._idle_timer.restart()
        if self.dul.socket is not None:
            self.dul.socket.send(storing.request.response(answer, longest_pdu=self.maximum_pdu_size))

    def discard(self) -> None:
        """Drop the data set that will never be whole."""
        storing = self._storing  # another thread may take it away
        if storing:
            storing.spool.discard()


def decode_pdu(dul: DULServiceProvider, pdu: bytearray) -> tuple[_PDUType, str]:
    """Decode a PDU for the state machine, and name the event: what cannot be decoded is invalid."""
    try:
        if pdu[0] == _A_ASSOCIATE_RQ:
            return association_request(bytes(pdu)), _REQUEST_CAME
        return DULServiceProvider._decode_pdu(dul, pdu)
    except (AssertionError, IndexError, *UNREADABLE) as exc:
        log.warning("what came is no PDU", host=dul.assoc.requestor.address, reason=type(exc).__name__)
        return A_ABORT_RQ(), _INVALID_PDU  # nobody looks at it


@lru_cache(maxsize=32)
def association_request(pdu: bytes) -> A_ASSOCIATE_RQ:
    """Decode a request, which nobody changes afterwards; a sender says the same each time that it comes.

    To decode its up to 128 contexts takes longer than to keep an image. Raises what pynetdicom does.
    """
    request = A_ASSOCIATE_RQ()
    request.decode(pdu)
    return request


def read_pdus(dul: DULServiceProvider) -> None:
    """Read a PDU; while a data set comes in, the next ones too, as far as they are there.

    They go straight to the DIMSE provider. What is no data goes pynetdicom's way, through its queues.
    """
    connection, dimse = dul.socket, dul.assoc.dimse
    assert isinstance(connection, BoundedSocket)
    assert isinstance(dimse, SpoolingDimse)
    if dul.state_machine.current_state != DATA_TRANSFER:
        DULServiceProvider._read_pdu_data(dul)
        return
    while _read_data(dul, connection, dimse) and dimse.is_storing and connection.goes_on:
        pass


def _read_data(dul: DULServiceProvider, connection: BoundedSocket, dimse: SpoolingDimse) -> bool:
    """Read one PDU; whether it was data."""
    try:
        head = connection.recv(PDU_HEAD.size)
        if len(head) < PDU_HEAD.size or head[0] != _P_DATA_TF:
            connection.unread(bytes(head))
            DULServiceProvider._read_pdu_data(dul)
            return False
        _, length = PDU_HEAD.unpack(head)
        items = connection.recv_data(length)
    except OSError:
        dul.event_queue.put(_CONNECTION_CLOSED)
        return False
    if len(items) < length:
        dul.event_queue.put(_CONNECTION_CLOSED)
        return False
    return dimse.receive(_fragments(items))


def _fragments(items: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield context and fragment of each item (PS3.8 9.3.5.1). Raises ValueError for what is none."""
    while items:
        length, context_id = _PDV_HEAD.unpack_from(items)
        end = _PDV_HEAD.size - 1 + length
        if length < 2 or end > len(items):
            raise ValueError("an item that ends beyond its PDU")
        yield context_id, items[_PDV_HEAD.size : end]
        items = items[end:]
