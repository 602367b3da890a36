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
from typing import TypeGuard

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, DimseServiceType
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from gpnet_node.dimse.bounded_socket import BoundedSocket
from gpnet_node.dimse.encoding import command_set, message_pdus
from gpnet_node.intake.spool import Identifier, Spool
from gpnet_node.log import BugLine, get_logger
from gpnet_node.store.versions import UNREADABLE

DATA_TRANSFER = "Sta6"  # PS3.8 9.2.2
_PATIENCE_SECONDS = 0.005  # for a release or an abort to be noticed
_LONGEST_COMMAND = 1 << 16  # bytes; the longest of the standard's is far below
_MOST_CANCELS = 10  # as pynetdicom keeps
_COMMAND = 1  # bit of the control header (PS3.8 E.2)
_CONNECTION_CLOSED, _INVALID_PDU = "Evt17", "Evt19"  # PS3.8 9.2.2
_PDU_HEAD, _PDV_HEAD = struct.Struct(">BxL"), struct.Struct(">LB")  # PS3.8 9.3.5
_P_DATA_TF = 4
_C_STORE_RSP, _NO_DATA_SET = 0x8001, 0x0101  # PS3.7 9.3.1.2
_PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.17
_LONGEST_COMMENT = 64  # Error Comment is an LO (PS3.7 C.1)

log = get_logger(__name__)


@dataclass(frozen=True)
class Answer:
    """Status of a C-STORE response, and Error Comment if any."""

    status: int
    comment: str = ""


OpenSpool = Callable[[DIMSEMessage, Association], Spool]
Store = Callable[[Association, C_STORE, PresentationContext], Answer]


