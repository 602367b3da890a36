"""Messages on their way out: a destination that fails makes nobody wait, and what is lost is counted."""

import errno
import io
import json
import os
import threading
import time
from datetime import datetime

import pytest

from gpnet_node.audit.backlog import Backlog
from gpnet_node.audit.message import Outcome
from gpnet_node.log import configure
from tests.peers import wait_until
from tests.stores import START


class Destination:
    """Takes messages while ``fault`` is None; else raises it, or, while held, does not come back."""

    def __init__(self, fault: int | None = None) -> None:
        self.fault = fault
        self.taken: list[bytes] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, content: bytes, at: datetime, outcome: Outcome) -> None:
        self.free.wait()
        if self.fault is not None:
            raise OSError(self.fault, os.strerror(self.fault))
        self.taken.append(content)


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure(style="json", level="info", stream=stream)
    return stream


def lost(stream: io.StringIO) -> int:
    lines = map(json.loads, stream.getvalue().splitlines())
    return sum(line["count"] for line in lines if line["event"] == "audit messages were lost")


def test_messages_go_out_in_order_and_the_end_waits_for_them(stream: io.StringIO) -> None:
    destination = Destination()
    backlog = Backlog(destination)
    for number in range(1000):
        backlog.put(b"%d" % number, START, Outcome.SUCCESS)
    backlog.close(seconds=10)

    assert destination.taken == [b"%d" % number for number in range(1000)]
    assert stream.getvalue() == ""


def test_what_waited_for_a_destination_goes_out_once_it_works_again(stream: io.StringIO) -> None:
    destination = Destination(errno.ENOSPC)
    backlog = Backlog(destination)
    backlog.put(b"first", START, Outcome.SUCCESS)
    backlog.put(b"second", START, Outcome.SUCCESS)
    wait_until(lambda: "No space left" in stream.getvalue(), what="a log line")
    destination.fault = None

    wait_until(lambda: destination.taken == [b"first", b"second"], what="both messages")
    backlog.close(seconds=10)
    assert lost(stream) == 0


def test_who_reports_to_a_destination_that_hangs_waits_for_nothing_and_losses_are_counted(
    stream: io.StringIO,
) -> None:
    destination = Destination()
    destination.free.clear()
    backlog = Backlog(destination, most_bytes=1000)
    began = time.monotonic()
    for _ in range(500):
        backlog.put(b"x" * 100, START, Outcome.SUCCESS)
    backlog.close(seconds=0.1)

    assert time.monotonic() - began < 2
    assert lost(stream) == 500
    destination.free.set()


def test_what_can_never_be_sent_is_lost_and_the_next_goes_out(stream: io.StringIO) -> None:
    destination = Destination(errno.EMSGSIZE)
    backlog = Backlog(destination)
    backlog.put(b"long", START, Outcome.SUCCESS)
    wait_until(lambda: lost(stream) == 1, what="the loss")
    destination.fault = None
    backlog.put(b"short", START, Outcome.SUCCESS)
    backlog.close(seconds=10)

    assert destination.taken == [b"short"]


def test_what_is_reported_after_the_end_is_counted_as_lost(stream: io.StringIO) -> None:
    backlog = Backlog(Destination())
    backlog.close(seconds=1)
    backlog.put(b"late", START, Outcome.SUCCESS)

    assert lost(stream) == 1
