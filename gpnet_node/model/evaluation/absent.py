"""Images without a whole pallidum, on which none may be claimed: phantoms, and slabs beside or through it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np

from gpnet_node.imaging.volume import Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.model.drawing.head import DrawnHead, FineTruth, nothing
from gpnet_node.model.evaluation.cohort import TEST_PEOPLE, Case, as_volume, cases, draw, slab_geometry, turn

_PHANTOMS, _BESIDE, _CUTTING = 40, 40, 20
_SPACING_MM = (1.2, 0.9, 0.9)
_PHANTOM_SHAPE = (56, 200, 200)


class Absent(StrEnum):
    """Why there is no whole pallidum."""

    PHANTOM = "phantom"
    BESIDE = "slab ending 2-20 mm from it"
    CUTTING = "slab cutting it"


@dataclass(frozen=True, kw_only=True, eq=False)
class AbsentImage:
    """One image. ``volume`` is drawn when it is asked for."""

    name: str
    kind: Absent
    volume: Callable[[], Volume]


def absent_images(cache: Path, card: ModelCard) -> Iterator[AbsentImage]:
    """The hundred images, always the same ones: 40 phantoms, 40 slabs beside, 20 slabs cutting a pallidum."""
    for number in range(_PHANTOMS):
        yield AbsentImage(
            name=f"p{number + 1:02d}",
            kind=Absent.PHANTOM,
            volume=partial(_phantom, number),
        )
    rng = np.random.default_rng([20261122, 8])
    drawn = cases(TEST_PEOPLE, _BESIDE + _CUTTING, seed=5, prefix="n")
    truths: dict[str, Mapping[str, FineTruth]] = {}
    for number, case in enumerate(drawn):
        if case.person not in truths:
            truths[case.person] = _truth(case, cache, card)
        kind = Absent.BESIDE if number < _BESIDE else Absent.CUTTING
        placed = place(case, truths[case.person], kind, rng)
        yield AbsentImage(name=case.name, kind=kind, volume=partial(_slab, placed, cache, card))


def place(case: Case, truth: Mapping[str, FineTruth], kind: Absent, rng: np.random.Generator) -> Case:
    """The case as a slab of 30-60 mm that ends beside both pallida, or whose edge cuts both of them.

    Slabs are axial or coronal, and lie on either side.
    """
    turned = (90.0, 0.0, 0.0) if rng.random() < 0.3 else (0.0, 0.0, 0.0)
    tilt = tuple(a + b for a, b in zip(turned, rng.uniform(-6, 6, 3), strict=True))
    tilted = (tilt[0], tilt[1], tilt[2])
    normal = turn(tilted)[:, 2]
    along = [side.places_mm @ normal for side in truth.values()]
    upper = bool(rng.random() < 0.5)
    if kind is Absent.BESIDE:
        gap_mm = float(rng.uniform(2, 20))
        low, high = (float(end(np.concatenate(along))) for end in (np.min, np.max))
        edge = high + gap_mm if upper else low - gap_mm
    else:
        edge = float(np.mean([np.quantile(a, rng.uniform(0.35, 0.65)) for a in along]))
    extent_mm = float(rng.uniform(30, 60))
    slices = round(extent_mm / _SPACING_MM[0])
    reach = slices * _SPACING_MM[0] / 2
    centre = normal * (edge + reach if upper else edge - reach)
    return replace(
        case,
        spacing_mm=_SPACING_MM,
        slices=slices,
        turned_degrees=tilted,
        centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
    )


def phantom(rng: np.random.Generator) -> Volume:
    """A plain bottle or sphere, one with balls in it, or one with bars: what is scanned where nobody lies.

    Not drawn by what the localiser is trained on.
    """
    z, y, x = np.meshgrid(
        *((np.arange(n) - n / 2) * s for n, s in zip(_PHANTOM_SHAPE, _SPACING_MM, strict=True)), indexing="ij"
    )
    radius = float(rng.uniform(55, 85))
    flat = float(rng.uniform(0.0, 1.0))  # 0: a bottle that runs through all slices; 1: a sphere
    inside = np.sqrt(x**2 + y**2 + flat * z**2) < radius
    image = inside * float(rng.uniform(0.6, 1.0))
    kind = int(rng.integers(3))
    if kind == 1:
        for _ in range(int(rng.integers(2, 9))):
            at, size = rng.uniform(-40, 40, 3) * [0.5, 1, 1], float(rng.uniform(4, 18))
            ball = np.sqrt((z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2) < size
            image[ball & inside] = rng.uniform(0.05, 1.6)
    elif kind == 2:
        pitch, width = float(rng.uniform(8, 20)), float(rng.uniform(1.5, 4))
        bars = (np.mod(x, pitch) < width) | (np.mod(y, pitch) < width)
        image[bars & inside] = rng.uniform(0.05, 0.4)
    noise = rng.standard_normal((2, *_PHANTOM_SHAPE)) * float(rng.uniform(0.01, 0.06))
    voxels = (1500 * np.hypot(image + noise[0], noise[1])).astype(np.float32)
    geometry = slab_geometry(_SPACING_MM, _PHANTOM_SHAPE[0])
    empty = DrawnHead(voxels=voxels, labels=np.zeros(_PHANTOM_SHAPE, np.uint8), geometry=geometry, truth={})
    return as_volume(empty)


def _phantom(number: int) -> Volume:
    return phantom(np.random.default_rng([20261122, 7, number]))


def _slab(case: Case, cache: Path, card: ModelCard) -> Volume:
    return as_volume(draw(case, cache, card))


def _truth(case: Case, cache: Path, card: ModelCard) -> Mapping[str, FineTruth]:
    """Where the person's pallida lie, without an image of them."""
    small = replace(case, spacing_mm=(20.0, 20.0, 20.0), slices=3)
    return draw(small, cache, card, renderer=nothing).truth
