"""The whole route on one machine: a scanner sends a drawn head, a PACS holds its segmentation.

Everything between is real: associations over loopback, the node's own processes, files on disk. Only the head
is drawn: it comes from the shape model that the program ships, so it is nobody's.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage, SegmentationStorage

from gpnet_node.audit.trail import open_trail
from gpnet_node.config import SHIPPED_MODEL, Configuration, NodeConfig, PeerConfig, defaults
from gpnet_node.dimse.sender import Verdict, send
from gpnet_node.dimse.transport import bind, new_listener
from gpnet_node.errors import GpnetError, PeerError, StorageError
from gpnet_node.imaging.series import read_headers, split
from gpnet_node.imaging.volume import LabelMap, assemble
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.drawing import shape
from gpnet_node.model.drawing.drawn_series import write_series
from gpnet_node.model.drawing.head import draw_series
from gpnet_node.model.drawing.pose import Seeds
from gpnet_node.model.drawing.scene import Contrast, DrawSettings, Scene, Visibility
from gpnet_node.model.evaluation.cohort import slab_geometry
from gpnet_node.parts import build, now
from gpnet_node.receiving import build_receiver
from gpnet_node.results.measure import Measurement, measure
from gpnet_node.store.index import Index
from gpnet_node.store.states import JobState
from gpnet_node.supervisor import supervised

SPACING_MM, SLICES = (1.0, 0.4, 0.4), 64  # (slice, row, column): what a 7T T2 slab has
LOOPBACK = "127.0.0.1"
_DEADLINE_SECONDS = 600.0
_MARK = "made-by-gpnet-node-demo"
_ENDED = {JobState.REJECTED, JobState.NEEDS_REVIEW, JobState.FAILED, JobState.PARKED, JobState.CANCELLED}
# A slab like a good 7T T2 TSE: the contrast prior's middle, little noise, a lamina that can be seen.
GOOD_SCAN = Scene(contrast=Contrast.T2, visibility=Visibility.CLEAR)
PLAIN_SHAPE = DrawSettings(
    pallidum_mm3=(1900.0, 2000.0), gpi_share=(0.32, 0.36), border_shift_sd_mm=0.2, elastic_mm=0.4
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What the demonstration made. Segmentation, report and picture are what the PACS holds."""

    series: Path
    segmentation: Path
    report: Path
    picture: Path
    card: ModelCard
    measurements: tuple[Measurement, ...]
    seconds: float  # from the end of the scanner's association to all objects at the PACS


def run(out: Path, *, seed: int, say: Callable[[str], None]) -> Shown:
    """Play scanner, node and PACS; everything is left under ``out``, replacing an earlier demonstration.

    Raises StorageError where the disk does not do its work, PeerError where an object did not arrive, and
    GpnetError with the job's reason where the node did not segment the head.
    """
    _clear(out)
    card = read_card(NodeConfig(archive=out).model_weights / SHIPPED_MODEL)
    say("drawing a 7T-like head on a grid of 0.4 x 0.4 x 1 mm")
    images = draw_head(out / "scanner", card, seed=seed)
    with _pacs(out / "pacs") as (pacs, pacs_port):
        configuration = _configuration(out / "node", pacs_port)
        say("starting the node: receiver, worker, courier")
        with supervised(configuration) as supervisor:
            ports = supervisor.wait_until_ready(seconds=_DEADLINE_SECONDS)
            say(f"the scanner sends {len(images)} images by C-STORE")
            _send(images, next(port for port in ports.values() if port is not None), configuration.node)
            say("the node waits until the series is whole and quiet, segments it and sends the results")
            seconds = _wait_for_delivery(configuration)
        held = _held(pacs, out / "pacs")
    say("reading back what the PACS holds")
    volume = assemble(split(read_headers(images))[0])
    labels = LabelMap(labels=_labels_of(held[SegmentationStorage], volume.geometry), geometry=volume.geometry)
    measurements = measure(volume, labels, card)
    picture = out / "segmentation.png"
    imsave(picture, dcmread(held[SecondaryCaptureImageStorage]).pixel_array)
    return Shown(
        series=out / "scanner",
        segmentation=held[SegmentationStorage],
        report=held[Comprehensive3DSRStorage],
        picture=picture,
        card=card,
        measurements=measurements,
        seconds=seconds,
    )


