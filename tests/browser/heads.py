"""Heads whose left and right differ, each structure an ellipsoid known in patient millimetres.

Where a structure lies is said here in millimetres alone: no grid, no label map and nothing of the node's own
geometry has a part in where a viewer is asked to show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.series import choose, read_headers, split
from gpnet_node.imaging.volume import LabelMap, assemble
from tests.factories import mr_series, normal_of
from tests.pallida import AXIAL, Head

Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """A structure: its number in the model card, centre and semi-axes along L, P and S, in mm."""

    number: int
    centre_mm: Point
    semi_axes_mm: Point

    def holds(self, points_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the points (..., 3) lie inside."""
        scaled = (points_mm - np.array(self.centre_mm)) / np.array(self.semi_axes_mm)
        return np.asarray((scaled**2).sum(axis=-1) < 1)

    def beside(self, direction: NDArray[np.float64], gap_mm: float) -> Point:
        """The point so far outside of the surface, from the centre along a unit vector."""
        reach = 1 / float(np.linalg.norm(direction / np.array(self.semi_axes_mm)))
        x, y, z = np.array(self.centre_mm) + (reach + gap_mm) * direction
        return float(x), float(y), float(z)

    def grown(self, by_mm: float) -> "Ellipsoid":
        """The same, its semi-axes longer."""
        x, y, z = self.semi_axes_mm
        return replace(self, semi_axes_mm=(x + by_mm, y + by_mm, z + by_mm))


# The right side lies 12 mm further back and 9 mm lower than the left: none of its structures is where the
# mirror image of a left one would be. In axial slices, what lies below the left is in the right's own slice.
STRUCTURES = (
    Ellipsoid(number=1, centre_mm=(21.0, -6.0, 3.0), semi_axes_mm=(4.5, 9.0, 6.0)),
    Ellipsoid(number=2, centre_mm=(13.0, -4.0, 3.0), semi_axes_mm=(3.2, 7.0, 6.0)),
    Ellipsoid(number=3, centre_mm=(-19.0, 6.0, -6.0), semi_axes_mm=(4.2, 8.0, 6.0)),
    Ellipsoid(number=4, centre_mm=(-11.5, 8.0, -6.0), semi_axes_mm=(3.0, 6.5, 6.0)),
)
# Signal of the structures, and what it looks like in the window that the series names, 0 to 1000.
DARK = 330
DARK_GREY = 255 * DARK / 1000
MIRRORED = {1: 3, 2: 4, 3: 1, 4: 2}


def draw_lopsided_head(
    folder: Path,
    *,
    orientation: Sequence[float] = AXIAL,
    shape: tuple[int, int, int] = (35, 64, 80),
    spacing_mm: tuple[float, float, float] = (1.5, 1.0, 1.0),
    study_instance_uid: str,
) -> Head:
    """Draw the head around the origin, write it as a series of its own study, and read it with its labels."""
    affine = np.eye(4)
    affine[:3, 0] = normal_of(orientation) * spacing_mm[0]
    affine[:3, 1] = np.array(orientation[3:]) * spacing_mm[1]
    affine[:3, 2] = np.array(orientation[:3]) * spacing_mm[2]
    affine[:3, 3] = np.round(-affine[:3, :3] @ ((np.array(shape) - 1) / 2), 6)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    numbers = np.zeros(shape, np.uint8)
    for structure in STRUCTURES:
        numbers[structure.holds(points)] = structure.number
    paths = mr_series(
        folder,
        voxels=_signal(points, numbers),
        spacing_mm=spacing_mm,
        orientation=orientation,
        origin_mm=affine[:3, 3].tolist(),
        series=study_instance_uid,
        StudyInstanceUID=study_instance_uid,
        PatientID=study_instance_uid,
        WindowCenter=500,
        WindowWidth=1000,
    )
    volume = assemble(choose(split(read_headers(paths))))
    labels = LabelMap(labels=numbers, geometry=volume.geometry)
    return Head(paths=tuple(paths), volume=volume, labels=labels)


def shifted(head: Head, slices: int) -> Head:
    """The same head, its labels so many slices further up."""
    moved = np.zeros_like(head.labels.labels)
    moved[slices:] = head.labels.labels[:-slices]
    return head.relabelled(moved)


def mirrored(head: Head) -> Head:
    """The same head, its labels mirrored from side to side, left still called left and right right."""
    names = np.arange(5, dtype=np.uint8)
    names[list(MIRRORED)] = list(MIRRORED.values())
    return head.relabelled(np.ascontiguousarray(names[head.labels.labels][:, :, ::-1]))


def _signal(points: NDArray[np.float64], numbers: NDArray[np.uint8]) -> NDArray[np.uint16]:
    noise = np.random.default_rng(7).normal(0, 20, numbers.shape)
    brain = Ellipsoid(number=0, centre_mm=(0, 0, 0), semi_axes_mm=(36, 29, 60)).holds(points)
    ventricle = Ellipsoid(number=0, centre_mm=(2, -8, 6), semi_axes_mm=(3, 12, 9)).holds(points)
    signal = np.where(brain, 720.0, 60.0) + noise
    signal[ventricle] = 1500
    signal[numbers > 0] = DARK + noise[numbers > 0]
    return np.clip(signal, 0, None).astype(np.uint16)
