"""Anatomies for the generator: people's label maps, their pallidum divided by histological atlases.

Sources: SynthSeg training maps (Billot 2023, Apache-2.0), the Allen Human Reference Atlas (Ding 2016,
CC BY 4.0) and the BigBrain subcortical atlas (Xiao 2019, CC BY 4.0).
CIT168 is kept out: it judges the result.

Each side is a box in patient axes; right sides are mirrored, so every box shows a left pallidum.
Needs the ``train`` extra (antspyx).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.errors import InputError
from gpnet_node.model.patient_grid import lps_grid
from gpnet_node.model.tissue import FREESURFER_TISSUE, HEAD_TISSUE_OFFSET, Tissue

BOX_SPACING_MM = 0.6
BOX_SHAPE = (112, 128, 112)  # (z, y, x): the network's box and a margin for deformation
HEAD_SPACING_MM = 1.0
PALLIDUM = {"left": 13, "right": 52}
GPI_SHARE_OF_AN_ATLAS = (0.15, 0.55)  # of the pallidum; outside of it the registration has missed
_CARRIED = (Tissue.STN, Tissue.SUBSTANTIA_NIGRA, Tissue.RED_NUCLEUS)


@dataclass(frozen=True, kw_only=True)
class AtlasLabels:
    """Label numbers of one atlas, left side of the brain."""

    file: str
    groups: dict[Tissue, tuple[int, ...]]
    right_differs: bool  # sides have numbers of their own; otherwise the map is cut at x = 0


ATLASES = {
    "allen": AtlasLabels(
        file="allen/AllenAtlas.nii.gz",
        right_differs=False,
        groups={
            Tissue.PUTAMEN: (9,),
            Tissue.CAUDATE: (6, 7, 8),
            Tissue.GPE: (11,),
            Tissue.GPI: (12,),
            Tissue.THALAMUS: tuple(range(27, 42)),
            Tissue.STN: (45,),
            Tissue.RED_NUCLEUS: (113,),
            Tissue.SUBSTANTIA_NIGRA: (114,),
        },
    ),
    "bigbrain": AtlasLabels(
        file="bigbrain/bigbrain.nii.gz",
        right_differs=True,
        groups={
            Tissue.PUTAMEN: (9,),
            Tissue.CAUDATE: (7,),
            Tissue.GPE: (11,),
            Tissue.GPI: (13,),
            Tissue.THALAMUS: (15,),
            Tissue.STN: (5,),
            Tissue.RED_NUCLEUS: (1,),
            Tissue.SUBSTANTIA_NIGRA: (3,),
        },
    ),
}
# What the registration sees of each structure: far apart, so that mean squares pulls like to like.
_CONTRAST = {Tissue.PUTAMEN: 2.0, Tissue.CAUDATE: 1.0, Tissue.THALAMUS: 3.0, Tissue.GPE: 5.0, Tissue.GPI: 5.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """One person's side.

    ``tissue``: uint8 (z, y, x) of :class:`Tissue` in LPS axes (x grows to the left); the pallidum is all GPE.
    ``border``: one float16 map per atlas, mm, positive towards GPi: zero is that atlas's GPi/GPe interface.
    """

    person: str
    side: str
    tissue: NDArray[np.uint8]
    border: dict[str, NDArray[np.float16]]


def build(atlases: Path, people: Sequence[str], cache: Path, progress: Callable[[str], None]) -> None:
    """Write ``cache/PERSON.npz`` for each person that is not there yet (about ten seconds a person)."""
    cache.mkdir(parents=True, exist_ok=True)
    parts = {name: _read_parts(atlases, atlas) for name, atlas in ATLASES.items()}
    for person in people:
        target = cache / f"{person}.npz"
        if not target.exists():
            labels = _read(atlases / "synthseg" / f"training_seg_{person}.nii.gz")
            arrays: dict[str, NDArray[np.generic]] = dict(_head(labels))
            for side in PALLIDUM:
                arrays |= _side(labels, side, parts)
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
                border={name: data[f"{side}_border_{name}"] for name in ATLASES},
            )
            for side in PALLIDUM
        )


def load_head(cache: Path, person: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Whole head: tissue (z, y, x) at 1 mm in LPS axes; left and right pallidum's centres, voxels (2, 3)."""
    with np.load(cache / f"{person}.npz", allow_pickle=False) as data:
        return data["head_tissue"], data["head_centres"]


