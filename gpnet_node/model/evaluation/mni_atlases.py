"""The published atlases in MNI152 2009 space: CIT168 (Pauli 2018), BigBrain (Xiao 2019), Allen (Ding 2016).

Lamina convention as in training: the medial lamina goes to the nearer segment.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

TEMPLATE = "cit168/CIT168toMNI152-2009c_T1w_brain.nii.gz"
_GAP_MM = 1.5  # the widest medial lamina that an atlas leaves free between the segments
_MARGIN_MM = 10.0


@dataclass(frozen=True, kw_only=True)
class AtlasNumbers:
    """GPe's and GPi's numbers by side; an atlas with one number for both is cut at x = 0."""

    file: str
    left: tuple[int, int]
    right: tuple[int, int]


ATLASES = {
    "CIT168 atlas": AtlasNumbers(
        file="cit168/CIT168_MNI152NLin2009cAsym.nii.gz", left=(5, 6), right=(105, 106)
    ),
    "BigBrain atlas": AtlasNumbers(file="bigbrain/bigbrain.nii.gz", left=(11, 13), right=(12, 14)),
    "Allen atlas": AtlasNumbers(file="allen/AllenAtlas.nii.gz", left=(11, 12), right=(11, 12)),
}


def read_template(atlases: Path) -> sitk.Image:
    """The T1 template of CIT168, a brain without skull."""
    return sitk.DICOMOrient(sitk.ReadImage(str(atlases / TEMPLATE), sitk.sitkFloat32), "LPS")


def atlas_shares(atlases: Path, numbers: AtlasNumbers) -> dict[str, sitk.Image]:
    """GPe and GPi of an atlas, the medial lamina given to the nearer segment, without staircases."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(atlases / numbers.file), sitk.sitkUInt16), "LPS")
    shares = {}
    for side, wanted in (("left", numbers.left), ("right", numbers.right)):
        part = _one_side(image, wanted, left=side == "left")
        gpe, gpi = (sitk.GetArrayFromImage(part) == number for number in wanted)
        drawn = sitk.GetImageFromArray(_closed(gpe, gpi, image.GetSpacing()), isVector=True)
        drawn.CopyInformation(part)
        shares[side] = sitk.SmoothingRecursiveGaussian(drawn, 0.5 * image.GetSpacing()[0])
    return shares


def _one_side(image: sitk.Image, numbers: tuple[int, int], *, left: bool) -> sitk.Image:
    """The part of a label map that holds one side's pallidum, and what is near it on that side."""
    array = sitk.GetArrayFromImage(image)
    x_mm = image.GetOrigin()[0] + image.GetSpacing()[0] * np.arange(array.shape[2])  # grows to the left
    own = x_mm > 0 if left else x_mm < 0
    where = np.argwhere(np.isin(array, numbers) & own)[:, ::-1]  # (x, y, z)
    margin = round(_MARGIN_MM / image.GetSpacing()[0])
    low = (where.min(0) - margin).clip(0)
    high = np.minimum(where.max(0) + margin + 1, image.GetSize())
    inside = np.flatnonzero(own)
    low[0], high[0] = max(low[0], inside[0]), min(high[0], inside[-1] + 1)
    return image[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]


def _closed(
    gpe: NDArray[np.bool_], gpi: NDArray[np.bool_], spacing: tuple[float, ...]
) -> NDArray[np.float32]:
    """GPe and GPi, (z, y, x, 2), after the free voxels between them went to the nearer one."""
    to_gpe, to_gpi = _distance_mm(gpe, spacing), _distance_mm(gpi, spacing)
    between = ~gpe & ~gpi & (to_gpe + to_gpi <= _GAP_MM + spacing[0])
    nearer = to_gpi < to_gpe
    return np.stack([gpe | (between & ~nearer), gpi | (between & nearer)], -1).astype(np.float32)


def _distance_mm(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float32]:
    """Distance to a mask, 0 inside."""
    drawn = sitk.GetImageFromArray(mask.astype(np.uint8))
    drawn.SetSpacing(spacing)
    away = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(drawn, False, False, True))
    return np.asarray(away.clip(0), np.float32)
