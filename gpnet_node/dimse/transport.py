"""pynetdicom's acceptor with our socket and our place for data sets, by its own extension points.

Three things differ from what pynetdicom does by itself: PDUs are read in as few calls as the network allows,
neither waited for nor read beyond reason, and the data set of a C-STORE goes into a file instead of memory.
"""

import contextlib
import queue
import select
import socket
import time
from collections.abc import Callable

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import DimseServiceType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler

from gpnet_node.intake.spool import Spool

# An association request with all its 128 contexts and their transfer syntaxes stays far below this.
_MAX_NEGOTIATION_BYTES = 1 << 20

_POLL_SECONDS = 0.001  # for an answer of ours that waits to be sent
_LOOP_SECONDS = 0.0001  # BoundedSocket.ready waits already; without any, a closed connection would spin
_PATIENCE_SECONDS = 0.005  # for a release or an abort to be noticed

OpenSpool = Callable[[DIMSEMessage, Association], Spool]


class BoundedSocket(AssociationSocket):
    """Reads whole PDUs at once, with a limit on their length and on the wait for the rest of one."""

    def __init__(self, assoc: Association, client_socket: socket.socket) -> None:
        super().__init__(assoc, client_socket=client_socket)
        client_socket.settimeout(assoc.network_timeout)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def ready(self) -> bool:
        """Whether there is something to read, waiting a moment for it instead of sleeping afterwards."""
        sockets = [self.socket] if self.socket is not None and self._is_connected else []
        try:
            select.select(sockets, [], [], _POLL_SECONDS)
        except (OSError, ValueError):  # closed meanwhile: pynetdicom finds out below
            time.sleep(_POLL_SECONDS)
        return super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, or fewer where the connection ends. Raises OSError, which ends it."""
        if nr_bytes > max(_MAX_NEGOTIATION_BYTES, self.assoc.acceptor.maximum_length or 0):
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than was agreed")
        if self.socket is None:
            raise OSError("the connection is closed")
        buffer = bytearray(nr_bytes)
        view = memoryview(buffer)
        received = 0
        while received < nr_bytes:
            count = self.socket.recv_into(view[received:])
            if count == 0:
                view.release()
                del buffer[received:]
                break
            received += count
        self._acknowledge_at_once()
        return buffer

    def _acknowledge_at_once(self) -> None:
        """Keep the kernel from waiting 40 ms for something to send along with the acknowledgement.

        Peers that write a message in two pieces without TCP_NODELAY wait for it before the second. What was
        received counts though it cannot be done: the connection may have ended behind it.
        """
        if self.socket is not None and hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class SpoolingDimse(DIMSEServiceProvider):
    """Gives each incoming message a Spool for its data set; else pynetdicom's own."""

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
        """Take the next fragments of a message."""
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = self._open_spool(self.message, self.assoc)
        super().receive_primitive(primitive)

    def discard(self) -> None:
        """Drop a data set that will never be whole."""
        if self.message is not None and isinstance(self.message.data_set, Spool):
            self.message.data_set.discard()


def request_handler(open_spool: OpenSpool) -> type[RequestHandler]:
    """Return the handler of new connections for pynetdicom's server, which wants a class."""

    class Handler(RequestHandler):
        def _create_association(self) -> Association:
            association = super()._create_association()
            association.dul.event_queue.get_nowait()  # the plain socket's announcement; ours makes its own
            association.dul.socket = BoundedSocket(association, self.request)
            association.dul._run_loop_delay = _LOOP_SECONDS
            association.dimse = SpoolingDimse(association, open_spool)
            return association

    return Handler
