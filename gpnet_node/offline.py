"""Segments a folder of files without a network, an archive or a database."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from gpnet_node import pipeline
from gpnet_node.config import Configuration, RouteConfig
from gpnet_node.errors import ConfigurationError, NotAVolumeError, StorageError
from gpnet_node.imaging.frames import find_files
from gpnet_node.model.card import ModelCard
from gpnet_node.node import SegmentersOf, gpnet_segmenters
from gpnet_node.parts import now
from gpnet_node.result_profile import USUAL_PROFILE, ResultProfile
from gpnet_node.results.acpc import Plan
from gpnet_node.results.content import Background
from gpnet_node.results.identifiers import JobIdentity
from gpnet_node.results.measure import Measurement
from gpnet_node.results.page.picture import draw

PICTURE = "segmentation.png"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was made of a folder; ``paths``: SEG, report, picture. ``reasons``: why it needs review."""

    paths: tuple[Path, ...]
    card: ModelCard
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]
    reasons: tuple[str, ...]


def segment(
    folder: Path,
    out: Path,
    configuration: Configuration,
    *,
    gate: bool,
    profile: ResultProfile = USUAL_PROFILE,
    plan: Plan | None = None,
    segmenters: SegmentersOf = gpnet_segmenters,
) -> Written:
    """Segment the series in ``folder`` and write the profile's objects and the picture to ``out``.

    Earlier ones of the same names are replaced.

    ``out`` may lie inside ``folder`` and is then not read. Raises NotEligibleError, NotAVolumeError and what
    else ``pipeline.run`` raises, StorageError, and ConfigurationError where ``out`` is ``folder``.
    """
    paths = _images(folder, out)
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
    results = pipeline.run(
        paths,
        job=job,
        routes=routes,
        segmenter_for=segmenter_for,
        profiles_of=lambda _: (profile,),
        background=Background(plan=plan),
    )
    content = results.content
    written = [out / f"{it.name}.dcm" for it in results.objects]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, it in zip(written, results.objects, strict=True):
            path.write_bytes(it.content)
    except OSError as exc:
        raise StorageError(f"{out}: {exc.strerror}") from exc
    draw(content, out / PICTURE)
    return Written(
        paths=(*written, out / PICTURE),
        card=content.card,
        measurements=content.measurements,
        notes=(*results.left_out, *content.gate),
        reasons=content.quality.reasons,
    )


def _images(folder: Path, out: Path) -> list[Path]:
    """The files to read: results of an earlier run in ``out`` are none of the series."""
    inside, whole = out.resolve(), folder.resolve()
    if inside == whole:
        raise ConfigurationError(f"the results need another folder than that of the images, {folder}")
    paths = list(find_files(whole))
    if inside.is_relative_to(whole):
        paths = [path for path in paths if not path.is_relative_to(inside)]
    if not paths:
        raise NotAVolumeError(f"there are no DICOM files in {folder}")
    return paths
