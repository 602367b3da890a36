"""Anatomies for the generator: people's label maps, their pallidum divided by histological atlases.

Sources: SynthSeg training maps (Billot 2023, Apache-2.0), the Allen Human Reference Atlas (Ding 2016,
CC BY 4.0) and the BigBrain subcortical atlas (Xiao 2019, CC BY 4.0).
CIT168 is kept out of training: its border is built for the people under test only, and judges the result.

Each side is a box in patient axes; right sides are mirrored, so every box shows a left pallidum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.errors import InputError
from gpnet_node.model.drawing import registration
from gpnet_node.model.drawing.registration import BOX_SHAPE, BOX_SPACING_MM, CARRIED, Guide, Parts
from gpnet_node.model.drawing.tissue import FREESURFER_TISSUE, HEAD_TISSUE_OFFSET, Tissue
from gpnet_node.model.patient_grid import lps_grid

HEAD_SPACING_MM = 1.0
PALLIDUM = {"left": 13, "right": 52}
BORDERS = ("allen", "bigbrain")  # the atlases whose borders are trained on
JUDGE = "cit168"
GPI_SHARE_OF_AN_ATLAS = (0.15, 0.55)  # of the pallidum; outside of it the registration has missed
LEAST_OVERLAP = 0.70  # Dice of the carried pallidum with the person's; below it the registration has missed
_DEEP = (Tissue.VENTRAL_DIENCEPHALON, Tissue.BRAINSTEM, Tissue.WHITE_MATTER, Tissue.THALAMUS)
_TRACT = (Tissue.WHITE_MATTER, Tissue.VENTRAL_DIENCEPHALON, Tissue.LIMBIC)
_HOSTS: dict[Tissue, tuple[Tissue, ...]] = {  # whose voxels a carried structure may take
    Tissue.STN: _DEEP,
    Tissue.SUBSTANTIA_NIGRA: _DEEP,
    Tissue.RED_NUCLEUS: _DEEP,
    Tissue.ZONA_INCERTA: _DEEP,
    Tissue.CLAUSTRUM: (Tissue.WHITE_MATTER,),
    Tissue.ANTERIOR_COMMISSURE: _TRACT,
    Tissue.OPTIC_TRACT: _TRACT,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """One person's side.

    ``tissue``: uint8 (z, y, x) of :class:`Tissue` in LPS axes (x grows to the left); the pallidum is all GPE.
    ``border``: one float32 map per atlas, mm, positive towards GPi: zero is that atlas's GPi/GPe interface.
    """

    person: str
    side: str
    tissue: NDArray[np.uint8]
    border: Mapping[str, NDArray[np.float32]]


def build(
    atlases: Path,
    people: Sequence[str],
    cache: Path,
    progress: Callable[[str], None],
    *,
    judged: Sequence[str] = (),
) -> None:
    """Write ``cache/PERSON.npz`` for each person that is not there yet (about half a minute a person).

    ``judged``: people who also get the border of CIT168; never people who are trained on.
    Raises InputError where no registration fits a person. Needs the ``train`` extra.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [person for person in people if not (cache / f"{person}.npz").exists()]
    atlas_of = {"bigbrain": registration.BIGBRAIN, JUDGE: registration.CIT168}
    guide = registration.read_guide(atlases, atlas_of) if missing else None
    for person in people:
        if guide and person in missing:
            labels = registration.read(atlases / "synthseg" / f"training_seg_{person}.nii.gz")
            arrays: dict[str, NDArray[np.generic]] = dict(_head(labels))
            for side in PALLIDUM:
                borders = (*BORDERS, JUDGE) if person in judged else BORDERS
                arrays |= _side(labels, f"{person} {side}", side, guide, borders)
            target = cache / f"{person}.npz"
            partial = target.with_suffix(".partial.npz")
            np.savez_compressed(partial, allow_pickle=False, **arrays)
            partial.rename(target)
        progress(person)


def load(cache: Path, person: str) -> tuple[Anatomy, ...]:
    """Both sides of one person."""
    with np.load(cache / f"{person}.npz", allow_pickle=False) as data:
        return tuple(
            Anatomy(
                person=person,
                side=side,
                tissue=data[f"{side}_tissue"],
                border={
                    name: data[f"{side}_border_{name}"].astype(np.float32)
                    for name in (*BORDERS, JUDGE)
                    if f"{side}_border_{name}" in data
                },
            )
            for side in PALLIDUM
        )


def load_head(cache: Path, person: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Whole head: tissue (z, y, x) at 1 mm in LPS axes; left and right pallidum's centres, voxels (2, 3)."""
    with np.load(cache / f"{person}.npz", allow_pickle=False) as data:
        return data["head_tissue"], data["head_centres"]


def _head(labels: sitk.Image) -> dict[str, NDArray[np.generic]]:
    size = [
        round(n * s / HEAD_SPACING_MM) for n, s in zip(labels.GetSize(), labels.GetSpacing(), strict=True)
    ]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing([HEAD_SPACING_MM] * 3)
    grid.SetOrigin(labels.GetOrigin())
    small = sitk.GetArrayFromImage(sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor))
    table = np.zeros(1024, np.uint8)
    for label in np.unique(small):
        table[label] = FREESURFER_TISSUE.get(int(label), HEAD_TISSUE_OFFSET + int(label) % 16 if label else 0)
    centres = [np.argwhere(small == label).mean(0) for label in PALLIDUM.values()]
    return {"head_tissue": table[small], "head_centres": np.array(centres)}


