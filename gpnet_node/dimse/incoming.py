"""Messages as they come in (PS3.7 6.3, PS3.8 E): where their data sets go, and what is no message at all."""

import queue
from collections.abc import Callable

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE, DimseServiceType
from pynetdicom.pdu_primitives import P_DATA

from gpnet_node.intake.spool import Identifier, Spool
from gpnet_node.log import get_logger
from gpnet_node.store.versions import UNREADABLE

_PATIENCE_SECONDS = 0.005  # for a release or an abort to be noticed
_LONGEST_COMMAND = 1 << 16  # bytes; the longest of the standard's is far below
_COMMAND = 1  # bit of the control header (PS3.8 E.2)
_INVALID_PDU = "Evt19"  # PS3.8 9.2.2: the association is aborted

OpenSpool = Callable[[DIMSEMessage, Association], Spool]

log = get_logger(__name__)


class SpoolingDimse(DIMSEServiceProvider):
    """Gives the data set of a C-STORE request a Spool, any other an Identifier; else pynetdicom's own.

    What is no message ends the association. A data set that nobody takes is discarded.
    """

    def __init__(self, assoc: Association, open_spool: OpenSpool) -> None:
        super().__init__(assoc)
        self._open_spool = open_spool

    def get_msg(self, block: bool = False) -> tuple[None, None] | tuple[int, DimseServiceType]:
        """Return the next message; where pynetdicom would look and sleep, wait for it a moment instead."""
        if block:
            return super().get_msg(block=True)
        try:
            return self.msg_queue.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the next fragments of a message, one by one: the command says where its data set goes."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._take(context_id, fragment)
        except (IndexError, *UNREADABLE) as exc:
            calling_ae = self.assoc.requestor.ae_title.strip()
            log.warning("what came is no message", calling_ae=calling_ae, reason=type(exc).__name__)
            self.discard()
            self.dul.event_queue.put(_INVALID_PDU)

    def _take(self, context_id: int, fragment: bytes) -> None:
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
        single.presentation_data_value_list.append((context_id, fragment))
        super().receive_primitive(single)

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
