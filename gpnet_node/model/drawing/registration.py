"""Histological atlases, brought into one guide and from there to a person by deformable registration (SyN).

Allen (Ding 2016) is the guide: it has the neighbours of the pallidum too. BigBrain (Xiao 2019) and CIT168
(Pauli 2018) are brought to it once, so each person needs one registration and all atlases move together.
Needs the ``train`` extra (antspyx).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.model.drawing.tissue import Tissue
from gpnet_node.model.patient_grid import lps_grid

BOX_SPACING_MM = 0.6
BOX_SHAPE = (112, 128, 112)  # (z, y, x): the network's box and a margin for deformation
CARRIED = (
    Tissue.STN,
    Tissue.SUBSTANTIA_NIGRA,
    Tissue.RED_NUCLEUS,
    Tissue.ZONA_INCERTA,
    Tissue.CLAUSTRUM,
    Tissue.ANTERIOR_COMMISSURE,
    Tissue.OPTIC_TRACT,
)
# What the registration sees of each structure: far apart, so that mean squares pulls like to like.
_CONTRAST = {Tissue.PUTAMEN: 2.0, Tissue.CAUDATE: 1.0, Tissue.THALAMUS: 3.0, Tissue.GPE: 5.0, Tissue.GPI: 5.0}

Parts = dict[Tissue, NDArray[np.float32]]  # indicators 0-1, (z, y, x)
_Named = dict[tuple[str, Tissue], NDArray[np.float32]]  # the same, by atlas


@dataclass(frozen=True, kw_only=True)
class AtlasLabels:
    """Label numbers of one atlas, left side of the brain."""

    file: str
    sides_differ: bool  # sides have numbers of their own; otherwise the map is cut at x = 0
    groups: Mapping[Tissue, tuple[int, ...]]


ALLEN = AtlasLabels(
    file="allen/AllenAtlas.nii.gz",
    sides_differ=False,
    groups={
        Tissue.PUTAMEN: (9,),
        Tissue.CAUDATE: (6, 7, 8),
        Tissue.GPE: (11,),
        Tissue.GPI: (12,),
        Tissue.THALAMUS: tuple(range(27, 42)),
        Tissue.STN: (45,),
        Tissue.RED_NUCLEUS: (113,),
        Tissue.SUBSTANTIA_NIGRA: (114,),
        Tissue.ZONA_INCERTA: (44,),
        Tissue.CLAUSTRUM: (13,),
        Tissue.ANTERIOR_COMMISSURE: (52,),
        Tissue.OPTIC_TRACT: (56,),
    },
)
BIGBRAIN = AtlasLabels(
    file="bigbrain/bigbrain.nii.gz",
    sides_differ=True,
    groups={
        Tissue.PUTAMEN: (9,),
        Tissue.CAUDATE: (7,),
        Tissue.GPE: (11,),
        Tissue.GPI: (13,),
        Tissue.THALAMUS: (15,),
    },
)
CIT168 = AtlasLabels(
    file="cit168/CIT168_MNI152NLin2009cAsym.nii.gz",
    sides_differ=True,
    groups={Tissue.PUTAMEN: (1,), Tissue.CAUDATE: (2,), Tissue.GPE: (5,), Tissue.GPI: (6,)},
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Guide:
    """The left side of the Allen atlas, with other atlases' pallida brought to it; all (z, y, x) at 1 mm.

    ``parts``: Allen's structures. ``others``: GPe and GPi of each further atlas, by its name.
    """

    parts: Parts
    others: Mapping[str, Parts]


def read_guide(atlases: Path, others: Mapping[str, AtlasLabels]) -> Guide:
    """Read the Allen atlas and register the other atlases' left sides to it (some seconds each)."""
    parts = _read_parts(atlases, ALLEN)
    moved = {}
    for name, labels in others.items():
        own = _read_parts(atlases, labels)
        seen = [kind for kind in _CONTRAST if kind in own]  # CIT168 has no thalamus: then it is not seen
        pallidum = _carry(
            {(name, kind): own[kind] for kind in (Tissue.GPE, Tissue.GPI)},
            moving=_seen(own, seen),
            fixed=_seen(parts, seen),
            spacing_mm=1.0,
        )
        moved[name] = _owned(pallidum, name)
    return Guide(parts=parts, others=moved)


