"""A file that several write to, and syslog within TLS."""

import errno
import multiprocessing
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from gpnet_node.audit.destination import AuditFile, Syslog
from gpnet_node.audit.message import Outcome
from gpnet_node.tls import accept, calling
from tests.certificates import certificate
from tests.peers import wait_until
from tests.stores import START
from tests.test_tls import settings

LONG = 5000


def append(path: Path, letter: bytes) -> None:
    write = AuditFile(path)
    for _ in range(200):
        write(letter * LONG, START, Outcome.SUCCESS)


def test_the_lines_of_several_processes_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append, args=(path, letter)) for letter in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    lines = path.read_bytes().splitlines()
    assert sorted(lines) == sorted(letter * LONG for letter in (b"a", b"b", b"c") for _ in range(200))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_put_away_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    write = AuditFile(path)
    write(b"first", START, Outcome.SUCCESS)
    path.rename(tmp_path / "audit.log.1")
    write(b"second", START, Outcome.SUCCESS)

    assert path.read_bytes() == b"second\n"


def test_a_full_disk_is_told() -> None:
    with pytest.raises(OSError, match=r"\[Errno 28\]") as raised:
        AuditFile(Path("/dev/full"))(b"message", START, Outcome.SUCCESS)

    assert raised.value.errno == errno.ENOSPC


def test_a_port_where_nobody_listens_is_told_of_by_the_next_message() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    send = Syslog(address)
    send(b"first", START, Outcome.SUCCESS)

    with pytest.raises(ConnectionRefusedError):
        send(b"second", START, Outcome.SUCCESS)


def test_a_message_longer_than_a_datagram_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="too long") as raised:
            Syslog(server.getsockname())(b"x" * 70000, START, Outcome.SUCCESS)

    assert raised.value.errno == errno.EMSGSIZE


# -- TLS -----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Server:
    """A syslog server within TLS; each connection's bytes as they came."""

    folder: Path
    listener: socket.socket
    connections: list[ssl.SSLSocket] = field(default_factory=list)
    received: list[bytearray] = field(default_factory=list)

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
                connection = accept(plain, settings(self.folder), seconds=10)
            except ssl.SSLError:
                continue
            except OSError:
                return
            buffer = bytearray()
            self.connections.append(connection)
            self.received.append(buffer)
            threading.Thread(target=self._read, args=(connection, buffer), daemon=True).start()

    def _read(self, connection: ssl.SSLSocket, buffer: bytearray) -> None:
        connection.settimeout(None)
        try:
            while piece := connection.recv(65536):
                buffer += piece
        except OSError:
            return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    certificate(tmp_path, "authority")
    for name in ("node", "scanner"):
        certificate(tmp_path, name, signed_by="authority")
    certificate(tmp_path, "stranger")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(folder=tmp_path, listener=listener)
        threading.Thread(target=server.serve, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)


def frames(content: bytes) -> list[bytes]:
    """Take octet-counted messages apart (RFC 5425 4.3)."""
    found = []
    while content:
        length, _, content = content.partition(b" ")
        found.append(content[: int(length)])
        content = content[int(length) :]
    return found


def test_messages_go_within_tls_each_behind_its_length(server: Server) -> None:
    send = Syslog(server.listener.getsockname(), partial(calling, settings(server.folder, "scanner")))

    send(b"<first/>", START, Outcome.SUCCESS)
    send(b"<second/>", START, Outcome.SERIOUS_FAILURE)

    wait_until(lambda: server.received and server.received[0].endswith(b"<second/>"), what="both messages")
    first, second = frames(bytes(server.received[0]))
    assert first.startswith(b"<85>1 2024-01-31T10:15:00.000+00:00 ")
    assert first.endswith(b" DICOM+RFC3881 - <first/>")
    assert second.startswith(b"<84>1 ")


def test_a_server_that_hung_up_between_two_messages_costs_none(server: Server) -> None:
    send = Syslog(server.listener.getsockname(), partial(calling, settings(server.folder, "scanner")))
    send(b"<first/>", START, Outcome.SUCCESS)
    wait_until(lambda: server.received and server.received[0].endswith(b"<first/>"), what="the first message")
    server.connections[0].shutdown(socket.SHUT_RDWR)

    send(b"<second/>", START, Outcome.SUCCESS)

    wait_until(lambda: len(server.received) == 2 and server.received[1], what="another connection")
    assert bytes(server.received[1]).endswith(b"<second/>")


def test_who_is_not_known_by_its_certificate_is_told_nothing(server: Server) -> None:
    stranger = settings(server.folder, "scanner").model_copy(update={"ca": server.folder / "stranger.pem"})

    with pytest.raises(ssl.SSLCertVerificationError):
        Syslog(server.listener.getsockname(), partial(calling, stranger))(b"<x/>", START, Outcome.SUCCESS)

    assert server.received == []
