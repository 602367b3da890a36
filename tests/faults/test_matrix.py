"""Each fault at each step. The steps are those of the transition table: a new state brings its cases along.

After every fault: no acknowledged image is lost, the series ends in exactly one set of objects at the PACS,
which passed the self-check (nothing else leaves), and no person was needed.
"""

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpnet_node.parts import Role
from gpnet_node.store.states import JOB_ARROWS, JobState
from tests.faults.disk import fill, refuse, small_disk
from tests.faults.ledger import Scanner, lost
from tests.faults.relay import Relay, Weather, relay_to
from tests.nodes import RunningNode, configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import Orthanc, free_port, orthanc

pytestmark = pytest.mark.faults
ROLES = (Role.RECEIVER, Role.WORKER, Role.COURIER)
FAULT_SECONDS = 2.0
PATIENCE_SECONDS = 150.0  # a worker that met failing storage pauses for a minute
DISK_FULL = "disk full"
LEFT_BY_A_PERSON = {JobState.NEEDS_REVIEW, JobState.FAILED, JobState.PARKED}
RECEIVING = "receiving"


def leads_to_delivery(state: JobState, seen: frozenset[JobState] = frozenset()) -> bool:
    """Whether a job gets from here to the PACS by itself."""
    if state is JobState.DELIVERED:
        return True
    onwards = JOB_ARROWS[state] - seen - LEFT_BY_A_PERSON
    return any(leads_to_delivery(to, seen | {state}) for to in onwards)


STEPS = (
    RECEIVING,
    *(state for state in JobState if state not in LEFT_BY_A_PERSON and leads_to_delivery(state)),
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A node between a scanner and a PACS, and the network before the PACS."""

    node: RunningNode
    relay: Relay

    def kill(self, *roles: Role) -> None:
        for role in roles:
            pid = self.node.supervisor.process_id(role)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)

    def for_a_while(self, weather: Weather) -> None:
        self.relay.turn(weather)
        threading.Timer(FAULT_SECONDS, self.relay.turn, [Weather.FAIR]).start()

    def fill_disk(self) -> None:
        fill(self.node.parts.archive.root, seconds=FAULT_SECONDS)

    def refuse_changes(self, error: str) -> None:
        playing = [role for role in ROLES if self.node.supervisor.process_id(role) is not None]
        running = [process.pid for role in playing for process in self.node.processes(role)]
        refuse(running, error, seconds=FAULT_SECONDS)

    def lock_database(self) -> None:
        """Hold the write lock, as a backup program or a careless person does."""
        held = threading.Event()

        def hold() -> None:
            with sqlite3.connect(self.node.parts.configuration.node.database, timeout=30) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                held.set()
                time.sleep(FAULT_SECONDS)

        threading.Thread(target=hold, daemon=True).start()
        held.wait(30)


def _kill(*roles: Role) -> Callable[[Bench], None]:
    return lambda bench: bench.kill(*roles)


FAULTS: Mapping[str, Callable[[Bench], None]] = {
    **{f"{role} killed": _kill(role) for role in ROLES},
    "all roles killed": _kill(*ROLES),
    "PACS away": lambda bench: bench.for_a_while(Weather.CLOSED),
    "PACS drops associations": lambda bench: bench.for_a_while(Weather.DROPS),
    "PACS slow as treacle": lambda bench: bench.for_a_while(Weather.TREACLE),
    "database locked": Bench.lock_database,
    DISK_FULL: Bench.fill_disk,
    "disk read-only": lambda bench: bench.refuse_changes("EROFS"),
    "disk fails": lambda bench: bench.refuse_changes("EIO"),
}


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as pacs:
        yield pacs


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_loses_nothing_and_doubles_nothing(
    step: str,
    fault: str,
    pacs: Orthanc,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    head, before = draw_head(tmp_path / "series"), set(pacs.get("/instances"))
    with contextlib.ExitStack() as around:
        relay = around.enter_context(relay_to(pacs.dicom_port))
        configuration = configuration_of(tmp_path, pacs=relay.port, port=free_port(), min_free_bytes=0)
        if fault == DISK_FULL:
            around.enter_context(small_disk(configuration.node.archive))
        with running_node(configuration) as node:
            bench, scanner = Bench(node=node, relay=relay), Scanner(node.port)
            half = len(head.paths) // 2

            def between(acknowledged: int) -> None:
                node.supervisor.tend()
                if step == RECEIVING and acknowledged == half and not injected:
                    injected.append(step)
                    FAULTS[fault](bench)

            injected: list[str] = []
            scanner.send(head.paths, between=between)
            if step != RECEIVING:
                node.wait_until_it_was(JobState(step))
                FAULTS[fault](bench)
            job = node.job(JobState.DELIVERED, JobState.CONFIRMED, seconds=PATIENCE_SECONDS)

            missing = lost(scanner.acknowledged, node.parts.archive)
            record_property("lost", len(missing))
            assert missing == []
            assert len(scanner.acknowledged) == len(head.paths)
            assert [it.uid for it in node.parts.jobs.newest()] == [job.uid]
            names = set(pacs.get("/instances")) - before
            held = {pacs.get(f"/instances/{name}/simplified-tags")["SOPInstanceUID"] for name in names}
            assert len(names) == len(held)
            assert held == {it.sop_instance_uid for it in node.parts.jobs.results(job.uid)}