def _read(path: Path) -> sitk.Image:
    """Axes turned to LPS, so that array axes are (z, y, x) of the patient."""
    return sitk.DICOMOrient(sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkUInt16), "LPS")


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
    labels: sitk.Image, side: str, parts: dict[str, dict[Tissue, NDArray[np.float32]]]
) -> dict[str, NDArray[np.generic]]:
    grid = lps_grid(
        _centre(sitk.GetArrayFromImage(labels) == PALLIDUM[side], labels), BOX_SPACING_MM, BOX_SHAPE
    )
    tissue = _smooth_tissue(labels, grid)
    if side == "right":
        tissue = np.ascontiguousarray(tissue[:, :, ::-1])
    tissue[_other_side(tissue)] = Tissue.WHITE_MATTER  # the atlas has one side: it must find no second one
    borders: dict[str, NDArray[np.float16]] = {}
    pallidum = tissue == Tissue.GPE
    for name in ATLASES:
        carried = _carry(parts[name], tissue)
        borders[name] = ((_distance(carried[Tissue.GPE]) - _distance(carried[Tissue.GPI])) / 2).astype(
            np.float16
        )
        if name == "bigbrain":
            hosts = (Tissue.VENTRAL_DIENCEPHALON, Tissue.BRAINSTEM, Tissue.WHITE_MATTER)
            for nucleus in _CARRIED:
                tissue[(carried[nucleus] > 0.5) & np.isin(tissue, hosts)] = nucleus
    tissue[_internal_capsule(tissue)] = Tissue.INTERNAL_CAPSULE
    tissue[pallidum] = Tissue.GPE
    kept = _trusted(borders, pallidum)
    return {f"{side}_border_{name}": border for name, border in kept.items()} | {f"{side}_tissue": tissue}


def _centre(mask: NDArray[np.bool_], image: sitk.Image) -> tuple[float, ...]:
    centre: tuple[float, ...] = image.TransformContinuousIndexToPhysicalPoint(
        [float(v) for v in np.argwhere(mask).mean(0)[::-1]]
    )
    return centre


def _smooth_tissue(labels: sitk.Image, grid: sitk.Image) -> NDArray[np.uint8]:
    """A finer grid without 1 mm staircases: smoothed indicators are interpolated, the largest wins."""
    crop = sitk.Resample(labels, _coarse(grid), sitk.Transform(), sitk.sitkNearestNeighbor)
    array = sitk.GetArrayFromImage(crop)
    present = {int(v): FREESURFER_TISSUE.get(int(v), Tissue.BACKGROUND) for v in np.unique(array)}
    best = np.zeros(grid.GetSize()[::-1], np.float32)
    tissue = np.zeros(best.shape, np.uint8)
    for kind in sorted(set(present.values())):
        mask = np.isin(array, [v for v, t in present.items() if t == kind]).astype(np.float32)
        image = sitk.GetImageFromArray(mask)
        image.CopyInformation(crop)
        smooth = sitk.Resample(
            sitk.SmoothingRecursiveGaussian(image, 0.7), grid, sitk.Transform(), sitk.sitkLinear
        )
        value = sitk.GetArrayFromImage(smooth)
        wins = value > best
        best[wins], tissue[wins] = value[wins], kind
    return tissue


def _coarse(grid: sitk.Image) -> sitk.Image:
    """The same box at 1 mm."""
    shape = [int(np.ceil(n * s)) for n, s in zip(grid.GetSize(), grid.GetSpacing(), strict=True)]
    centre = grid.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in grid.GetSize()])
    return lps_grid(centre, 1.0, shape[::-1])


