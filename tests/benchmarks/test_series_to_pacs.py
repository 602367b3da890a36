"""How long after the last C-STORE the PACS holds both objects of a 512 x 512 x 80 series."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest

from gpnet_node.demo import GOOD_SCAN, PLAIN_SHAPE
from gpnet_node.eligibility import EligibilityConfig
from gpnet_node.model.card import WEIGHTS_NAME, read_card
from gpnet_node.model.drawing import shape
from gpnet_node.model.drawing.drawn_series import write_series
from gpnet_node.model.drawing.head import draw_series
from gpnet_node.model.drawing.pose import Seeds
from gpnet_node.node import SegmentersOf, gpnet_segmenters
from gpnet_node.parts import Role, now
from gpnet_node.store.states import JobState
from tests.benchmarks.conftest import Scale
from tests.benchmarks.figures import Bar, Figure, Figures
from tests.benchmarks.known_labels import ellipsoids, known_labels
from tests.benchmarks.memory import peak_mb
from tests.benchmarks.scanner import new_uid, send
from tests.factories import mr_series
from tests.nodes import RunningNode, configuration_of, running_node
from tests.peers import Orthanc, orthanc
from tests.performing import SCANNER, listing, report

pytestmark = pytest.mark.speed
SHAPE = (80, 512, 512)  # slices, rows, columns
SPACING_MM = (1.0, 0.4, 0.4)
QUIET_SECONDS = 5.0  # the node's default where the headers tell the number of images
BAR_SECONDS, BAR_MB = 10.0, 3000.0
SEED = 7  # of a head that needs no review
_LIMIT_SECONDS = 300.0
_ENDS = (JobState.REJECTED, JobState.NEEDS_REVIEW, JobState.FAILED, JobState.PARKED)


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One series through the node: seconds beyond the quiet time, if there is any, in all and by stage."""

    total: float
    decision: float
    claim: float
    work: float
    delivery: float


@dataclass(frozen=True, kw_only=True)
class Passages:
    """All series of one run, and the worker's peak."""

    passages: Sequence[Passage]
    worker_peak_mb: float


def test_what_stands_around_the_network_takes(
    scale: Scale, figures: Figures, scratch: Path, model_folder: Path
) -> None:
    """With the labels given: receiving, completeness, assembly, writing, self-check, delivery."""
    labels = scratch / "labels.npy"
    np.save(labels, ellipsoids(SHAPE, SPACING_MM))
    noise = np.random.default_rng(3).integers(0, 4096, SHAPE, np.uint16)

    def write(folder: Path) -> None:
        origin_mm = [-(count - 1) / 2 * step for count, step in zip(SHAPE, SPACING_MM, strict=True)][::-1]
        mr_series(
            folder,
            voxels=noise,
            spacing_mm=SPACING_MM,
            origin_mm=origin_mm,
            series=new_uid(),
            ImagesInAcquisition=len(noise),
        )

    folder = scratch / "around"
    measured = measure(folder, write, known_labels(labels, model_folder), series=scale.series)
    figures.add(*lines("both objects in Orthanc beyond the quiet time, labels given", measured.passages))


def test_both_objects_of_a_series_that_the_scanner_calls_complete_are_in_the_pacs_within_10_seconds(
    scale: Scale, figures: Figures, scratch: Path, model_folder: Path
) -> None:
    missing = [path for path in (model_folder / WEIGHTS_NAME, shape.SHAPE_FILE) if not path.is_file()]
    if missing:
        names = " and ".join(f"{path.parent.name}/{path.name}" for path in missing)
        pytest.fail(f"{names}: not there, so the route cannot be measured with its network")
    head = shape.draw(np.random.default_rng(SEED))
    card = read_card(model_folder)
    drawn = draw_series(head, GOOD_SCAN, slab(), card, Seeds.all(SEED), PLAIN_SHAPE)

    def write(folder: Path) -> None:
        write_series(drawn, folder, description="T2 TSE axial (drawn)", at=now())

    measured = measure(scratch / "route", write, gpnet_segmenters, series=scale.series, listed=True)
    peak = measured.worker_peak_mb
    figures.add(
        *lines("both objects in Orthanc, GP-net, told by MPPS", measured.passages, BAR_SECONDS),
        Figure(
            what="worker's largest size meanwhile", unit="MB", ours=[peak],
            bar=Bar(words=f"under {BAR_MB:.0f} MB", met=peak < BAR_MB, hard=True),
        ),
    )  # fmt: skip


