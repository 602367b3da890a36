"""Processes in which the receiver receives: in one Python each, so that peers do not wait for one another.

They are forked, which takes a hundredth of a start and shares what is loaded, while the process still has one
thread; a fork of several would copy their locks. What they share is made before: a socket, and memory.
"""

import gc
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from gpnet_node.errors import ConfigurationError, DamagedDatabaseError, StorageError
from gpnet_node.lifetime import EXIT_CONFIGURATION, EXIT_DAMAGED, LastWords, die_with
from gpnet_node.log import get_logger

_LAST_WORDS_SECONDS = 1.0  # for one that is gone to have said why

Serve = Callable[[int, Callable[[], None]], None]

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Door:
    process: ForkProcess
    link: Connection


class Doors:
    """Use it from the main thread: the kernel ties the lives of the processes to it."""

    def __init__(self, count: int, serve: Serve) -> None:
        gc.freeze()  # what is loaded is no garbage: to look for some takes time, and copies what is shared
        self._doors = [self._fork(number, serve) for number in range(count)]

    def _fork(self, number: int, serve: Serve) -> _Door:
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe()
        process = fork.Process(
            target=_stand, args=(number, serve, theirs, os.getpid()), name=f"door {number}"
        )
        with warnings.catch_warnings():  # Python counts the threads of a linear algebra library, which rest
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        return _Door(process=process, link=ours)

    def open(self) -> None:
        """Let them begin, and wait until each receives. Raises what ``tend`` raises."""
        try:
            for door in self._doors:
                door.link.send(None)
            for door in self._doors:
                door.link.recv()
        except (EOFError, OSError):
            for door in self._doors:
                door.process.join(_LAST_WORDS_SECONDS)
            self.tend()
            raise StorageError("a process that receives does not answer") from None

    def tend(self) -> None:
        """See to it that all receive; call it now and then.

        Raises StorageError if one has died: then the role is to be started again, and what was kept without
        being indexed is found in the archive. Raises ConfigurationError or DamagedDatabaseError if that would
        not help, for the reason that its log line gives.
        """
        ends = [door.process.exitcode for door in self._doors if door.process.exitcode is not None]
        if EXIT_CONFIGURATION in ends:
            raise ConfigurationError("a process that receives cannot start")
        if EXIT_DAMAGED in ends:
            raise DamagedDatabaseError("a process that receives found the database damaged")
        if ends:
            raise StorageError("a process that receives has died, and the receiver must start again")

    def close(self, *, seconds: float) -> bool:
        """Let them drain, and end those that do not within ``seconds``; whether all drained."""
        deadline = time.monotonic() + seconds
        for door in self._doors:
            door.process.terminate()
        for door in self._doors:
            door.process.join(max(0.0, deadline - time.monotonic()))
        late = [door for door in self._doors if door.process.exitcode is None]
        self.kill()
        return not late

    def kill(self) -> None:
        """End those that still are there."""
        for door in self._doors:
            door.process.kill()
            door.process.join()


@contextmanager
def forked(count: int, serve: Serve) -> Iterator[Doors]:
    """Fork ``count`` processes; each calls ``serve`` with its number and a word for "I receive"."""
    doors = Doors(count, serve)
    try:
        yield doors
    finally:
        doors.kill()


def _stand(number: int, serve: Serve, link: Connection, parent: int) -> None:
    """What a forked process does."""
    die_with(parent)
    with LastWords(f"door {number}"):
        link.recv()
        serve(number, lambda: link.send(None))
