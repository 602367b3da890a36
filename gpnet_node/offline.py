"""Segments a folder of files without a network, an archive or a database."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from gpnet_node import pipeline
from gpnet_node.config import Configuration, RouteConfig
from gpnet_node.errors import NotAVolumeError, StorageError
from gpnet_node.imaging.frames import find_files
from gpnet_node.model.card import ModelCard
from gpnet_node.node import SegmentersOf, gpnet_segmenters, now
from gpnet_node.results.identifiers import JobIdentity
from gpnet_node.results.measure import Measurement
from gpnet_node.results.picture import draw

PICTURE = "segmentation.png"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was made of a folder; ``paths``: SEG, report, picture."""

    paths: tuple[Path, ...]
    card: ModelCard
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]


def segment(
    folder: Path,
    out: Path,
    configuration: Configuration,
    *,
    gate: bool,
    segmenters: SegmentersOf = gpnet_segmenters,
) -> Written:
    """Segment the series in ``folder`` and write SEG, report and picture to ``out``, replacing earlier ones.

    Raises NotEligibleError, NotAVolumeError and what else ``pipeline.run`` raises, and StorageError.
    """
    paths = find_files(folder)
    if not paths:
        raise NotAVolumeError(f"there are no DICOM files in {folder}")
    load = cache(lambda: segmenters(configuration))

    def segmenter_for(route: RouteConfig | None) -> pipeline.Segmenter:
        return load()(route)  # not before the gate has spoken

    job = JobIdentity(
        job_uid=f"2.25.{uuid4().int}",
        created_at=configuration.node.local(now()),
        node_ae_title=configuration.node.ae_title,
        software_version=version("gpnet_node"),
    )
    routes = configuration.routes if gate else None
    results = pipeline.run(paths, job=job, routes=routes, segmenter_for=segmenter_for)
    card = segmenter_for(results.route).card
    written = [out / f"{it.kind}.dcm" for it in results.objects]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, it in zip(written, results.objects, strict=True):
            path.write_bytes(it.content)
    except OSError as exc:
        raise StorageError(f"{out}: {exc.strerror}") from exc
    draw(results.volume, results.labels, card, out / PICTURE, results.measurements)
    return Written(
        paths=(*written, out / PICTURE),
        card=card,
        measurements=results.measurements,
        notes=results.notes,
    )