class SpoolingDimse(DIMSEServiceProvider):
    """Gives the data set of a C-STORE request a Spool, any other an Identifier; else pynetdicom's own.

    C-STORE requests are answered at once with what ``store`` returns, other messages wait for their turn.
    What is no message ends the association. A data set that nobody takes is discarded.
    """

    def __init__(self, assoc: Association, open_spool: OpenSpool, store: Store) -> None:
        super().__init__(assoc)
        self._open_spool = open_spool
        self._store = store
        self.accepted = threading.Event()  # set when the receiver knows of the association

    def get_msg(self, block: bool = False) -> tuple[None, None] | tuple[int, DimseServiceType]:
        """Return the next message; where pynetdicom would look and sleep, wait for it a moment instead."""
        if block:
            return super().get_msg(block=True)
        try:
            return self.msg_queue.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the next fragments of a message."""
        self.receive(primitive.presentation_data_value_list)

    def receive(self, fragments: Iterable[tuple[int, bytes | memoryview]]) -> None:
        """Take the next fragments of a message, one by one: the command says where its data set goes."""
        try:
            for context_id, fragment in fragments:
                self._take(context_id, fragment)
        except (IndexError, *UNREADABLE) as exc:
            calling_ae = self.assoc.requestor.ae_title.strip()
            log.warning("what came is no message", calling_ae=calling_ae, reason=type(exc).__name__)
            self.discard()
            self.dul.event_queue.put(_INVALID_PDU)

    def _take(self, context_id: int, fragment: bytes | memoryview) -> None:
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = self._open_spool(self.message, self.assoc)
        message = self.message
        if fragment[0] & _COMMAND and message.command_set:
            raise ValueError("a command set within the data set of another")
        if message.encoded_command_set.tell() > _LONGEST_COMMAND:
            raise ValueError("a command set without end")
        if type(message) not in (DIMSEMessage, C_STORE_RQ) and isinstance(message.data_set, Spool):
            message.data_set = Identifier()
        single = P_DATA()
        single.presentation_data_value_list.append((context_id, fragment))  # type: ignore[arg-type]
        if message.decode_msg(single, self.assoc):
            primitive = message.message_to_primitive()
            self.message = None
            self._hand_on(message.context_id or 0, primitive)

    def _hand_on(self, context_id: int, message: "DimseServiceType | C_CANCEL") -> None:
        """Answer a C-STORE request, let other messages wait for their turn, and note a C-CANCEL."""
        context = self.assoc._accepted_cx.get(context_id)
        if isinstance(message, C_CANCEL):
            if len(self.cancel_req) < _MOST_CANCELS:
                self.cancel_req[message.MessageIDBeingRespondedTo or 0] = message
        elif context is not None and self._can_be_stored(message):
            self._answer(message, context)
        else:
            self.msg_queue.put((context_id, message))

    def _can_be_stored(self, message: "DimseServiceType | C_CANCEL") -> TypeGuard[C_STORE]:
        return (
            isinstance(message, C_STORE)
            and message.MessageIDBeingRespondedTo is None
            and message.is_valid_request
            and issubclass(uid_to_service_class(message.AffectedSOPClassUID or ""), StorageServiceClass)
            and self.dul.state_machine.current_state == DATA_TRANSFER
        )

    def _answer(self, request: C_STORE, context: PresentationContext) -> None:
        """Answer a request. A bug in ``store`` costs this instance, and nothing else."""
        if not self.accepted.wait(self.assoc.acse_timeout):
            raise ValueError("a request before the association was accepted")
        self.dul._idle_timer.stop()  # the peer waits for us
        answer = Answer(_PROCESSING_FAILURE)
        with contextlib.suppress(SystemExit), BugLine():
            answer = self._store(self.assoc, request, context)
        self.dul._idle_timer.restart()
        comment = answer.comment[:_LONGEST_COMMENT]
        command = command_set(
            {
                0x0002: str(request.AffectedSOPClassUID),
                0x0100: _C_STORE_RSP,
                0x0120: request.MessageID or 0,
                0x0800: _NO_DATA_SET,
                0x0900: answer.status,
                **({0x0902: comment + " " * (len(comment) % 2)} if comment else {}),
                0x1000: str(request.AffectedSOPInstanceUID),
            }
        )
        if self.dul.socket is not None:
            pdus = message_pdus(context.context_id or 0, command, b"", longest=self.maximum_pdu_size)
            self.dul.socket.send(pdus)

    def discard(self) -> None:
        """Drop data sets that will never be whole, or that nobody will ask for any more."""
        if self.message is not None and isinstance(self.message.data_set, Spool):
            self.message.data_set.discard()
        while True:
            try:
                _, message = self.msg_queue.get(block=False)
            except queue.Empty:
                return
            discard_data_set(message)


def discard_data_set(message: object) -> None:
    """Drop the data set of a C-STORE request that was answered, or will not be."""
    if isinstance(message, C_STORE) and isinstance(message.DataSet, Spool):
        message.DataSet.discard()


def read_pdu(dul: DULServiceProvider) -> None:
    """Read one PDU. While data are transferred they go straight to the DIMSE provider, past the queues."""
    connection, dimse = dul.socket, dul.assoc.dimse
    assert isinstance(connection, BoundedSocket)
    assert isinstance(dimse, SpoolingDimse)
    if dul.state_machine.current_state != DATA_TRANSFER:
        DULServiceProvider._read_pdu_data(dul)
        return
    try:
        head = connection.recv(_PDU_HEAD.size)
        if len(head) < _PDU_HEAD.size or head[0] != _P_DATA_TF:
            connection.unread(bytes(head))
            DULServiceProvider._read_pdu_data(dul)
            return
        _, length = _PDU_HEAD.unpack(head)
        items = connection.recv(length)
    except OSError:
        dul.event_queue.put(_CONNECTION_CLOSED)
        return
    if len(items) < length:
        dul.event_queue.put(_CONNECTION_CLOSED)
    else:
        dimse.receive(_fragments(memoryview(items)))


def _fragments(items: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield context and fragment of each item (PS3.8 9.3.5.1). Raises ValueError for what is none."""
    while items:
        length, context_id = _PDV_HEAD.unpack_from(items)
        end = _PDV_HEAD.size - 1 + length
        if length < 2 or end > len(items):
            raise ValueError("an item that ends beyond its PDU")
        yield context_id, items[_PDV_HEAD.size : end]
        items = items[end:]
