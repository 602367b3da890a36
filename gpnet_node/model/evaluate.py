"""How well the weights do on heads drawn from people whose maps were never trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.volume import SourceFrame, Volume
from gpnet_node.model import shape
from gpnet_node.model.card import ModelCard
from gpnet_node.model.head import DrawnHead, draw_series
from gpnet_node.model.segment import GPNetSegmenter
from gpnet_node.model.synthesise import DrawSettings, rotation

# (slice, row, column) spacing in mm and the number of slices of the slabs that are drawn in turn.
SLABS = (
    ((1.0, 0.4, 0.4), 60),
    ((1.0, 0.4, 0.4), 48),
    ((0.8, 0.5, 0.5), 80),
    ((1.5, 0.41, 0.41), 40),
    ((0.7, 0.7, 0.7), 100),
)
FIELD_OF_VIEW_MM = 180.0


@dataclass(frozen=True, kw_only=True)
class Score:
    """One drawn head: Dice of each structure by its name."""

    person: str
    spacing_mm: tuple[float, float, float]
    dice: Mapping[str, float]


def slab_geometry(
    spacing_mm: tuple[float, float, float],
    slices: int,
    *,
    turned: NDArray[np.float64] | None = None,
    centre_mm: Sequence[float] | NDArray[np.float64] = (0.0, 0.0, 0.0),
    frame_of_reference_uid: str = "2.25.1",
) -> hd.VolumeGeometry:
    """An axial slab, (slice, row, column) -> LPS mm, turned about its centre by ``turned`` (3 x 3)."""
    in_plane = round(FIELD_OF_VIEW_MM / spacing_mm[1])
    size = np.array([slices, in_plane, in_plane])
    axes = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # slices up, rows back, columns left
    columns = (np.eye(3) if turned is None else turned) @ axes * np.array(spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = np.asarray(centre_mm) - columns @ ((size - 1) / 2)
    return hd.VolumeGeometry(
        affine=affine,
        spatial_shape=[int(n) for n in size],
        coordinate_system="PATIENT",
        frame_of_reference_uid=frame_of_reference_uid,
    )


def held_out_heads(
    cache: Path, people: Sequence[str], count: int, card: ModelCard
) -> Iterator[tuple[str, DrawnHead]]:
    """7T-like T2 slabs, slightly oblique and off-centre; the same ones every time."""
    settings = DrawSettings(shares=(1.0, 0.0, 0.0, 0.0))
    for number in range(count):
        name = people[number % len(people)]
        rng = np.random.default_rng([20261122, number])
        spacing, slices = SLABS[number % len(SLABS)]
        geometry = slab_geometry(
            spacing,
            slices,
            turned=rotation(rng, 6.0),
            centre_mm=rng.uniform(-8, 8, 3),
            frame_of_reference_uid="2.25.1",
        )
        yield name, draw_series(shape.person(cache, name), rng, geometry, card, settings)


def as_volume(drawn: DrawnHead) -> Volume:
    """A drawn head as the segmenter takes it; its frames name no file."""
    frames = tuple(
        SourceFrame(path=Path("drawn"), sop_class_uid="", sop_instance_uid=f"2.25.{k + 1}", frame_number=None)
        for k in range(len(drawn.voxels))
    )
    return Volume(voxels=drawn.voxels, geometry=drawn.geometry, frames=frames)


def dice(found: NDArray[np.uint8], truth: NDArray[np.uint8], number: int) -> float:
    """2 |A and B| / (|A| + |B|) of one label; 1 where both are empty."""
    a, b = found == number, truth == number
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def score(segmenter: GPNetSegmenter, cache: Path, people: Sequence[str], count: int) -> Iterator[Score]:
    """Segment each test head and compare it with what it was drawn from, on its own grid."""
    for name, drawn in held_out_heads(cache, people, count, segmenter.card):
        found = segmenter.segment(as_volume(drawn)).labels
        yield Score(
            person=name,
            spacing_mm=drawn.geometry.spacing,
            dice={s.name: dice(found, drawn.labels, s.number) for s in segmenter.card.structures},
        )


def summarise(scores: Sequence[Score], card: ModelCard) -> list[dict[str, object]]:
    """Median and range of the Dice of each structure, as the card states them."""
    people = len({s.person for s in scores})
    rows: list[dict[str, object]] = []
    for structure in card.structures:
        values = np.array([s.dice[structure.name] for s in scores])
        rows.append(
            {
                "structure": structure.name,
                "dice_median": round(float(np.median(values)), 3),
                "dice_lowest": round(float(values.min()), 3),
                "dice_highest": round(float(values.max()), 3),
                "images": len(scores),
                "people": people,
            }
        )
    return rows
