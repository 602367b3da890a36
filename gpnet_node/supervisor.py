"""Starts each role in a process of its own, starts one that died again, and lets them die with it."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from gpnet_node.config import Configuration
from gpnet_node.errors import ConfigurationError, StorageError
from gpnet_node.lifetime import EXIT_CONFIGURATION, EXIT_DAMAGED, LastWords, die_with
from gpnet_node.log import configure, get_logger
from gpnet_node.node import SegmentersOf, gpnet_segmenters, mend_database, play, roles_of
from gpnet_node.parts import Role

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_SOUND_SECONDS = 60.0  # a role that ran for so long is not blamed for its earlier deaths
_POLL_SECONDS = 0.2
_NICENESS = {Role.WORKER: 10}  # who computes lets go first who is waited for

log = get_logger(__name__)


class _Child:
    """One role and the process that plays it at the moment."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.process: SpawnProcess | None = None
        self.ready: Connection | None = None
        self.started_at = 0.0
        self.deaths = 0
        self.start_at = 0.0  # not before this, by the monotonic clock


class Supervisor:
    """The processes of one node. Use it from the main thread: the kernel ties their lives to the thread.

    ``roles``: those that the configuration asks for, unless others are named.
    """

    def __init__(
        self,
        configuration: Configuration,
        roles: Sequence[Role] | None = None,
        *,
        segmenters: SegmentersOf = gpnet_segmenters,
    ) -> None:
        self._configuration = configuration
        self._segmenters = segmenters
        self._children = [_Child(role) for role in roles or roles_of(configuration)]
        self._ports: dict[Role, int | None] = {}

    def start(self) -> None:
        """Start every role; before, mend a damaged database.

        Raises ConfigurationError if it is in use by others, and StorageError.
        """
        mend_database(self._configuration)
        for child in self._children:
            self._start(child)

    def tend(self) -> None:
        """Start again what died, each time later. Raises ConfigurationError if a role refused to start."""
        for child in self._children:
            self._hear(child)
            process = child.process
            if process is not None and process.exitcode is not None:
                self._mourn(child, process.exitcode)
            if child.process is None and time.monotonic() >= child.start_at:
                self._start(child)

    def wait_until_ready(self, *, seconds: float) -> Mapping[Role, int | None]:
        """Wait until every role does its work; return the port of each that listens.

        Raises StorageError if that takes longer than ``seconds``, and what ``tend`` raises.
        """
        deadline = time.monotonic() + seconds
        while len(self._ports) < len(self._children):
            if time.monotonic() > deadline:
                late = [child.role for child in self._children if child.role not in self._ports]
                raise StorageError(f"{', '.join(late)} did not begin to work within {seconds:g} s")
            self.tend()
            time.sleep(_POLL_SECONDS)
        return dict(self._ports)

    def stop(self) -> bool:
        """Let every role drain, and end what does not in time; whether all drained."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._configuration.node.drain_seconds
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [process for process in running if process.is_alive()]
        for process in late:
            log.warning("a role did not drain in time and is ended", role=process.name)
            process.kill()
            process.join()
        return not late

    def process_id(self, role: Role) -> int | None:
        """The process that plays ``role`` at the moment."""
        child = next(child for child in self._children if child.role is role)
        return None if child.process is None else child.process.pid

    def _start(self, child: _Child) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        child.ready, theirs = spawn.Pipe(duplex=False)
        child.process = spawn.Process(
            target=_live,
            args=(child.role, self._configuration, self._segmenters, theirs, os.getpid()),
            name=child.role.value,
        )
        child.process.start()
        theirs.close()
        child.started_at = time.monotonic()

    def _hear(self, child: _Child) -> None:
        if child.ready is not None and child.ready.poll():
            try:
                self._ports[child.role] = child.ready.recv()
            except EOFError:  # it died before it was ready
                child.ready = None

    def _mourn(self, child: _Child, exit_code: int) -> None:
        child.process = child.ready = None
        self._ports.pop(child.role, None)
        if exit_code == EXIT_DAMAGED:
            log.error("the database is damaged: every role is started again", role=child.role)
            self.stop()
            for other in self._children:
                other.process = other.ready = None
            self._ports.clear()
            self.start()
            return
        if exit_code == EXIT_CONFIGURATION:
            raise ConfigurationError(f"the {child.role} cannot start; its log line says why")
        if time.monotonic() - child.started_at >= _SOUND_SECONDS:
            child.deaths = 0
        pause = min(_FIRST_PAUSE_SECONDS * 2**child.deaths, _LONGEST_PAUSE_SECONDS)
        child.deaths += 1
        child.start_at = time.monotonic() + pause
        log.error("a role died and is started again", role=child.role, exit_code=exit_code, seconds=pause)


@contextmanager
def supervised(
    configuration: Configuration,
    roles: Sequence[Role] | None = None,
    *,
    segmenters: SegmentersOf = gpnet_segmenters,
) -> Iterator[Supervisor]:
    """Run a node for the length of the block."""
    supervisor = Supervisor(configuration, roles, segmenters=segmenters)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def serve(configuration: Configuration, roles: Sequence[Role] | None = None) -> None:
    """Run a node until SIGTERM or SIGINT, then drain it. Raises ConfigurationError if a role cannot start."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with supervised(configuration, roles) as supervisor:
        while not stop.wait(_POLL_SECONDS):
            supervisor.tend()


def _live(
    role: Role, configuration: Configuration, segmenters: SegmentersOf, ready: Connection, parent: int
) -> None:
    """What a child process does."""
    die_with(parent)
    os.nice(_NICENESS.get(role, 0))
    configure(style=configuration.node.log_format, level=configuration.node.log_level, stream=sys.stderr)
    with LastWords(role):
        play(role, configuration, on_ready=ready.send, segmenters=segmenters)
