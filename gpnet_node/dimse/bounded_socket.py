"""pynetdicom's socket with a limit on everything: PDUs are read in as few calls as the network allows."""

import contextlib
import math
import select
import socket
import ssl
import struct
import time

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

# An association request with all its 128 contexts and their transfer syntaxes stays far below this.
_MAX_NEGOTIATION_BYTES = 1 << 20

PDU_HEAD = struct.Struct(">BxL")  # type and length (PS3.8 9.3.1)
_LOOK_SECONDS = 0.005  # for timers to be looked at: what waits to be sent rings the bell
_RINGS = 4096  # of the bell that are heard at once


class BoundedSocket(AssociationSocket):
    """Reads whole PDUs at once, with a limit on their length and on the wait for the rest of one.

    The rest of the first has to come within the time for association control, that of others within the
    network's, however many pieces it comes in.
    """

    def __init__(self, assoc: Association, client_socket: socket.socket, bell: socket.socket) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._bell = bell  # can be read when something waits to be sent
        self._poll = select.poll()
        for watched in (client_socket, bell):
            self._poll.register(watched, select.POLLIN)
        self._connection = client_socket.fileno()
        self._ahead = b""  # what was read beyond the last piece
        self._room = bytearray()  # for data, used again and again
        self._wait_at_most(assoc.acse_timeout)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def introduced(self) -> None:
        """The peer has said who it is: from now on it has the network's time."""
        self._wait_at_most(self.assoc.network_timeout)

    def _wait_at_most(self, seconds: float | None) -> None:
        self._patience_seconds = math.inf if seconds is None else seconds
        if self.socket is not None:
            with contextlib.suppress(OSError):  # the connection may have ended meanwhile
                self.socket.settimeout(seconds)

    @property
    def ready(self) -> bool:
        """Whether there is something to read, waiting a moment for it, or for something to send, instead of
        sleeping afterwards.
        """
        if self.socket is None or not self._is_connected or self.socket.fileno() < 0:
            time.sleep(_LOOK_SECONDS)  # pynetdicom looks on until it has noticed
            return super().ready
        if self._is_held:
            return True
        heard = dict(self._poll.poll(1000 * _LOOK_SECONDS))
        if self._bell.fileno() in heard:
            self._bell.recv(_RINGS)
        return self._connection in heard

    def _shutdown_socket(self) -> None:
        """Close it, also where the peer was quicker: pynetdicom then leaves it to the garbage collector."""
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()

    @property
    def _is_held(self) -> bool:
        """Whether there is something that was read or decrypted already, which cannot be polled."""
        return bool(self._ahead) or (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0)

    def unread(self, start: bytes) -> None:
        """Put back what was just read: it is read again."""
        self._ahead = start + self._ahead

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, or fewer where the connection ends. Raises OSError, which ends it."""
        return bytearray(self.recv_data(nr_bytes))

    def recv_data(self, nr_bytes: int) -> memoryview:
        """Read as ``recv`` does; what is returned holds until the next call.

        The head of the next PDU is read along where it is there: for each call Python gives others its turn.
        """
        if nr_bytes > max(_MAX_NEGOTIATION_BYTES, self.assoc.acceptor.maximum_length or 0):
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than was agreed")
        if self.socket is None:
            raise OSError("the connection is closed")
        most = max(nr_bytes, len(self._ahead)) + PDU_HEAD.size
        if len(self._room) < most:
            self._room = bytearray(most)
        view = memoryview(self._room)[:most]
        received, began = len(self._ahead), time.monotonic()
        view[:received] = self._ahead
        while received < nr_bytes:
            if received and time.monotonic() - began > self._patience_seconds:
                raise TimeoutError("a PDU did not come to its end in time")
            count = self.socket.recv_into(view[received:])
            if count == 0:
                break
            received += count
        self._ahead = bytes(view[nr_bytes:received])
        self._acknowledge_at_once()
        return view[: min(nr_bytes, received)]

    @property
    def goes_on(self) -> bool:
        """Whether there is more to read already."""
        return self._is_held or (self.socket is not None and self._connection in dict(self._poll.poll(0)))

    def _acknowledge_at_once(self) -> None:
        """Keep the kernel from waiting 40 ms for something to send along with the acknowledgement.

        Peers that write a PDU in two pieces without TCP_NODELAY, as DCMTK does by default, wait for it before
        the second. What was received counts though it cannot be done: the connection may have ended.
        """
        if self.socket is not None and hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
