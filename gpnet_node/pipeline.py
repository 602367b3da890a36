"""The main path: files of one series in, checked result objects out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom import Dataset

from gpnet_node.config import RouteConfig
from gpnet_node.errors import NotEligibleError
from gpnet_node.imaging import gate, series
from gpnet_node.imaging.volume import LabelMap, Volume, assemble
from gpnet_node.model.card import ModelCard
from gpnet_node.model.segmentation import Quality, Segmentation
from gpnet_node.results import selfcheck
from gpnet_node.results.header import encode
from gpnet_node.results.identifiers import JobIdentity
from gpnet_node.results.measure import Measurement, measure
from gpnet_node.results.report import write_report
from gpnet_node.results.seg import write_seg


class Segmenter(Protocol):
    """Anything that segments a volume: here GP-net on this machine."""

    @property
    def card(self) -> ModelCard:
        """The structures that its label maps hold."""

    def segment(self, volume: Volume) -> Segmentation:
        """Label map on exactly the volume's grid, and how far to trust it. Raises NoPallidumError."""


@dataclass(frozen=True, kw_only=True)
class WrittenObject:
    """One DICOM object as the bytes of its Part 10 file. ``kind``: ``seg`` or ``sr``."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    content: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What one series became. ``route`` is None when the gate was not asked.

    Where ``quality`` has reasons, a person must look at the objects before they leave.
    """

    route: RouteConfig | None
    notes: tuple[str, ...]
    volume: Volume
    labels: LabelMap
    quality: Quality
    measurements: tuple[Measurement, ...]
    objects: tuple[WrittenObject, ...]


def run(
    paths: Sequence[Path],
    *,
    job: JobIdentity,
    routes: Sequence[RouteConfig] | None,
    segmenter_for: Callable[[RouteConfig | None], Segmenter],
) -> Results:
    """Segment one series; ``routes`` None leaves the gate out.

    Raises NotEligibleError with the gate's reasons, NotAVolumeError or UnreadableInstanceError for a series
    that cannot be assembled, NoPallidumError, and SelfCheckError when an object disagrees with the label map.
    """
    stacks = series.split(series.read_headers(paths))
    if routes is None:
        chosen = series.choose(stacks)
        decision = gate.Decision(stack=chosen, route=None, notes=tuple(gate.notes_on(chosen)))
    else:
        decision = gate.decide(stacks, routes)
    if decision.stack is None:
        raise NotEligibleError(decision.reasons)
    volume = assemble(decision.stack)
    segmenter = segmenter_for(decision.route)
    segmentation = segmenter.segment(volume)
    labels, quality = segmentation.labels, segmentation.quality
    measurements = measure(volume, labels, segmenter.card)
    seg = write_seg(volume, labels, segmenter.card, job)
    notes = (*decision.notes, *(f"Needs review: {reason}." for reason in quality.reasons))
    report = write_report(volume, labels, measurements, seg, segmenter.card, job, notes=notes)
    objects = (_written("seg", seg), _written("sr", report))
    selfcheck.check(objects[0].content, objects[1].content, volume, labels, measurements, segmenter.card)
    return Results(
        route=decision.route,
        notes=decision.notes,
        volume=volume,
        labels=labels,
        quality=quality,
        measurements=measurements,
        objects=objects,
    )


def _written(kind: str, dataset: Dataset) -> WrittenObject:
    return WrittenObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        content=encode(dataset),
    )
