"""One call after the other fails, in each role: writing, synchronising, naming.

For each a series of its own goes through the same node: nothing acknowledged is lost, and it ends in one set
of objects without a person.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from gpnet_node.parts import Role
from gpnet_node.store.states import JobState
from tests.faults.disk import one_error
from tests.faults.ledger import Scanner, lost
from tests.faults.memory_pacs import memory_pacs
from tests.nodes import SMALL, configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
PATIENCE_SECONDS = 240.0  # a worker that met failing storage pauses; a role that dies is started ever later
WRITES, SYNCHRONISES, NAMES = "pwrite64,ftruncate", "fsync,fdatasync", "link,unlink,mkdir"
CASES = (
    *((Role.RECEIVER, calls) for calls in (WRITES, SYNCHRONISES, NAMES)),
    *((Role.WORKER, calls) for calls in (WRITES, SYNCHRONISES, NAMES)),
    *((Role.COURIER, calls) for calls in (WRITES, SYNCHRONISES)),
)
ERROR_OF = {WRITES: "ENOSPC", SYNCHRONISES: "EIO", NAMES: "EIO"}


def _numbers() -> Iterator[int]:
    """Each of the first calls, then ever fewer: 1, 2, 3, 5, 8 ..."""
    number, following = 1, 2
    while True:
        yield number
        number, following = following, number + following


@pytest.mark.parametrize(("role", "calls"), CASES)
def test_an_error_of_any_call_loses_nothing_and_doubles_nothing(
    role: Role, calls: str, tmp_path: Path
) -> None:
    log = tmp_path / "strace.log"
    with memory_pacs() as pacs:
        configuration = configuration_of(
            tmp_path, pacs=pacs.port, port=free_port(), eligible=SMALL, min_free_bytes=0
        )
        with running_node(configuration) as node:
            scanner = Scanner(node.port)
            for number in _numbers():
                pacs.held.clear()
                head = draw_head(
                    tmp_path / str(number), shape=(5, 12, 20), spacing_mm=(4.0, 3.0, 3.0), series=str(number)
                )
                node.supervisor.wait_until_ready(seconds=120)
                process_ids = [process.pid for process in node.processes(role)]
                with one_error(process_ids, calls, ERROR_OF[calls], at=number, log=log):
                    scanner.send(head.paths, seconds=120, between=lambda _: node.supervisor.tend())
                    uid = str(dcmread(head.paths[0]).SeriesInstanceUID)
                    job = node.job(JobState.DELIVERED, series_uid=uid, seconds=PATIENCE_SECONDS)
                assert lost(scanner.acknowledged, node.parts.archive) == []
                assert len(node.parts.jobs.newest(series_uid=uid)) == 1
                assert {it.sop_instance_uid for it in node.parts.jobs.results(job.uid)} == pacs.held.keys()
                if "(INJECTED)" not in log.read_text(encoding="ascii"):
                    break
            assert number > 1
