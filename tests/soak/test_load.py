"""Twenty associations at once, at the pace of 200 GB a day, while results are written and delivered."""

import hashlib
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpnet_node.store.archive import Archive
from gpnet_node.store.states import JobState
from tests.benchmarks.scanner import new_uid
from tests.factories import rewrite
from tests.nodes import RunningNode, configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import Orthanc, data_set_bytes, orthanc, wait_until
from tests.soak.sender import Sender

ASSOCIATIONS = 20
BYTES_A_SECOND = 200e9 / 86_400
SLICES = 20
SOAK_SECONDS = float(os.environ.get("GPNET_SOAK_SECONDS", "600"))
FACTOR = 5  # that the slowest of a hundred may take of what the median takes without load


@dataclass(frozen=True, kw_only=True)
class Load:
    """Images of ``rows`` x ``columns``; on each association one every ``pause_seconds``, for ``seconds``.

    ``unloaded``: how many series are sent before, one after the other.
    """

    rows: int
    columns: int
    spacing_mm: float
    pause_seconds: float
    seconds: float
    unloaded: int


QUICK = Load(rows=48, columns=60, spacing_mm=1.0, pause_seconds=0.2, seconds=2, unloaded=1)
DAY = Load(
    rows=512,
    columns=640,
    spacing_mm=0.1,
    pause_seconds=ASSOCIATIONS * 512 * 640 * 2 / BYTES_A_SECOND,
    seconds=SOAK_SECONDS,
    unloaded=10,
)


@dataclass(kw_only=True)
class Ledger:
    """What the senders know: digests of acknowledged data sets by UID, and how long each answer took."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    series: int = 0  # sent whole


class Printer:
    """Makes one drawn series again and again, with UIDs of its own each time.

    It stays in memory: what a scanner has on its own disk is nothing to ours.
    """

    def __init__(self, folder: Path, load: Load) -> None:
        shape, spacing_mm = (SLICES, load.rows, load.columns), (1.5, load.spacing_mm, load.spacing_mm)
        head = draw_head(folder, shape=shape, spacing_mm=spacing_mm)
        self._series = new_uid()
        self._instances = [new_uid() for _ in head.paths]
        for path, instance in zip(head.paths, self._instances, strict=True):
            rewrite(path, SeriesInstanceUID=self._series, SOPInstanceUID=instance)
        self._data_sets = [data_set_bytes(path) for path in head.paths]

    def series(self) -> Iterator[tuple[str, bytes]]:
        """UID and data set of each image of one more series."""
        series = new_uid().encode()
        for data_set, instance in zip(self._data_sets, self._instances, strict=True):
            uid = new_uid()
            own = data_set.replace(self._series.encode(), series).replace(instance.encode(), uid.encode())
            yield uid, own


def send(port: int, images: Iterable[tuple[str, bytes]], ledger: Ledger, *, pause_seconds: float = 0) -> None:
    """Send a series on one association, an image after each pause, and note what was answered."""
    association = Sender(port)
    due = time.monotonic()
    for uid, data_set in images:
        time.sleep(max(0.0, due - time.monotonic()))
        due += pause_seconds
        took = association.store(uid, data_set)
        ledger.acknowledged[uid] = hashlib.sha256(data_set).hexdigest()
        ledger.seconds.append(took)
    association.release()
    ledger.series += 1


def keep_busy(node: RunningNode, printer: Printer, load: Load) -> Ledger:
    """Send on twenty associations at once."""
    ledger, until = Ledger(), time.monotonic() + load.seconds

    def scan(turn: int) -> None:
        time.sleep(turn * load.pause_seconds / ASSOCIATIONS)
        while time.monotonic() < until:
            send(node.port, printer.series(), ledger, pause_seconds=load.pause_seconds)

    with ThreadPoolExecutor(ASSOCIATIONS) as pool:
        scans = [pool.submit(scan, turn) for turn in range(ASSOCIATIONS)]
        while not all(it.done() for it in scans):
            node.supervisor.tend()
            time.sleep(0.2)
        for it in scans:
            it.result()
    return ledger


def soaked(folder: Path, load: Load) -> tuple[Ledger, Ledger]:
    """Load a whole node; what was noted without load and under it. Everything is here, and delivered."""
    printer = Printer(folder / "head", load)
    with orthanc(folder / "orthanc") as pacs:
        configuration = configuration_of(folder, pacs=pacs.dicom_port, log_level="warning")
        with running_node(configuration) as node:
            alone = Ledger()
            for _ in range(load.unloaded):
                send(node.port, printer.series(), alone)
            wait_until_delivered(node, pacs, alone.series)
            ledger = keep_busy(node, printer, load)
            wait_until_delivered(node, pacs, alone.series + ledger.series)
        assert missing(configuration.node.archive, alone.acknowledged | ledger.acknowledged) == []
    return alone, ledger


def wait_until_delivered(node: RunningNode, pacs: Orthanc, series: int) -> None:
    def all_there() -> bool:
        node.supervisor.tend()
        counts = node.parts.jobs.counts()
        assert set(counts) <= {JobState.QUEUED, JobState.RUNNING, JobState.WRITTEN, JobState.DELIVERED}
        return counts.get(JobState.DELIVERED) == series

    wait_until(all_there, seconds=60 + 10 * series, what=f"{series} delivered jobs")
    assert int(pacs.get("/statistics")["CountInstances"]) == 2 * series


def missing(archive: Path, acknowledged: dict[str, str]) -> list[str]:
    """Return what was acknowledged and is not in the archive, byte for byte."""
    held = {uid: archive / path for uid, _, path in Archive(archive).instances()}

    def is_whole(uid: str, digest: str) -> bool:
        return uid in held and hashlib.sha256(data_set_bytes(held[uid])).hexdigest() == digest

    return [uid for uid, digest in acknowledged.items() if not is_whole(uid, digest)]


@pytest.mark.timeout(600)
def test_under_twenty_associations_nothing_is_lost_and_everything_is_delivered(tmp_path: Path) -> None:
    _, ledger = soaked(tmp_path, QUICK)

    assert ledger.series >= ASSOCIATIONS


@pytest.mark.soak
@pytest.mark.timeout(4 * SOAK_SECONDS + 600)
def test_a_busy_days_pace_makes_nobody_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone, ledger = soaked(tmp_path, DAY)

    median = statistics.median(alone.seconds)
    slow = statistics.quantiles(ledger.seconds, n=100)[98]
    with capsys.disabled():
        print(  # what the run is for
            f"\n{len(ledger.acknowledged)} images in {ledger.series} series, 0 lost; C-STORE: median "
            f"{1000 * median:.1f} ms without load, 99 % below {1000 * slow:.1f} ms under it"
        )
    assert slow < FACTOR * median
