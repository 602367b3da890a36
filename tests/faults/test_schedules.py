"""Random schedules: images, late slices, duplicates, deaths, a moody PACS and a clock that is set back.

Whatever the order: nothing that was acknowledged is lost, each revision of a series has one job at most, and
in the end each series has one set of objects at the PACS, whole. ``GPNET_SCHEDULES`` is how many are tried.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpnet_node import pipeline
from gpnet_node.config import Configuration
from gpnet_node.node import SegmenterFor
from gpnet_node.pipeline import Results
from gpnet_node.store.states import AssociationOutcome, JobState, SeriesState
from tests.factories import uid_of
from tests.faults.ledger import TOLD, lost
from tests.faults.memory_pacs import MemoryPacs, Mood, memory_pacs
from tests.faults.one_process import CHANGES, Fate, OneProcess, fate
from tests.nodes import SMALL, configuration_of
from tests.pallida import draw_head
from tests.peers import data_set_bytes
from tests.segmenters import threshold_segmenters
from tests.stores import new_archive, new_database

SCHEDULES = int(os.environ.get("GPNET_SCHEDULES", "500"))
SLICES = 5
NOW = datetime.now(UTC)
A_WHILE_SECONDS = 70.0
RELEASED, ABORTED = AssociationOutcome.RELEASED, AssociationOutcome.ABORTED

Step = tuple[Any, ...]  # what the bench is asked to do, and how

SEND = st.tuples(
    st.just("send"),
    st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1]),
    st.sampled_from([(0, SLICES), (0, SLICES - 1), (SLICES - 1, SLICES), (0, 2), (2, SLICES)]),
    st.sampled_from([RELEASED, RELEASED, ABORTED]),
)
PART = st.tuples(st.sampled_from(["look", "work", "deliver", "restart"]))
WAIT = st.tuples(st.just("wait"), st.sampled_from([A_WHILE_SECONDS, A_WHILE_SECONDS, -3600.0]))
ARM = st.tuples(st.just("arm"), st.integers(0, 40))
MOOD = st.tuples(st.just("mood"), st.sampled_from(Mood))
# A day's usual order, so that schedules get far, with anything in between.
DAY = ("send", 0, (0, SLICES), RELEASED), ("wait", A_WHILE_SECONDS), ("look",), ("work",), ("deliver",)


@st.composite
def schedules(draw: st.DrawFn) -> list[Step]:
    """Steps of a day, each with what comes before it."""
    steps: list[Step] = []
    for usual in DAY:
        steps += draw(st.lists(st.one_of(ARM, ARM, SEND, PART, WAIT, MOOD), max_size=2))
        steps.append(usual)
    return steps


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A node in one process between a scanner with two series and a PACS."""

    node: OneProcess
    pacs: MemoryPacs
    heads: Sequence[Sequence[Path]]
    sent: set[int] = field(default_factory=set)  # numbers of the heads
    gave_up: set[int] = field(default_factory=set)  # those whose association the scanner aborted

    def take(self, step: Step) -> None:
        """Take one step of a schedule."""
        name, *how = step
        if name == "send":
            self.send(*how)
        elif name == "wait":
            self.node.wait(*how)
        elif name == "arm":
            (self.node.fate.left,) = how
        elif name == "mood":
            (self.pacs.mood,) = how
        else:
            self.node.survive(getattr(self.node, name))

    def send(self, head: int, slices: tuple[int, int], outcome: AssociationOutcome) -> None:
        """The scanner sends some images of a series on one association."""
        before = self.node.deaths
        self.sent.add(head)
        self.node.survive(lambda: self.node.receive(self.heads[head][slice(*slices)], outcome))
        if outcome is ABORTED and self.node.deaths == before:
            self.gave_up.add(head)

    def end(self) -> None:
        """No more faults: the scanner sends what is left, and everybody does what there is to do."""
        self.node.fate.left, self.pacs.mood = None, Mood.STORES
        for number in self.sent:
            paths = self.heads[number]
            left = [path for path in paths if uid_of(path) not in self.node.acknowledged]
            if left or number in self.gave_up:
                self.node.receive(left or paths[-1:], RELEASED)
        pause = A_WHILE_SECONDS
        while not self.is_done() and pause < 24 * 3600:
            self.node.wait(pause)
            self.node.look()
            self.node.work()
            self.node.deliver()
            pause *= 1.5

    def is_done(self) -> bool:
        """Whether each series has come to its end."""
        states = [job.state for job in self.node.jobs.newest() if job.state is not JobState.SUPERSEDED]
        return states == [JobState.DELIVERED] * len(self.sent) and not self.node.index.counts().get(
            SeriesState.RECEIVING
        )