def measure(
    folder: Path,
    write: Callable[[Path], None],
    segmenters: SegmentersOf,
    *,
    series: int,
    listed: bool = False,
) -> Passages:
    """Run a node with the times that it has by default, and send it one series after the other.

    ``listed``: the scanner says at once what it has made (MPPS), so that nothing is waited for.
    """
    folders = [folder / f"series {number}" for number in range(series)]
    for name in folders:
        write(name)
    with orthanc(folder / "orthanc") as pacs:
        configuration = configuration_of(
            folder,
            pacs=pacs.dicom_port,
            eligible=EligibilityConfig(),
            quiet_seconds_counted=QUIET_SECONDS,
            quiet_seconds_uncounted=30.0,
            device="cpu",
            log_level="warning",
        )
        _, place = configuration.peers
        configuration = configuration.model_copy(update={"peers": (SCANNER, place)})
        with running_node(configuration, segmenters=segmenters) as node:
            passages = [passage(node, pacs, name, 2 * n, listed) for n, name in enumerate(folders, start=1)]
            worker = node.supervisor.process_id(Role.WORKER)
            assert worker is not None
            return Passages(passages=passages, worker_peak_mb=peak_mb(worker))


def passage(node: RunningNode, pacs: Orthanc, series: Path, objects: int, listed: bool) -> Passage:
    """Send one series, wait until the PACS holds so many objects, and read the job's history."""
    images = listing(sorted(series.iterdir()))
    send(node.port, "GPNET", [series])
    sent, quiet_seconds = now(), 0.0 if listed else QUIET_SECONDS
    if listed:
        assert report(node.port, "COMPLETED", images) == [0, 0]
    deadline = time.monotonic() + _LIMIT_SECONDS
    while int(pacs.get("/statistics")["CountInstances"]) < objects:
        node.supervisor.tend()
        for job in node.parts.jobs.newest(limit=1):
            assert job.state not in _ENDS, f"the job ended as {job.state}: {job.reason}"
        assert time.monotonic() < deadline, f"nothing in the PACS after {_LIMIT_SECONDS:.0f} s"
        time.sleep(0.1)  # rarely, for the two cores are the node's
    arrived = now()
    (job,) = node.parts.jobs.newest(limit=1)
    at = {event.to_state: event.at for event in node.parts.jobs.history(job.uid)}

    def seconds(since: datetime, until: datetime) -> float:
        return (until - since).total_seconds()

    return Passage(
        total=seconds(sent, arrived) - quiet_seconds,
        decision=seconds(sent, at[JobState.QUEUED]) - quiet_seconds,
        claim=seconds(at[JobState.QUEUED], at[JobState.RUNNING]),
        work=seconds(at[JobState.RUNNING], at[JobState.WRITTEN]),
        delivery=seconds(at[JobState.WRITTEN], arrived),
    )


def lines(what: str, passages: Sequence[Passage], bar_seconds: float | None = None) -> list[Figure]:
    """The whole time, and its stages."""
    totals = [it.total for it in passages]
    bar = None
    if bar_seconds is not None:
        words = f"each under {bar_seconds:.0f} s"
        bar = Bar(words=words, met=max(totals) < bar_seconds, hard=True)
    stages = {
        "series decided": [it.decision for it in passages],
        "job claimed": [it.claim for it in passages],
        "pipeline, objects archived": [it.work for it in passages],
        "both objects sent": [it.delivery for it in passages],
    }
    return [
        Figure(what=what, unit="s", ours=totals, bar=bar),
        *(Figure(what=f"   of that: {stage}", unit="s", ours=values) for stage, values in stages.items()),
    ]


def slab() -> hd.VolumeGeometry:
    """An axial slab around the middle of the head."""
    affine = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]) * SPACING_MM
    whole = np.eye(4)
    whole[:3, :3] = affine
    whole[:3, 3] = -affine @ ((np.array(SHAPE) - 1) / 2)
    return hd.VolumeGeometry(
        affine=whole, spatial_shape=SHAPE, coordinate_system="PATIENT", frame_of_reference_uid=new_uid()
    )
