"""A drawn head with four pallidal structures, as a series on disk, a volume and its label map."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.series import choose, read_headers, split
from gpnet_node.imaging.volume import LabelMap, Volume, assemble
from gpnet_node.model.card import ModelCard
from gpnet_node.model.segmentation import Quality
from gpnet_node.result_profile import BINARY, SegForm
from gpnet_node.results.content import NOTHING_KNOWN, Background, Content
from gpnet_node.results.identifiers import JobIdentity
from gpnet_node.results.measure import measure
from gpnet_node.results.report import write_report
from gpnet_node.results.seg import write_seg
from gpnet_node.results.written import WrittenObject, written
from tests.factories import enhanced_mr, mr_series, normal_of

# Double-oblique: 20 degrees about x, then 15 about z.
OBLIQUE = (0.96592583, 0.25881905, 0.0, -0.24321035, 0.90767337, 0.34202014)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

JOB = JobIdentity(
    job_uid="2.25.4711",
    created_at=datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC),
    node_ae_title="GPNET",
    software_version="0.1.0",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """A series that has been assembled and segmented."""

    paths: tuple[Path, ...]
    volume: Volume
    labels: LabelMap

    def relabelled(self, labels: NDArray[np.uint8]) -> "Head":
        """The same head with another label map."""
        return replace(self, labels=LabelMap(labels=labels, geometry=self.volume.geometry))


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """Everything written for one head."""

    head: Head
    content: Content
    seg: WrittenObject
    sr: WrittenObject


def draw_head(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (20, 48, 60),
    spacing_mm: tuple[float, float, float] = (1.5, 1.0, 1.0),
    orientation: tuple[float, ...] = AXIAL,
    enhanced: bool = False,
    **attributes: Any,  # noqa: ANN401  # as many types as DICOM has
) -> Head:
    """Draw a head around the origin with GPe and GPi on both sides, write it as a series and read it."""
    affine = np.eye(4)
    affine[:3, 0] = normal_of(orientation) * spacing_mm[0]
    affine[:3, 1] = np.array(orientation[3:]) * spacing_mm[1]
    affine[:3, 2] = np.array(orientation[:3]) * spacing_mm[2]
    affine[:3, 3] = np.round(-affine[:3, :3] @ ((np.array(shape) - 1) / 2), 6)
    signal, numbers = _paint(affine, shape)
    series: dict[str, Any] = {
        "voxels": signal.astype(np.uint16),
        "spacing_mm": spacing_mm,
        "orientation": orientation,
        "origin_mm": affine[:3, 3].tolist(),
        **attributes,
    }
    if enhanced:
        # Frames in the reverse of the volume's order, so that a frame number is never a slice index.
        paths = [enhanced_mr(folder, order=list(reversed(range(shape[0]))), **series)]
    else:
        paths = mr_series(folder, **series)
    volume = assemble(choose(split(read_headers(paths))))
    labels = LabelMap(labels=numbers, geometry=volume.geometry)
    return Head(paths=tuple(paths), volume=volume, labels=labels)


def content_of(
    head: Head,
    card: ModelCard,
    *,
    job: JobIdentity = JOB,
    quality: Quality = Quality(),  # noqa: B008  # it is frozen
    gate: tuple[str, ...] = (),
    background: Background = NOTHING_KNOWN,
) -> Content:
    """What is told of a head, measured as the pipeline does."""
    return Content(
        volume=head.volume,
        labels=head.labels,
        quality=quality,
        measurements=measure(head.volume, head.labels, card),
        card=card,
        job=job,
        gate=gate,
        background=background,
    )


def write_results(head: Head, card: ModelCard, *, job: JobIdentity = JOB, form: SegForm = BINARY) -> Results:
    """Measure and write both objects, as the pipeline does."""
    content = content_of(head, card, job=job)
    seg = write_seg(head.volume, head.labels, card, job, form)
    sr = write_report(content, seg)
    return Results(
        head=head, content=content, seg=written("seg", seg, form=form), sr=written("sr", sr, form=form)
    )


def _paint(
    affine: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    noise = np.random.default_rng(7).normal(0, 25, shape)
    signal = np.where((x / 60) ** 2 + (y / 75) ** 2 + (z / 60) ** 2 < 1, 800.0, 60.0) + noise
    signal[(np.abs(x) < 4) & (np.abs(y + 4) < 22) & (np.abs(z - 6) < 8)] = 1900
    labels = np.zeros(shape, np.uint8)
    for sign, outer, inner, size in ((1, 1, 2, 1.0), (-1, 3, 4, 0.94)):
        labels[_ellipsoid(sign * x - 21, y + 2, z, 4.2 * size, 10 * size, 5.8 * size)] = outer
        labels[_ellipsoid(sign * x - 15.5, y - 1, z + 0.5, 2.7 * size, 7.5 * size, 4.6 * size)] = inner
        putamen = _ellipsoid(sign * x - 27, y + 2, z + 1, 4, 15, 8) & (labels == 0)
        signal[putamen] = 620 + noise[putamen]
    for number, level in ((1, 380), (2, 330), (3, 385), (4, 335)):
        inside = labels == number
        signal[inside] = level + noise[inside]
    return np.clip(signal, 0, None), labels


def _ellipsoid(
    x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64], a: float, b: float, c: float
) -> NDArray[np.bool_]:
    turn = np.radians(22)
    u, v = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    return np.asarray((u / a) ** 2 + (v / b) ** 2 + (z / c) ** 2 < 1)