def _side(
    labels: sitk.Image, name: str, side: str, guide: Guide, borders: Sequence[str]
) -> dict[str, NDArray[np.generic]]:
    mask = sitk.GetArrayFromImage(labels) == PALLIDUM[side]
    grid = lps_grid(registration.centre_of(mask, labels), BOX_SPACING_MM, BOX_SHAPE)
    tissue = _smooth_tissue(labels, grid)
    if side == "right":
        tissue = np.ascontiguousarray(tissue[:, :, ::-1])
    tissue[_other_side(tissue)] = Tissue.WHITE_MATTER  # the guide has one side: it must find no second one
    carried = registration.carry(guide, tissue)
    pallidum = tissue == Tissue.GPE
    arrays: dict[str, NDArray[np.generic]] = {
        f"{side}_border_{atlas}": _border(carried[atlas], pallidum, f"{atlas} on {name}") for atlas in borders
    }
    for kind in CARRIED:
        tissue[(carried["allen"][kind] > 0.5) & np.isin(tissue, _HOSTS[kind])] = kind
    tissue[_internal_capsule(tissue)] = Tissue.INTERNAL_CAPSULE
    return arrays | {f"{side}_tissue": tissue}


def _border(parts: Parts, pallidum: NDArray[np.bool_], what: str) -> NDArray[np.float16]:
    """Half the difference of the distances to GPe and GPi: the lamina goes to the nearer segment.

    Raises InputError where the carried pallidum misses the person's.
    """
    gpe, gpi = _distance(parts[Tissue.GPE]), _distance(parts[Tissue.GPI])
    border = (gpe - gpi) / 2
    whole = np.minimum(gpe, gpi) < 0.7  # half of the lamina that some atlases leave free between the two
    overlap = 2 * float((whole & pallidum).sum()) / float(whole.sum() + pallidum.sum())
    share = float((border[pallidum] > 0).mean())
    if overlap < LEAST_OVERLAP or not GPI_SHARE_OF_AN_ATLAS[0] < share < GPI_SHARE_OF_AN_ATLAS[1]:
        raise InputError(f"{what}: registration missed (Dice {overlap:.2f}, GPi share {share:.2f})")
    return border.astype(np.float16)


def _smooth_tissue(labels: sitk.Image, grid: sitk.Image) -> NDArray[np.uint8]:
    """A finer grid without 1 mm staircases: smoothed signed distances are interpolated, the nearest wins."""
    crop = _around(labels, grid)
    array = sitk.GetArrayFromImage(crop)
    kinds = {int(v): FREESURFER_TISSUE.get(int(v), Tissue.BACKGROUND) for v in np.unique(array)}
    best = np.full(grid.GetSize()[::-1], np.inf, np.float32)
    tissue = np.zeros(best.shape, np.uint8)
    for kind in sorted(set(kinds.values())):
        mask = sitk.GetImageFromArray(
            np.isin(array, [v for v, k in kinds.items() if k == kind]).astype(np.uint8)
        )
        mask.CopyInformation(crop)
        away = sitk.SignedMaurerDistanceMap(mask, False, False, True)
        smooth = sitk.Resample(
            sitk.SmoothingRecursiveGaussian(away, 0.7), grid, sitk.Transform(), sitk.sitkLinear, 100.0
        )
        value = sitk.GetArrayFromImage(smooth)
        wins = value < best
        best[wins], tissue[wins] = value[wins], kind
    return tissue


def _around(labels: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """The map's own voxels that a grid covers: none is moved by resampling."""
    ends = [grid.GetSize()[axis] - 1 for axis in range(3)]
    corners = [[(index >> axis & 1) * ends[axis] for axis in range(3)] for index in range(8)]
    found = np.array(
        [
            labels.TransformPhysicalPointToContinuousIndex(grid.TransformIndexToPhysicalPoint(corner))
            for corner in corners
        ]
    )
    low = np.floor(found.min(0) - 2).astype(int).clip(0)
    high = np.minimum(np.ceil(found.max(0) + 3).astype(int), labels.GetSize())
    return labels[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]


def _distance(part: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed distance to the half level, mm, negative inside."""
    mask = sitk.GetImageFromArray((part > 0.5).astype(np.uint8))
    mask.SetSpacing([BOX_SPACING_MM] * 3)
    return np.asarray(
        sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, False, False, True)), np.float32
    )


def _other_side(tissue: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """What of the other side's pallidum reaches into the box: all but the largest component."""
    components = cc3d.connected_components(tissue == Tissue.GPE, connectivity=26)
    largest = 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
    return np.asarray((components > 0) & (components != largest))


def _internal_capsule(tissue: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """White matter that lies between lentiform nucleus and thalamus or caudate."""
    lentiform = _distance(np.isin(tissue, (Tissue.GPE, Tissue.PUTAMEN)).astype(np.float32))
    medial = _distance(np.isin(tissue, (Tissue.THALAMUS, Tissue.CAUDATE)).astype(np.float32))
    return np.asarray((tissue == Tissue.WHITE_MATTER) & (lentiform + medial < 9.0))
