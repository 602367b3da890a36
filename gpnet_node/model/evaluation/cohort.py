"""The fixed cohorts that results are told of: drawn images of people whose maps were never trained on.

A person's shape is fixed, so that one whole-head T1 and all of a person's slabs lie in one patient space; the
GPi/GPe border, the contrast, the slab and all else vary from case to case. Every case follows from its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.volume import SourceFrame, Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.model.drawing import shape
from gpnet_node.model.drawing.head import DrawnHead, Renderer, draw_series
from gpnet_node.model.drawing.pose import Seeds
from gpnet_node.model.drawing.scene import Artefact, Contrast, DrawSettings, Lesion, Scene, Visibility

# Kept apart since before the first training.
TRAIN_PEOPLE = ("01", "02", "04", "05", "06", "07", "09", "10", "13", "15", "16")
VALIDATE_PEOPLE = ("03", "08", "17")
TEST_PEOPLE = ("11", "12", "14", "18", "19", "20")
TEST_IMAGES = 43
DEGRADED_IMAGES, VALIDATION_IMAGES = 24, 48

FIELD_OF_VIEW_MM = 180.0
_HEAD_FIELD_MM, _HEAD_SPACING_MM, _HEAD_SLICES = 216.0, 0.8, 200
_HEAD_CENTRE_MM = (0.0, 10.0, 8.0)  # of the whole head, seen from between the pallida
_T = TypeVar("_T")
_TALL_MM = 30.0  # what a slab must hold: both pallida and 3 mm around them
_VISIBILITY_SHARES = {
    Visibility.CLEAR: 0.30,
    Visibility.PARTIAL: 0.35,
    Visibility.FAINT: 0.20,
    Visibility.ABSENT: 0.15,
}
_CONTRAST_SHARES = {Contrast.T2: 0.66, Contrast.T2STAR: 0.17, Contrast.T1: 0.17}
_WIDE_VENTRICLES_MM = {"12": 3.0, "19": 1.5, "08": 2.5}  # part of a person's shape
_LESION_SHARE, _ARTEFACT_SHARE = 0.28, 0.20
# (slice, row, column) spacing and the extent across the slices, mm.
_SLABS = (
    ((1.0, 0.39, 0.39), 40.0),
    ((1.0, 0.39, 0.39), 60.0),
    ((1.2, 0.3, 0.3), 36.0),
    ((0.8, 0.5, 0.5), 64.0),
    ((0.7, 0.7, 0.7), 110.0),
    ((1.0, 0.4, 0.4), 50.0),
    ((1.2, 0.6, 0.6), 84.0),
    ((0.5, 0.5, 0.5), 30.0),
    ((0.6, 0.6, 0.6), 72.0),
    ((1.0, 0.8, 0.8), 96.0),
    ((1.2, 1.2, 1.2), 60.0),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image of a cohort. ``spacing_mm``: slice, row, column. ``turned_degrees``: about x, y and z.

    ``border``: the atlas whose GPi/GPe border is taken as it is; by default one drawn as in training.
    """

    name: str
    person: str
    seed: int
    scene: Scene
    spacing_mm: tuple[float, float, float]
    slices: int
    field_mm: float = FIELD_OF_VIEW_MM
    turned_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    border: str | None = None

    @property
    def geometry(self) -> hd.VolumeGeometry:
        """The scanner's grid in the person's patient space, whose origin lies between the pallida."""
        return slab_geometry(
            self.spacing_mm,
            self.slices,
            field_mm=self.field_mm,
            turned=turn(self.turned_degrees),
            centre_mm=self.centre_mm,
        )


def slab_geometry(
    spacing_mm: tuple[float, float, float],
    slices: int,
    *,
    field_mm: float = FIELD_OF_VIEW_MM,
    turned: NDArray[np.float64] | None = None,
    centre_mm: Sequence[float] | NDArray[np.float64] = (0.0, 0.0, 0.0),
    frame_of_reference_uid: str = "2.25.1",
) -> hd.VolumeGeometry:
    """An axial slab, (slice, row, column) -> LPS mm, turned about its centre by ``turned`` (3 x 3)."""
    in_plane = round(field_mm / spacing_mm[1])
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


