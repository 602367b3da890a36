"""Where audit messages go: a file that several processes share, or a syslog server by UDP or within TLS.

Each raises OSError where a message could not be handed over; it is then tried again, or given up.
"""

import errno
import os
import socket
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from gpnet_node.audit.message import Outcome

_SECURITY = 10  # facility (PS3.15 A.6)
_NOTICE, _WARNING = 5, 4  # severities
_APP_NAME = "gpnet-node"
_MSGID = "DICOM+RFC3881"
_SECONDS = 5.0  # for a connection, and for a message


class AuditFile:
    """Appends a line a message, each by one write, so that the lines of several processes stay apart.

    It is opened each time: one that was put away (by logrotate, say) is followed by a new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._torn = False  # half a message went in before the disk was full

    def __call__(self, content: bytes, at: datetime, outcome: Outcome) -> None:
        """Append one message."""
        line = b"\n" * self._torn + content + b"\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            written = os.write(descriptor, line)
        finally:
            os.close(descriptor)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Syslog:
    """Sends a message by UDP (RFC 5426), or, with ``secure``, within TLS (RFC 5425)."""

    def __init__(self, address: tuple[str, int], secure: Callable[[], ssl.SSLContext] | None = None) -> None:
        self._address = address
        self._secure = secure
        self._connection: socket.socket | None = None

    def __call__(self, content: bytes, at: datetime, outcome: Outcome) -> None:
        """Send one message; a connection that broke is made anew."""
        line = _header(at, outcome) + content
        try:
            if self._connection is not None and self._is_over(self._connection):
                self._hang_up()
            if self._connection is None:
                self._connection = self._connected()
            if self._secure is None:
                self._connection.send(line)
            else:
                self._connection.sendall(b"%d " % len(line) + line)
        except OSError:
            self._hang_up()
            raise

    def _connected(self) -> socket.socket:
        if self._secure is None:
            family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            connection = socket.socket(family, kind, protocol)
            connection.connect(address)  # then a port where nobody listens is told of
            return connection
        context = self._secure()
        plain = socket.create_connection(self._address, timeout=_SECONDS)
        try:
            return context.wrap_socket(plain)
        except OSError:
            plain.close()
            raise

    def _is_over(self, connection: socket.socket) -> bool:
        """Whether the server has closed the connection, which would swallow one more message."""
        if not isinstance(connection, ssl.SSLSocket):
            return False
        connection.settimeout(0)
        try:
            return not connection.recv(1)
        except ssl.SSLWantReadError:
            return False
        finally:
            connection.settimeout(_SECONDS)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _header(at: datetime, outcome: Outcome) -> bytes:
    """Return what stands before the message (RFC 5424 6)."""
    priority = 8 * _SECURITY + (_NOTICE if outcome is Outcome.SUCCESS else _WARNING)
    moment = at.isoformat(timespec="milliseconds")
    host = socket.gethostname() or "-"
    return f"<{priority}>1 {moment} {host} {_APP_NAME} {os.getpid()} {_MSGID} - ".encode("ascii", "replace")
