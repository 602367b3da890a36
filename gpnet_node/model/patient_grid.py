"""Between a volume's own grid and grids along the patient's axes (LPS), as SimpleITK images."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.imaging.volume import Volume


def as_image(volume: Volume) -> sitk.Image:
    """The same voxels with ITK's geometry: index (column, row, slice), LPS mm."""
    affine = np.asarray(volume.geometry.affine, float)
    columns = affine[:3, 2::-1]  # ITK's first index runs along the columns
    spacing = np.linalg.norm(columns, axis=0)
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(v) for v in affine[:3, 3]])
    image.SetDirection([float(v) for v in (columns / spacing).ravel()])
    return image


def lps_grid(
    centre_mm: Sequence[float] | NDArray[np.float64], spacing_mm: float, shape: Sequence[int]
) -> sitk.Image:
    """Empty image (z, y, x) voxels large, along the patient's axes, centred on a point."""
    grid = sitk.Image([int(n) for n in shape[::-1]], sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetOrigin([float(c) - spacing_mm * (n - 1) / 2 for c, n in zip(centre_mm, shape[::-1], strict=True)])
    return grid
