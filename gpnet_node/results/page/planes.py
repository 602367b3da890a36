"""Cuts through a volume along the patient's own axes, whatever the orientation of the scan."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Patient axes, LPS (PS3.3 C.7.6.2.1.1).
LEFT, POSTERIOR, SUPERIOR = np.eye(3)

Index = NDArray[np.intp]
Gather = Callable[[Index, Index, Index], NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """A rectangle in the patient: where its centre is and which way the picture runs."""

    centre_mm: NDArray[np.float64]  # (3,), LPS
    right: NDArray[np.float64]  # unit vector to the right of the picture
    down: NDArray[np.float64]  # unit vector down the picture
    width_mm: float
    height_mm: float

    def points(self, step_mm: float) -> NDArray[np.float64]:
        """Points ``step_mm`` apart, (rows, columns, 3), LPS mm."""
        columns = np.arange(-self.width_mm / 2, self.width_mm / 2 + step_mm / 2, step_mm)
        rows = np.arange(-self.height_mm / 2, self.height_mm / 2 + step_mm / 2, step_mm)
        return np.asarray(
            self.centre_mm + rows[:, None, None] * self.down + columns[None, :, None] * self.right
        )

    def place(self, point_mm: NDArray[np.float64]) -> tuple[float, float]:
        """Where a point falls in the picture: mm to the right of and below the centre."""
        offset = np.asarray(point_mm) - self.centre_mm
        return float(offset @ self.right), float(offset @ self.down)


def cut(
    values: NDArray[np.generic], affine: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values at ``points``, (...), by linear interpolation; NaN outside the grid.

    ``values``: (slice, row, column); ``affine`` takes their indices to LPS mm; ``points``: (..., 3).
    """
    return _interpolate(lambda z, y, x: values[z, y, x], values.shape, affine, points)


def cut_structure(
    labels: NDArray[np.uint8], number: int, affine: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How much of each point belongs to a structure, from 0 to 1; its border is at 0.5."""
    share = _interpolate(lambda z, y, x: labels[z, y, x] == number, labels.shape, affine, points)
    return np.nan_to_num(share)


def _interpolate(
    gather: Gather, shape: tuple[int, ...], affine: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    inverse = np.linalg.inv(affine)
    index = points @ inverse[:3, :3].T + inverse[:3, 3]
    last = np.array(shape) - 1
    # A voxel reaches half a voxel beyond its centre.
    outside = ((index < -0.5) | (index > last + 0.5)).any(axis=-1)
    index = np.clip(index, 0, last)
    low = np.minimum(index.astype(np.intp), np.maximum(last - 1, 0))
    high = np.minimum(low + 1, last)
    part = index - low
    total = np.zeros(points.shape[:-1])
    for corner in np.ndindex(2, 2, 2):
        at = [(high if up else low)[..., axis] for axis, up in enumerate(corner)]
        weights = [part[..., axis] if up else 1 - part[..., axis] for axis, up in enumerate(corner)]
        total += weights[0] * weights[1] * weights[2] * gather(*at).astype(np.float64)
    total[outside] = np.nan
    return total
