"""Symmetric diffeomorphic registration (SyN; Avants 2008) of one brain to another, with ANTs.

Images are SimpleITK's with their axes along the patient's (LPS). Needs the ``train`` extra (antspyx).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.model.patient_grid import lps_grid

if TYPE_CHECKING:
    from ants import ANTsImage

_BOX_MM = (104.0, 76.0, 68.0)  # (x, y, z) around both pallida, for registration of that part
_AFFINE_MM = 2.0  # the grid of the affine registration that goes before


@dataclass(frozen=True, kw_only=True)
class SynSettings:
    """How SyN runs around the pallida, after an affine registration of the whole brain."""

    spacing_mm: float  # of the image that is registered to
    metric: str  # mattes, or CC
    sampling: int  # bins of mattes, radius of CC in voxels
    iterations: tuple[int, ...]


def register(
    fixed: sitk.Image, moving: sitk.Image, settings: SynSettings, centre_mm: NDArray[np.float64]
) -> list[Path]:
    """Files of the transforms that carry ``moving`` to ``fixed``, both brains without skull.

    ``centre_mm``: middle of the two pallida in ``fixed``, about which a box is cut. The caller removes the
    files.
    """
    import ants  # noqa: PLC0415 - only the train extra has it

    how: dict[str, Any] = {
        "syn_metric": settings.metric,
        "syn_sampling": settings.sampling,
        "reg_iterations": settings.iterations,
        "random_seed": 1,
    }
    first = ants.registration(
        _as_ants(coarser(fixed, _AFFINE_MM)), _as_ants(coarser(moving, _AFFINE_MM)), "Affine", random_seed=1
    )
    affine = first["fwdtransforms"][0]
    near = coarser(fixed, settings.spacing_mm)
    box = _as_ants(around(near, centre_mm, settings.spacing_mm))
    found = ants.registration(box, _as_ants(moving), "SyNOnly", initial_transform=affine, **how)
    kept = _kept(found)
    if Path(affine) not in kept:
        Path(affine).unlink(missing_ok=True)
    return kept


def carry(image: sitk.Image, grid: sitk.Image, transforms: Sequence[Path]) -> NDArray[np.float32]:
    """An image, brought by registration to a grid of the fixed image's space; (z, y, x), linear."""
    import ants  # noqa: PLC0415 - only the train extra has it

    target = _as_ants(sitk.Cast(grid, sitk.sitkFloat32))
    moved = ants.apply_transforms(target, _as_ants(image), [str(path) for path in transforms])
    values: NDArray[np.float32] = moved.numpy().transpose(2, 1, 0)
    return values


def fuse(
    target: sitk.Image, images: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.uint8]]
) -> dict[int, NDArray[np.float32]]:
    """Joint label fusion (Wang 2013): each label's probability on the target's grid, (z, y, x).

    ``images`` and ``labels``: of the people that were brought to that grid.
    """
    import ants  # noqa: PLC0415 - only the train extra has it

    def on_target(values: NDArray[np.generic]) -> "ANTsImage":
        image = sitk.GetImageFromArray(values.astype(np.float32))
        image.CopyInformation(target)
        return _as_ants(image)

    somewhere = np.any([label > 0 for label in labels], axis=0)
    near = sitk.BinaryDilate(sitk.GetImageFromArray(somewhere.astype(np.uint8)), [2] * 3, sitk.sitkBox)
    found = ants.joint_label_fusion(
        _as_ants(target),
        on_target(sitk.GetArrayFromImage(near)),
        [on_target(image) for image in images],
        label_list=[on_target(label) for label in labels],
    )
    return {
        int(number): image.numpy().transpose(2, 1, 0)
        for number, image in zip(found["segmentation_numbers"], found["probabilityimages"], strict=True)
    }


def around(image: sitk.Image, centre_mm: NDArray[np.float64], spacing_mm: float) -> sitk.Image:
    """The part of an image that holds both pallida with their surroundings."""
    grid = lps_grid(centre_mm, spacing_mm, [round(mm / spacing_mm) for mm in reversed(_BOX_MM)])
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0)


def coarser(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """The image at that spacing, smoothed before; as it is where its own is not finer."""
    own = image.GetSpacing()[0]
    if spacing_mm <= own * 1.01:
        return image
    grid = sitk.Image([int(n * own / spacing_mm) for n in image.GetSize()], sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetOrigin(image.GetOrigin())
    smooth = sitk.SmoothingRecursiveGaussian(image, 0.4 * spacing_mm)
    return sitk.Resample(smooth, grid, sitk.Transform(), sitk.sitkLinear, 0.0)


def _as_ants(image: sitk.Image) -> "ANTsImage":
    """ANTs holds the axes in the reverse order of numpy's, in ITK's own coordinates."""
    import ants  # noqa: PLC0415 - only the train extra has it

    values = sitk.GetArrayFromImage(image).astype(np.float32).transpose(2, 1, 0)
    return ants.from_numpy(values, origin=image.GetOrigin(), spacing=image.GetSpacing())


def _kept(found: dict[str, Any]) -> list[Path]:
    """The forward transforms; what only leads back is removed."""
    kept = [Path(path) for path in found["fwdtransforms"]]
    for path in found["invtransforms"]:
        if Path(path) not in kept:
            Path(path).unlink(missing_ok=True)
    return kept