@pytest.fixture(scope="module")
def pacs() -> Iterator[MemoryPacs]:
    with memory_pacs() as pacs:
        yield pacs


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> list[Sequence[Path]]:
    folder = tmp_path_factory.mktemp("heads")
    return [
        draw_head(folder / name, shape=(SLICES, 12, 20), spacing_mm=(4.0, 3.0, 3.0), series=name).paths
        for name in ("1", "2")
    ]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the node lives: in memory, if it can, since its deaths are not the machine's."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        new_archive(Path(folder))
        new_database(Path(folder)).dispose()
        yield Path(folder)


def begin_anew(folder: Path) -> None:
    """Leave of the last schedule the archive's folders only."""
    archive = folder / "archive"
    for path in (*archive.glob("instances/*/*"), *archive.glob("tmp/*/*"), *archive.glob("node.sqlite*")):
        path.unlink()
    for path in archive.glob("results/*"):
        shutil.rmtree(path)
    shutil.copyfile(folder / "node.sqlite", archive / "node.sqlite")


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline gives the same bytes for the same job, as another test shows: each is asked for once."""
    run = pipeline.run
    known: dict[str, Results] = {}

    def remembered(images: Sequence[Path], **settings: Any) -> Results:  # noqa: ANN401
        key = repr(([path.name for path in images], settings["job"], settings["background"]))
        if key not in known:
            known[key] = run(images, **settings)
        return known[key]

    monkeypatch.setattr(pipeline, "run", remembered)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where schedules are played, one after the other."""

    folder: Path
    pacs: MemoryPacs
    heads: Sequence[Sequence[Path]]
    configuration: Configuration
    segmenter_for: SegmenterFor

    def play(self, steps: Sequence[Step], doom: Fate) -> OneProcess:
        """Play one schedule from an empty archive to its end, and examine what came of it."""
        begin_anew(self.folder)
        self.pacs.held.clear()
        node = OneProcess(
            configuration=self.configuration, segmenter_for=self.segmenter_for, fate=doom, now=NOW
        )
        bench = Bench(node=node, pacs=self.pacs, heads=self.heads)
        for step in steps:
            bench.take(step)
        bench.end()
        _examine(bench)
        node.engine.dispose()
        return node


@pytest.fixture(scope="module")
def stage(folder: Path, pacs: MemoryPacs, heads: list[Sequence[Path]]) -> Stage:
    configuration = configuration_of(folder, pacs=pacs.port, eligible=SMALL, min_free_bytes=0)
    segmenter_for = threshold_segmenters(configuration)
    return Stage(
        folder=folder, pacs=pacs, heads=heads, configuration=configuration, segmenter_for=segmenter_for
    )


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("remembering")
def test_a_death_before_each_change_of_the_disk_loses_nothing_and_doubles_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    for changes in count():
        with fate(monkeypatch) as doom:
            node = stage.play([("arm", changes), *DAY], doom)
        if not node.deaths:
            break
    record_property(TOLD, f"{changes} deaths, one before each change of the disk")
    assert changes > len(stage.heads[0]) * len(CHANGES)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("remembering")
def test_whatever_the_order_of_faults_nothing_is_lost_and_nothing_doubled(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    tried = deaths = 0

    @settings(
        max_examples=SCHEDULES,
        deadline=None,
        database=None,
        derandomize="GPNET_SCHEDULES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules())
    def check(steps: list[Step]) -> None:
        nonlocal tried, deaths
        with fate(monkeypatch) as doom:
            deaths += stage.play(steps, doom).deaths
        tried += 1

    check()
    record_property(TOLD, f"{tried} random schedules, {deaths} deaths")


def _examine(bench: Bench) -> None:
    """Nothing lost, nothing doubled, nothing half."""
    node, held = bench.node, bench.pacs.held
    assert lost(node.acknowledged, node.archive) == []
    jobs = node.jobs.newest()
    assert len({(job.series_uid, job.revision) for job in jobs}) == len(jobs)
    assert bench.is_done(), [(job.state, job.reason) for job in jobs]
    written = {it.sop_instance_uid: it for job in jobs for it in node.jobs.results(job.uid)}
    assert held == {uid: data_set_bytes(node.archive.root / written[uid].path) for uid in held}
    for job in jobs:
        if job.state is JobState.DELIVERED:
            assert {it.sop_instance_uid for it in node.jobs.results(job.uid)} <= held.keys()