def turn(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Rotation by angles about the patient's x, y and z axes, in that order; 3 x 3."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one = np.eye(3)
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turned = one @ turned
    return turned


def as_volume(drawn: DrawnHead) -> Volume:
    """A drawn head as the segmenter takes it; its frames name no file."""
    frames = tuple(
        SourceFrame(path=Path("drawn"), sop_class_uid="", sop_instance_uid=f"2.25.{k + 1}", frame_number=None)
        for k in range(len(drawn.voxels))
    )
    return Volume(voxels=drawn.voxels, geometry=drawn.geometry, frames=frames)


def cases(people: Sequence[str], count: int, *, seed: int, prefix: str = "a") -> tuple[Case, ...]:
    """``count`` cases that take the people in turn, conditions at fixed shares; always the same ones."""
    rng = np.random.default_rng([20261122, seed])
    contrasts = _shuffled(rng, list(_CONTRAST_SHARES), list(_CONTRAST_SHARES.values()), count)
    visibilities = _shuffled(rng, list(_VISIBILITY_SHARES), list(_VISIBILITY_SHARES.values()), count)
    lesions = _shuffled(rng, [None, *Lesion], _with_none(_LESION_SHARE, len(Lesion)), count)
    artefacts = _shuffled(rng, [None, *Artefact], _with_none(_ARTEFACT_SHARE, len(Artefact)), count)
    slabs = _shuffled(rng, list(_SLABS), [1.0] * len(_SLABS), count)
    drawn = []
    for number in range(count):
        spacing, extent_mm = slabs[number]
        room_mm = extent_mm - _TALL_MM
        tilt = min(10.0, room_mm / 3)  # both pallida reach 30 mm sideways
        lesion = lesions[number]
        scene = Scene(
            contrast=contrasts[number],
            visibility=visibilities[number],
            age_years=round(float(rng.uniform(22, 84)), 1),
            lesions=() if lesion is None else (lesion,),
            lesion_sides=(("left",), ("right",), ("left", "right"))[int(rng.integers(3))],
            artefact=artefacts[number],
            ventricle_mm=_WIDE_VENTRICLES_MM.get(people[number % len(people)], 0.0),
            drop_out=round(float(rng.uniform(0.2, 0.5)), 2) if rng.random() < 0.25 else 0.0,
            bias=round(float(rng.uniform(0.05, 0.35)), 2),
            snr=round(float(rng.uniform(10, 36)), 1),
        )
        person = people[number % len(people)]
        drawn.append(
            Case(
                name=f"{prefix}{number + 1:02d}",
                person=person,
                seed=1000 * seed + number,
                scene=scene,
                spacing_mm=spacing,
                slices=round(extent_mm / spacing[0]),
                turned_degrees=_triple(rng.uniform(-1, 1, 3) * [tilt, tilt, 10.0]),
                centre_mm=_triple(rng.uniform(-1, 1, 3) * [12.0, 12.0, 0.2 * room_mm]),
            )
        )
    return tuple(drawn)


def set_a() -> tuple[Case, ...]:
    """Set A: 43 images of the 6 test people."""
    return cases(TEST_PEOPLE, TEST_IMAGES, seed=1)


def validation() -> tuple[Case, ...]:
    """Images of the 3 validation people, on which settings are chosen and the predicted Dice is fitted."""
    return cases(VALIDATE_PEOPLE, VALIDATION_IMAGES, seed=2, prefix="v")


def degraded(people: Sequence[str], *, seed: int, count: int = DEGRADED_IMAGES) -> tuple[Case, ...]:
    """Images so poor that the true Dice spans 0 to 0.95: what a predicted Dice is judged by."""
    rng = np.random.default_rng([20261122, seed, 1])
    poor = []
    for case in cases(people, count, seed=seed, prefix="d"):
        scene = replace(
            case.scene,
            contrast=Contrast.RANDOM if rng.random() < 0.25 else case.scene.contrast,
            snr=round(float(np.exp(rng.uniform(np.log(0.6), np.log(8.0)))), 2),
            bias=round(float(rng.uniform(0.2, 1.0)), 2),
            drop_out=round(float(rng.uniform(0.3, 0.9)), 2) if rng.random() < 0.5 else 0.0,
            artefact=list(Artefact)[int(rng.integers(len(Artefact)))] if rng.random() < 0.5 else None,
        )
        poor.append(replace(case, scene=scene))
    return tuple(poor)


def set_b(count: int = 18) -> tuple[Case, ...]:
    """Set B: the test people with CIT168's border, which nothing was trained on."""
    return tuple(replace(c, border="cit168") for c in cases(TEST_PEOPLE, count, seed=3, prefix="b"))


def set_c(count: int = 18) -> tuple[Case, ...]:
    """Set C: the test people, for a second renderer."""
    return cases(TEST_PEOPLE, count, seed=4, prefix="c")


def control_of(case: Case) -> Case:
    """The same head redrawn without lamina and without GPi/GPe contrast."""
    scene = replace(case.scene, visibility=Visibility.ABSENT, segments_differ=False)
    return replace(case, name=f"{case.name}-control", scene=scene)


def whole_head(person: str) -> Case:
    """The person's whole head at 0.8 mm, T1: what an atlas is registered to."""
    return Case(
        name=f"t1-{person}",
        person=person,
        seed=0,
        scene=Scene(
            contrast=Contrast.T1,
            visibility=Visibility.CLEAR,
            ventricle_mm=_WIDE_VENTRICLES_MM.get(person, 0.0),
            bias=0.1,
            snr=30.0,
        ),
        spacing_mm=(_HEAD_SPACING_MM,) * 3,
        slices=_HEAD_SLICES,
        field_mm=_HEAD_FIELD_MM,
        centre_mm=_HEAD_CENTRE_MM,
    )


def draw(
    case: Case,
    cache: Path,
    card: ModelCard,
    *,
    renderer: Renderer | None = None,
    settings: DrawSettings | None = None,
) -> DrawnHead:
    """The image of a case, with its truth; ``cache`` holds the people's anatomies (``atlas.build``)."""
    return draw_series(
        shape.person(cache, case.person),
        case.scene,
        case.geometry,
        card,
        Seeds(shape=int(case.person), border=case.seed, image=case.seed),
        settings or DrawSettings(),
        border=case.border,
        renderer=renderer,
    )


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 2) for v in values)
    return x, y, z


def _with_none(share: float, kinds: int) -> list[float]:
    return [1 - share] + [share / kinds] * kinds


def _shuffled(rng: np.random.Generator, values: list[_T], shares: list[float], count: int) -> list[_T]:
    """``count`` values in random order, each as often as its share says (largest remainders)."""
    exact = np.array(shares) / sum(shares) * count
    times = np.floor(exact).astype(int)
    times[np.argsort(times - exact, kind="stable")[: count - times.sum()]] += 1
    chosen = [value for value, n in zip(values, times, strict=True) for _ in range(n)]
    return [chosen[i] for i in rng.permutation(count)]
