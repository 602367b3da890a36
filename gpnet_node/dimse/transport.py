"""pynetdicom's acceptor with our socket and our place for data sets, by its own extension points.

Three things differ from what pynetdicom does by itself: PDUs are read in as few calls as the network allows,
neither waited for nor read beyond reason, and the data set of a C-STORE goes into a file instead of memory.
"""

import socket
from collections.abc import Callable

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler

from gpnet_node.dimse.spool import Spool

# An association request with all its 128 contexts and their transfer syntaxes stays far below this.
_MAX_NEGOTIATION_BYTES = 1 << 20

OpenSpool = Callable[[DIMSEMessage, Association], Spool]


class BoundedSocket(AssociationSocket):
    """Reads whole PDUs at once, with a limit on their length and on the wait for the rest of one."""

    def __init__(self, assoc: Association, client_socket: socket.socket) -> None:
        super().__init__(assoc, client_socket=client_socket)
        client_socket.settimeout(assoc.network_timeout)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

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
        return buffer


class SpoolingDimse(DIMSEServiceProvider):
    """Gives each incoming message a Spool for its data set; else pynetdicom's own."""

    def __init__(self, assoc: Association, open_spool: OpenSpool) -> None:
        super().__init__(assoc)
        self._open_spool = open_spool

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
            association.dimse = SpoolingDimse(association, open_spool)
            return association

    return Handler
