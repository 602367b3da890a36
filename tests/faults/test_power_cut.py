"""The power is cut: only what was synchronised is left, or by chance some more.

GPNET_CUTS is how often ``make faults`` cuts.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from gpnet_node.node import mend_database
from gpnet_node.parts import build
from gpnet_node.store.archive import Archive
from gpnet_node.store.database import reading
from gpnet_node.store.states import AssociationOutcome, JobState, SeriesState
from tests.factories import uid_of
from tests.faults.ledger import TOLD, Scanner, lost
from tests.faults.memory_pacs import MemoryPacs, memory_pacs
from tests.faults.one_process import Fate, OneProcess
from tests.faults.power_cut import Disk
from tests.faults.recording import Change, mark, recording
from tests.nodes import SMALL, configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import data_set_bytes
from tests.segmenters import threshold_segmenters

ROUTE = (JobState.QUEUED, JobState.WRITTEN, JobState.DELIVERED)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One series from scanner to PACS, and what was done to the disk meanwhile."""

    root: Path
    paths: Sequence[Path]
    changes: Sequence[Change]
    pacs: MemoryPacs

    def known(self, kind: str, cut: int) -> list[str]:
        """What had been marked before the cut."""
        marks = [it.path for it in self.changes[:cut] if it.call == "mark"]
        return [text.partition(" ")[2] for text in marks if text.startswith(f"{kind} ")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    head = draw_head(folder / "sent", shape=(6, 12, 20), spacing_mm=(4.0, 3.0, 3.0))
    root = folder / "archive"
    root.mkdir()
    with memory_pacs(stored=lambda uid: mark(f"stored {uid}")) as pacs:
        configuration = configuration_of(folder, pacs=pacs.port, eligible=SMALL, min_free_bytes=0)
        with recording(root, folder / "strace.log") as record, running_node(configuration) as node:
            scanner = Scanner(node.port, acknowledged=lambda uid: mark(f"acknowledged {uid}"))
            scanner.send(head.paths)
            for state in ROUTE:
                node.wait_until_it_was(state)
                mark(f"job {state}")
        yield Recorded(root=root, paths=head.paths, changes=tuple(record.changes), pacs=pacs)


def test_the_recording_ends_in_the_very_files_that_are_on_the_disk(recorded: Recorded) -> None:
    disk = Disk(str(recorded.root))
    for change in recorded.changes:
        if change.call != "mark":
            disk.apply(change)

    there = {str(path): path.read_bytes() for path in recorded.root.rglob("*") if path.is_file()}
    assert {name: content for name, content in disk.files().items() if content} == {
        name: content for name, content in there.items() if content
    }


def test_after_a_cut_of_the_power_nothing_acknowledged_and_no_job_is_lost(
    recorded: Recorded, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property(TOLD, _cut_often(recorded, tmp_path, cuts=24))


@pytest.mark.faults
def test_after_a_cut_of_the_power_before_any_change_the_series_still_ends_in_one_set(
    recorded: Recorded, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    cuts = int(os.environ.get("GPNET_CUTS", "400"))
    record_property(TOLD, _cut_often(recorded, tmp_path, cuts=cuts))


def _cut_often(recorded: Recorded, folder: Path, *, cuts: int) -> str:
    """Cut around synchronisations and marks, where it matters, and anywhere between."""
    chance = Random(7)
    turns = [n for n, it in enumerate(recorded.changes) if it.call in ("sync", "mark", "link", "rename")]
    moments = {min(n + after, len(recorded.changes)) for n in turns for after in (0, 1)}
    chosen = sorted(chance.choices(sorted(moments), k=cuts))
    disk, done = Disk(str(recorded.root)), 0
    for number, cut in enumerate(chosen):
        for change in recorded.changes[done:cut]:
            if change.call != "mark":
                disk.apply(change)
        done = cut
        place = folder / str(number)
        place.mkdir()
        disk.cut(place / "archive", chance if number % 2 else None)
        _examine(recorded, place, cut, to_the_end=number % 3 == 0)
        shutil.rmtree(place)
    return f"{len(chosen)} cuts of the power, {len(recorded.changes)} changes of the disk"


def _examine(recorded: Recorded, place: Path, cut: int, *, to_the_end: bool) -> None:
    sent = {uid_of(path): data_set_bytes(path) for path in recorded.paths}
    acknowledged = {uid: sent[uid] for uid in recorded.known("acknowledged", cut)}
    configuration = configuration_of(place, pacs=recorded.pacs.port, eligible=SMALL, min_free_bytes=0)
    mend_database(configuration)
    parts = build(configuration, owner="test")
    try:
        assert lost(acknowledged, Archive(configuration.node.archive)) == []
        with reading(parts.engine) as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
        states = [event.to_state for job in parts.jobs.newest() for event in parts.jobs.history(job.uid)]
        assert set(recorded.known("job", cut)) <= set(states)
        assert parts.index.counts().get(SeriesState.COMPLETE, 0) == len(parts.jobs.newest())
    finally:
        parts.engine.dispose()
    node = OneProcess(
        configuration=configuration,
        segmenter_for=threshold_segmenters(configuration),
        fate=Fate(),
        now=datetime.now(UTC),
        acknowledged=acknowledged,
    )
    assert {path.as_posix() for path in node.index.paths()} == {
        path.as_posix() for _, _, path in node.archive.instances()
    }
    if to_the_end:
        _end(recorded, node, set(recorded.known("stored", cut)))
    node.engine.dispose()


def _end(recorded: Recorded, node: OneProcess, stored: set[str]) -> None:
    """The scanner sends what was not acknowledged, and the PACS, whose power was on, gets one set."""
    recorded.pacs.held.clear()
    rest = [path for path in recorded.paths if uid_of(path) not in node.acknowledged]
    if rest:
        node.receive(rest, AssociationOutcome.RELEASED)
    for _ in range(10):
        node.wait(70.0)
        node.look()
        node.work()
        node.deliver()
    (job,) = node.jobs.newest()
    assert job.state is JobState.DELIVERED
    written = {it.sop_instance_uid for it in node.jobs.results(job.uid)}
    assert stored | recorded.pacs.held.keys() == written