def _read_parts(atlases: Path, atlas: AtlasLabels) -> dict[Tissue, NDArray[np.float32]]:
    """An atlas's left structures in a 1 mm box around its pallidum, each a smooth indicator 0-1."""
    image = _read(atlases / atlas.file)
    array = sitk.GetArrayFromImage(image)
    if not atlas.right_differs:
        middle = image.TransformPhysicalPointToContinuousIndex((0.0, 0.0, 0.0))[0]
        array[:, :, : int(np.ceil(middle))] = 0  # LPS: x grows to the left
    centre = _centre(np.isin(array, atlas.groups[Tissue.GPE] + atlas.groups[Tissue.GPI]), image)
    box = lps_grid(centre, 0.5, [int(n * BOX_SPACING_MM / 0.5) for n in BOX_SHAPE])
    coarse = _coarse(box)
    crop = sitk.Resample(image, box, sitk.Transform(), sitk.sitkNearestNeighbor)
    labels = sitk.GetArrayFromImage(crop)
    parts = {}
    for kind, numbers in atlas.groups.items():
        mask = sitk.GetImageFromArray(np.isin(labels, numbers).astype(np.float32))
        mask.CopyInformation(crop)
        smooth = sitk.Resample(
            sitk.SmoothingRecursiveGaussian(mask, 0.5), coarse, sitk.Transform(), sitk.sitkLinear
        )
        parts[kind] = np.asarray(sitk.GetArrayFromImage(smooth), np.float32)
    return parts


def _carry(
    parts: dict[Tissue, NDArray[np.float32]], tissue: NDArray[np.uint8]
) -> dict[Tissue, NDArray[np.float32]]:
    """Register an atlas to the box (affine, then SyN) and bring over what divides or is missing."""
    import ants  # noqa: PLC0415 - only the train extra has it

    def as_ants(values: NDArray[np.float32], spacing: float) -> object:
        extent = np.array(values.shape) * spacing
        return ants.from_numpy(values, spacing=(spacing,) * 3, origin=tuple(-extent / 2 + spacing / 2))

    moving = sum((_CONTRAST.get(kind, 0.0) * part for kind, part in parts.items()), np.zeros(1, np.float32))
    target = np.zeros(tissue.shape, np.float32)
    for kind, value in _CONTRAST.items():
        target[tissue == kind] = value
    fine = as_ants(target, BOX_SPACING_MM)
    fixed = ants.resample_image(fine, (1.0, 1.0, 1.0), use_voxels=False, interp_type=0)
    found = ants.registration(
        fixed, as_ants(moving, 1.0), "SyN", aff_metric="meansquares", syn_metric="meansquares",
        reg_iterations=(40, 30, 10), random_seed=1,
    )  # fmt: skip
    carried = {
        kind: ants.apply_transforms(fine, as_ants(parts[kind], 1.0), found["fwdtransforms"]).numpy()
        for kind in (Tissue.GPE, Tissue.GPI, *_CARRIED)
    }
    for path in {*found["fwdtransforms"], *found["invtransforms"]}:
        Path(path).unlink(missing_ok=True)
    return carried


def _distance(part: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed distance to the half level, mm, negative inside."""
    mask = sitk.GetImageFromArray((part > 0.5).astype(np.uint8))
    mask.SetSpacing([BOX_SPACING_MM] * 3)
    return np.asarray(
        sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, False, False, True)), np.float32
    )


def _trusted(
    borders: dict[str, NDArray[np.float16]], pallidum: NDArray[np.bool_]
) -> dict[str, NDArray[np.float16]]:
    """Borders that divide the pallidum as a registered atlas does; one that missed gives way to the other.

    Raises InputError when both missed.
    """
    shares = {name: float((border[pallidum] > 0).mean()) for name, border in borders.items()}
    good = [
        name for name, share in shares.items() if GPI_SHARE_OF_AN_ATLAS[0] < share < GPI_SHARE_OF_AN_ATLAS[1]
    ]
    if not good:
        raise InputError(f"no atlas divides this pallidum: GPi shares {shares}")
    return {name: borders[name if name in good else good[0]] for name in borders}


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
