"""A TCP connection to a node, and the PDUs that come on it."""

import contextlib
import socket
import struct
import time

LIMIT_SECONDS = 20.0  # thrice the node's own timeouts, for a machine that is busy


class ClosedError(Exception):
    """The node closed the connection."""


class Connection:
    """A TCP connection, and the PDUs that come on it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def send(self, content: bytes) -> None:
        """Send; a node that has closed its end is noticed when it is listened to."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.settimeout(LIMIT_SECONDS)
            self._socket.sendall(content)

    def receive(self, seconds: float) -> tuple[int, bytes] | None:
        """Return the next PDU's type and content, or None where none comes in time. Raises ClosedError."""
        deadline = time.monotonic() + seconds
        while (whole := self._whole()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                piece = self._socket.recv(1 << 16)
            except TimeoutError:
                return None
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise ClosedError
            self._received += piece
        return whole

    def _whole(self) -> tuple[int, bytes] | None:
        if len(self._received) < 6:
            return None
        (length,) = struct.unpack_from(">L", self._received, 2)
        if len(self._received) < 6 + length:
            return None
        kind, content = self._received[0], bytes(self._received[6 : 6 + length])
        del self._received[: 6 + length]
        return kind, content

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
