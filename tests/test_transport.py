"""The receiver's socket, between two ends of one real connection."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from gpnet_node.dimse.bounded_socket import BoundedSocket


@contextlib.contextmanager
def connected() -> Iterator[tuple[BoundedSocket, socket.socket]]:
    """Our end of a TCP connection, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname(), timeout=10)
        ours, _ = server.accept()
    association = Association(AE(), "acceptor")
    association.network_timeout = 10
    rope, bell = socket.socketpair()
    with peer, ours, rope, bell:
        yield BoundedSocket(association, ours, bell), peer


def test_a_pdu_that_comes_in_pieces_is_read_whole() -> None:
    with connected() as (ours, peer):
        peer.sendall(b"first ")
        rest = threading.Timer(0.05, peer.sendall, [b"second"])
        rest.start()

        assert ours.recv(12) == b"first second"
        rest.join()


def test_what_is_read_beyond_a_pdu_is_held_for_the_next() -> None:
    with connected() as (ours, peer):
        peer.sendall(b"first, second, end")

        assert bytes(ours.recv_data(6)) == b"first,"
        assert ours.ready
        assert ours.goes_on
        assert ours.recv(8) == b" second,"
        assert bytes(ours.recv_data(4)) == b" end"
        assert not ours.goes_on


def test_a_head_that_is_put_back_comes_again_before_what_was_read_with_it() -> None:
    with connected() as (ours, peer):
        peer.sendall(b"headbody and more")
        ours.unread(bytes(ours.recv(4)))

        assert [ours.recv(4), ours.recv(4), ours.recv(9)] == [b"head", b"body", b" and more"]


def test_a_connection_that_ends_within_a_head_read_ahead_gives_what_there_was() -> None:
    with connected() as (ours, peer):
        peer.sendall(b"whole, par")
        assert ours.recv(6) == b"whole,"
        peer.close()

        assert ours.recv(6) == b" par"
        assert ours.recv(6) == b""


def test_what_was_received_is_kept_where_the_acknowledgement_cannot_be_hastened() -> None:
    with connected() as (ours, _):
        local, peer = socket.socketpair()  # knows nothing of TCP's options
        with local, peer:
            ours.socket = local
            peer.sendall(b"PDU")

            assert ours.recv(3) == b"PDU"


@pytest.mark.parametrize("closed", ["by the state machine", "by the system"])
def test_a_closed_connection_is_not_asked_over_and_over(closed: str) -> None:
    with connected() as (ours, _):
        assert ours.socket is not None
        if closed == "by the system":
            ours.socket.close()
        else:
            ours.close()
        began = time.monotonic()
        answers = [ours.ready for _ in range(30)]

    assert not any(answers)
    assert time.monotonic() - began >= 0.025
