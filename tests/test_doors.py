"""The receiver's processes: forked for real, killed for real, and asked over real sockets."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pynetdicom.association import Association

from gpnet_node.config import PeerConfig
from gpnet_node.doors import Doors, forked
from gpnet_node.errors import ConfigurationError, DamagedDatabaseError, GpnetError, StorageError
from gpnet_node.lifetime import EXIT_CONFIGURATION, EXIT_DAMAGED
from gpnet_node.parts import Role
from gpnet_node.tls_config import TlsConfig
from tests.factories import mr_series
from tests.nodes import RunningNode, configuration_of, running_node
from tests.peers import listens, storescu, wait_until
from tests.receiving import associate

MR = [("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1")]


def until_told(_: int, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ready()
    stop.wait()


def test_processes_that_serve_end_in_order_when_they_are_told() -> None:
    with forked(2, until_told) as doors:
        doors.open()
        doors.tend()

        assert doors.close(seconds=10)


@pytest.mark.parametrize(
    ("status", "error"),
    [(EXIT_CONFIGURATION, ConfigurationError), (EXIT_DAMAGED, DamagedDatabaseError), (1, StorageError)],
)
def test_why_one_could_not_begin_is_why_the_role_cannot(status: int, error: type[GpnetError]) -> None:
    def refuse(_: int, __: Callable[[], None]) -> None:
        sys.exit(status)

    with forked(2, refuse) as doors, pytest.raises(error):
        doors.open()


def test_one_that_dies_later_is_noticed() -> None:
    before = psutil.Process().children()
    with forked(2, until_told) as doors:
        doors.open()
        next(it for it in psutil.Process().children() if it not in before).kill()

        def noticed() -> bool:
            try:
                doors.tend()
            except StorageError:
                return True
            return False

        wait_until(noticed, what="the death being noticed")


def test_one_that_does_not_end_in_time_is_ended() -> None:
    def deaf(_: int, ready: Callable[[], None]) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ready()
        time.sleep(600)

    before = psutil.Process().children()
    doors = Doors(1, deaf)
    doors.open()

    assert not doors.close(seconds=0.2)
    assert psutil.Process().children() == before


# -- in a node -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def node_of_two(folder: Path, *, max_associations: int = 32, each: int = 24) -> Iterator[RunningNode]:
    configuration = configuration_of(
        folder,
        pacs=None,
        receiving_processes=2,
        max_associations=max_associations,
        max_associations_per_peer=each,
    )
    console = PeerConfig(name="console", ae_title="CONSOLE", may_store=True, accept_other_classes=True)
    configuration = configuration.model_copy(update={"peers": (*configuration.peers, console)})
    with running_node(configuration, Role.RECEIVER) as node:
        yield node


def test_the_limits_count_the_associations_of_all_processes(tmp_path: Path) -> None:
    with node_of_two(tmp_path, max_associations=6, each=4) as node:
        of_scanner = [associate(node.port, MR) for _ in range(6)]
        of_console = [associate(node.port, MR, calling="CONSOLE") for _ in range(4)]

        assert [it.is_established for it in of_scanner] == [True] * 4 + [False] * 2
        assert [it.is_established for it in of_console] == [True] * 2 + [False] * 2
        assert all(told_to_come_again(it) for it in (*of_scanner[4:], *of_console[2:]))
        for association in (*of_scanner, *of_console):
            association.abort()
        wait_until(lambda: associate(node.port, MR).is_established, what="room again")


def told_to_come_again(association: Association) -> bool:
    answer = association.acceptor.primitive
    return answer is not None and (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)


def test_the_receiver_begins_again_where_one_of_its_processes_was_killed(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "sent", slices=4)
    with node_of_two(tmp_path) as node:
        assert storescu(node.port, paths[:2]).returncode == 0
        receiver, *processes = node.processes(Role.RECEIVER)
        assert len(processes) == 2
        os.kill(processes[0].pid, signal.SIGKILL)

        def begun_again() -> bool:
            node.supervisor.tend()
            return node.supervisor.process_id(Role.RECEIVER) not in (None, receiver.pid)

        wait_until(begun_again, what="another receiver")
        node.supervisor.wait_until_ready(seconds=60)
        assert (
            storescu(node.supervisor.wait_until_ready(seconds=60)[Role.RECEIVER] or 0, paths[2:]).returncode
            == 0
        )
        wait_until(lambda: len(node.parts.index.paths()) == 4, what="all four in the index")


def test_a_certificate_that_is_none_stops_the_node_instead_of_starting_it_again(tmp_path: Path) -> None:
    path = tmp_path / "certificate"
    path.write_text("no PEM")
    configuration = configuration_of(tmp_path, pacs=None, tls=TlsConfig(certificate=path, key=path, ca=path))
    with pytest.raises(ConfigurationError, match="receiver cannot start"), running_node(configuration):
        pass


def test_the_role_has_its_lock_for_itself(tmp_path: Path) -> None:
    with node_of_two(tmp_path) as node:  # one that is slow to die would keep the next receiver out
        receiver, *processes = node.processes(Role.RECEIVER)
        lock = node.parts.archive.root / "locks" / "receiver.lock"

        assert str(lock) in [file.path for file in receiver.open_files()]
        assert str(lock) not in [file.path for process in processes for file in process.open_files()]


def test_no_process_that_receives_outlives_the_role(tmp_path: Path) -> None:
    with node_of_two(tmp_path) as node:
        receiver, *processes = node.processes(Role.RECEIVER)
        os.kill(receiver.pid, signal.SIGKILL)
        psutil.wait_procs(processes, timeout=10)

        assert not any(process.is_running() for process in processes)
        assert not listens(node.port)