def carry(guide: Guide, tissue: NDArray[np.uint8]) -> dict[str, Parts]:
    """Register the guide to one side's box (0.6 mm): what each atlas says lies where, by its name."""
    target = np.zeros(tissue.shape, np.float32)
    for kind, value in _CONTRAST.items():
        target[tissue == kind] = value
    named = {("allen", kind): guide.parts[kind] for kind in (Tissue.GPE, Tissue.GPI, *CARRIED)}
    for name, parts in guide.others.items():
        named |= {(name, kind): part for kind, part in parts.items()}
    moving = _seen(guide.parts, list(_CONTRAST))
    moved = _carry(named, moving=moving, fixed=target, spacing_mm=BOX_SPACING_MM)
    return {name: _owned(moved, name) for name in ("allen", *guide.others)}


def coarse(grid: sitk.Image) -> sitk.Image:
    """The same box at 1 mm."""
    shape = [int(np.ceil(n * s)) for n, s in zip(grid.GetSize(), grid.GetSpacing(), strict=True)]
    centre = grid.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in grid.GetSize()])
    return lps_grid(centre, 1.0, shape[::-1])


def read(path: Path) -> sitk.Image:
    """A label map with its axes turned to LPS, so that array axes are (z, y, x) of the patient."""
    return sitk.DICOMOrient(sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkUInt16), "LPS")


def centre_of(mask: NDArray[np.bool_], image: sitk.Image) -> tuple[float, ...]:
    """Centre of mass of a mask on the image's grid, LPS mm."""
    centre: tuple[float, ...] = image.TransformContinuousIndexToPhysicalPoint(
        [float(v) for v in np.argwhere(mask).mean(0)[::-1]]
    )
    return centre


def _read_parts(atlases: Path, atlas: AtlasLabels) -> Parts:
    """An atlas's left structures in a 1 mm box around its pallidum, each a smooth indicator 0-1."""
    image = read(atlases / atlas.file)
    array = sitk.GetArrayFromImage(image)
    pallidum = np.isin(array, atlas.groups[Tissue.GPE] + atlas.groups[Tissue.GPI])
    if not atlas.sides_differ:
        middle = image.TransformPhysicalPointToContinuousIndex((0.0, 0.0, 0.0))[0]
        pallidum[:, :, : int(np.ceil(middle))] = False  # LPS: x grows to the left
    box = lps_grid(centre_of(pallidum, image), 0.5, [int(n * BOX_SPACING_MM / 0.5) for n in BOX_SHAPE])
    crop = sitk.Resample(image, box, sitk.Transform(), sitk.sitkNearestNeighbor)
    labels = sitk.GetArrayFromImage(crop)
    parts = {}
    for kind, numbers in atlas.groups.items():
        mask = np.isin(labels, numbers).astype(np.float32)
        if not atlas.sides_differ and kind in _CONTRAST:  # one side is registered, so one side is shown
            x_mm = box.GetOrigin()[0] + 0.5 * np.arange(mask.shape[2])
            mask[:, :, x_mm < 0] = 0
        part = sitk.GetImageFromArray(mask)
        part.CopyInformation(crop)
        smooth = sitk.Resample(
            sitk.SmoothingRecursiveGaussian(part, 0.5), coarse(box), sitk.Transform(), sitk.sitkLinear
        )
        parts[kind] = np.asarray(sitk.GetArrayFromImage(smooth), np.float32)
    return parts


def _owned(named: _Named, name: str) -> Parts:
    return {kind: part for (owner, kind), part in named.items() if owner == name}


def _seen(parts: Parts, kinds: list[Tissue]) -> NDArray[np.float32]:
    seen: NDArray[np.float32] = np.sum([_CONTRAST[k] * parts[k] for k in kinds], axis=0, dtype=np.float32)
    return seen


def _carry(
    named: _Named,
    *,
    moving: NDArray[np.float32],
    fixed: NDArray[np.float32],
    spacing_mm: float,
) -> _Named:
    """Affine, then SyN at 1 mm; the indicators on the fixed grid (``spacing_mm``), centres on each other."""
    import ants  # noqa: PLC0415 - only the train extra has it

    def as_ants(values: NDArray[np.float32], spacing: float) -> object:
        extent = np.array(values.shape) * spacing
        return ants.from_numpy(values, spacing=(spacing,) * 3, origin=tuple(-extent / 2 + spacing / 2))

    fine = as_ants(fixed, spacing_mm)
    target = ants.resample_image(fine, (1.0, 1.0, 1.0), use_voxels=False, interp_type=0)
    found = ants.registration(
        target, as_ants(moving, 1.0), "SyN", aff_metric="meansquares", syn_metric="meansquares",
        reg_iterations=(60, 40, 20), random_seed=1,
    )  # fmt: skip
    carried = {
        key: ants.apply_transforms(fine, as_ants(part, 1.0), found["fwdtransforms"]).numpy()
        for key, part in named.items()
    }
    for path in {*found["fwdtransforms"], *found["invtransforms"]}:
        Path(path).unlink(missing_ok=True)
    return carried
