"""Between a volume's own grid and grids along the patient's axes (LPS), as SimpleITK images."""

import itertools
from collections.abc import Sequence

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.errors import NoPallidumError
from gpnet_node.imaging.volume import Volume

_MARGIN_VOXELS = 4  # around a part of a volume, for the smoothing


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


def on_grid(values: NDArray[np.float32], spacing_mm: float, origin_mm: Sequence[float]) -> sitk.Image:
    """Channels (c, z, y, x) as a vector image along the patient's axes."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(values, 0, -1)), isVector=True)
    image.SetSpacing([spacing_mm] * 3)
    image.SetOrigin([float(v) for v in origin_mm])
    return image


def sample(image: sitk.Image, grid: sitk.Image) -> NDArray[np.float32]:
    """The image on the voxels of ``grid`` (z, y, x), linear between voxels, 0 beyond the image.

    Where the image's voxels are finer than the grid's it is smoothed first, to the width (in variance) of the
    grid's voxels, so that noise does not alias. Only the part of the image that the grid covers is worked on.
    """
    window = covered(image, grid, margin=_MARGIN_VOXELS)
    if window is None:
        return np.zeros(grid.GetSize()[::-1], np.float32)
    part = image[tuple(slice(a, b) for a, b in window)]
    wanted = grid.GetSpacing()[0]
    # A voxel as wide as w averages over a variance of w^2 / 12.
    variances = [max(0.0, wanted**2 - spacing**2) / 12 for spacing in part.GetSpacing()]
    if max(variances) > 0:
        part = sitk.DiscreteGaussian(part, variances)
    values: NDArray[np.float32] = sitk.GetArrayFromImage(
        sitk.Resample(part, grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    )
    return values


def covered(image: sitk.Image, grid: sitk.Image, *, margin: int = 0) -> list[tuple[int, int]] | None:
    """First and last-but-one index of ``image`` (x, y, z) that ``grid`` covers; None where it covers none."""
    corners = [
        image.TransformPhysicalPointToContinuousIndex(grid.TransformContinuousIndexToPhysicalPoint(corner))
        for corner in itertools.product(*((0.0, n - 1.0) for n in grid.GetSize()))
    ]
    low = np.floor(np.min(corners, axis=0)).astype(int) - margin
    high = np.ceil(np.max(corners, axis=0)).astype(int) + 1 + margin
    low, high = low.clip(0), np.minimum(high, image.GetSize())
    if (high <= low).any():
        return None
    return [(int(a), int(b)) for a, b in zip(low, high, strict=True)]


def inside(
    geometry: hd.VolumeGeometry, spacing_mm: float, origin_mm: Sequence[float], shape: Sequence[int]
) -> NDArray[np.bool_]:
    """Which voxel centres of a grid along the patient's axes, (z, y, x), lie in a voxel of the volume."""
    inverse = np.linalg.inv(np.asarray(geometry.affine, float))
    steps = inverse[:3, 2::-1] * spacing_mm  # index (slice, row, column) for each step in z, y, x
    first = inverse @ [*origin_mm, 1.0]
    axes = np.ix_(*(np.arange(n) for n in shape))
    within = np.ones(tuple(shape), bool)
    for start, step, size in zip(first[:3], steps, geometry.spatial_shape, strict=True):
        index = start + sum(s * axis for s, axis in zip(step, axes, strict=True))
        within &= (index >= -0.5) & (index <= size - 0.5)
    return within


def edge_distance_mm(labels: NDArray[np.bool_], geometry: hd.VolumeGeometry) -> float:
    """From the outside of the labelled voxels to the nearest outer face of the volume; 0 in its first slice.

    Raises NoPallidumError where nothing is labelled.
    """
    distances = []
    for axis, spacing in enumerate(geometry.spacing):
        labelled = np.flatnonzero(labels.any(axis=tuple(a for a in range(3) if a != axis)))
        if not labelled.size:
            raise NoPallidumError("no pallidum is labelled")
        distances += [labelled[0] * spacing, (labels.shape[axis] - 1 - labelled[-1]) * spacing]
    return float(min(distances))