def draw_head(folder: Path, card: ModelCard, *, seed: int) -> tuple[Path, ...]:
    """Draw a head that never existed and write it as a classic MR series."""
    head = shape.draw(np.random.default_rng(seed))
    geometry = slab_geometry(SPACING_MM, SLICES)
    drawn = draw_series(head, GOOD_SCAN, geometry, card, Seeds.all(seed), PLAIN_SHAPE)
    return write_series(drawn, folder, description="T2 TSE axial (drawn)", at=now())


def _clear(out: Path) -> None:
    """Remove an earlier demonstration, and nothing else."""
    mark = out / _MARK
    if out.exists() and any(out.iterdir()) and not mark.is_file():
        raise StorageError(f"{out} holds something else than an earlier demonstration: name another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mark.write_text("This folder is replaced by every run of gpnet-node demo.\n", encoding="utf-8")


@contextmanager
def _pacs(root: Path) -> Iterator[tuple[Index, int]]:
    """A storage SCP of its own: the node's receiver over another archive. Its index, and its port."""
    sender = PeerConfig(name="node", ae_title="GPNET", may_store=True, accept_other_classes=True)
    node = NodeConfig(ae_title="PACS", host=LOOPBACK, port=0, archive=root)
    parts = build(Configuration(node=node, peers=(sender,), routes=()), owner="demonstration")
    receiver = build_receiver(parts)
    listener = new_listener(LOOPBACK)
    port = bind(listener, LOOPBACK, 0)
    receiver.start(listener)
    try:
        yield parts.index, port
    finally:
        receiver.drain(seconds=5)
        parts.close()


def _configuration(root: Path, pacs_port: int) -> Configuration:
    """The embedded defaults, with a scanner that may store and a PACS to send to."""
    scanner = PeerConfig(name="scanner", ae_title="SCANNER7T", may_store=True)
    pacs = PeerConfig(
        name="pacs", ae_title="PACS", host=LOOPBACK, port=pacs_port, objects=("seg", "sr", "capture")
    )
    plain = defaults(root, peers=(scanner, pacs), destinations=("pacs",))
    node = plain.node.model_copy(update={"host": LOOPBACK, "port": 0, "log_level": "warning"})
    return plain.model_copy(update={"node": node})


def _send(images: Sequence[Path], port: int, node: NodeConfig) -> None:
    there = PeerConfig(name="node", ae_title=node.ae_title, host=LOOPBACK, port=port)
    scanner = NodeConfig(ae_title="SCANNER7T", archive=node.archive)
    trail = open_trail(scanner, owner="scanner", clock=now)
    for outcome in send(there, images, node=scanner, trail=trail):
        if outcome.verdict is not Verdict.DELIVERED:
            raise PeerError(f"the node did not take an image: {outcome.text}")


def _wait_for_delivery(configuration: Configuration) -> float:
    """Watch the job until the PACS has everything; the seconds that took."""
    began = time.monotonic()
    parts = build(configuration, owner="demonstration")
    try:
        while time.monotonic() - began < _DEADLINE_SECONDS:
            for job in parts.jobs.newest(limit=1):
                if job.state is JobState.DELIVERED:
                    return time.monotonic() - began
                if job.state in _ENDED:
                    raise GpnetError(f"the job ended as {job.state}: {job.reason}")
            time.sleep(0.1)
    finally:
        parts.close()
    raise PeerError(f"nothing reached the PACS within {_DEADLINE_SECONDS:g} s")


def _held(pacs: Index, root: Path) -> dict[str, Path]:
    """What the PACS holds, by SOP class."""
    deadline = time.monotonic() + 10  # the archive is ahead of the index by a moment
    while time.monotonic() < deadline:
        held = {
            kept.sop_class_uid: root / kept.path
            for series in pacs.newest_series()
            for kept in pacs.instances(series.uid)
        }
        if held.keys() >= {SegmentationStorage, Comprehensive3DSRStorage, SecondaryCaptureImageStorage}:
            return held
        time.sleep(0.05)
    raise PeerError("the PACS does not hold all objects")


def _labels_of(segmentation: Path, geometry: hd.VolumeGeometry) -> NDArray[np.uint8]:
    """Label map of a SEG file on the grid of its source, (slice, row, column)."""
    volume = hd.seg.segread(segmentation).get_volume(combine_segments=True).match_geometry(geometry)
    labels: NDArray[np.uint8] = np.asarray(volume.array, np.uint8)
    return labels
