"""A closed triangle mesh around a structure: smooth, and of the volume and centre of its voxels.

Marching cubes (scikit-image, after Lewiner et al. 2003, doi:10.1080/10867651.2003.10487582) gives the
triangles. Their corners are then pulled straight, each within half a voxel of where it was, as constrained
elastic surface nets are (Gibson 1998, doi:10.1007/BFb0056277), and the surface is swollen to its volume.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from skimage.filters import gaussian
from skimage.measure import marching_cubes

# How far a corner may go along each axis, in voxels: the terraces of a staircase are within half a voxel.
REACH = 0.49
ROUNDS = 30
STRENGTH = 0.5
MOST_CORRECTIONS = 60
# In the end each corner stays a little nearer to where it was: so no two of them, pushed into one place, are
# one point for who reads the triangles.
KEPT = 0.98
# The rest of the way to the volume is a scaling about the centre, so small that it moves nothing visibly.
SAME_VOLUME = 2e-3
# Share of a blurred copy that is mixed with the mask: less than half keeps each voxel on its side, and no two
# values are equal, which marching cubes needs to close every surface.
BLURRED = 0.3
BLUR_VOXELS = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """``vertices``: (n, 3), LPS mm. ``triangles``: (m, 3), anticlockwise as seen from outside."""

    vertices: NDArray[np.float64]
    triangles: NDArray[np.intp]


def enclose(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Mesh:
    """Enclose the set voxels of (slice, row, column); ``affine`` takes their indices to LPS mm.

    Each connected part (26 neighbours) has the volume of its voxels and their centre of mass. Every edge
    belongs to two triangles, which run along it in opposite directions. No triangles for an empty mask.
    """
    parts = [_enclose_part(part, start, affine) for part, start in _parts(mask)]
    first = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return Mesh(
        vertices=np.concatenate([np.empty((0, 3)), *(part.vertices for part in parts)]),
        triangles=np.concatenate(
            [
                np.empty((0, 3), dtype=np.intp),
                *(part.triangles + start for part, start in zip(parts, first, strict=False)),
            ]
        ),
    )


def _parts(mask: NDArray[np.bool_]) -> list[tuple[NDArray[np.bool_], NDArray[np.intp]]]:
    """Each part in a box with a margin of two voxels, and the index of the box's first voxel."""
    numbers = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
    boxes = cc3d.statistics(numbers)["bounding_boxes"][1:]
    starts = [np.array([one.start for one in box], dtype=np.intp) - 2 for box in boxes]
    return [
        (np.pad(numbers[box] == number, 2), start)
        for number, (box, start) in enumerate(zip(boxes, starts, strict=True), start=1)
    ]


def _enclose_part(part: NDArray[np.bool_], start: NDArray[np.intp], affine: NDArray[np.float64]) -> Mesh:
    solid = part.astype(np.float32)
    field = (1 - BLURRED) * solid + BLURRED * gaussian(solid, BLUR_VOXELS, preserve_range=True)
    corners, triangles, _, _ = marching_cubes(field.astype(np.float32), level=0.5)
    triangles = triangles.astype(np.intp)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    wanted = float(part.sum() * sizes.prod())
    vertices = _relax(corners * sizes, triangles, REACH * sizes, wanted)
    volume, centre = volume_and_centre(vertices, triangles)
    vertices = (vertices - centre) * (wanted / abs(volume)) ** (1 / 3) / sizes
    placed = (vertices + np.argwhere(part).mean(axis=0) + start) @ affine[:3, :3].T + affine[:3, 3]
    outward = volume * np.linalg.det(affine[:3, :3]) > 0
    return Mesh(vertices=placed, triangles=triangles if outward else triangles[:, ::-1])


def volume_and_centre(
    vertices: NDArray[np.float64], triangles: NDArray[np.intp]
) -> tuple[float, NDArray[np.float64]]:
    """Volume of a closed mesh (negative if its triangles face inwards) and its centre of mass."""
    origin = vertices.mean(axis=0)
    a, b, c = np.moveaxis(vertices[triangles] - origin, 1, 0)
    six_times = np.einsum("ij,ij->i", a, np.cross(b, c))
    total = float(six_times.sum())
    return total / 6, origin + (six_times[:, None] * (a + b + c)).sum(axis=0) / (4 * total)


def _relax(
    corners: NDArray[np.float64], triangles: NDArray[np.intp], reach: NDArray[np.float64], volume: float
) -> NDArray[np.float64]:
    """Pull the corners straight, none further than ``reach``, and give the surface its volume back."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    start, end = edges.T  # every edge once in each direction, since the surface is closed
    neighbours = np.bincount(start, minlength=len(corners))
    points = corners
    for round_number in range(ROUNDS + MOST_CORRECTIONS):
        if round_number < ROUNDS:
            middle = _sum_at(start, points[end], len(points)) / neighbours[:, None]
            points = points + STRENGTH * (middle - points)
        elif abs(abs(volume_and_centre(points, triangles)[0]) - volume) <= SAME_VOLUME * volume:
            break
        points = corners + np.clip(_swell(points, triangles, volume) - corners, -reach, reach)
    return corners + KEPT * (points - corners)


def _swell(points: NDArray[np.float64], triangles: NDArray[np.intp], volume: float) -> NDArray[np.float64]:
    """Move all points across the surface by what its volume lacks."""
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    share = np.cross(b - a, c - a) / 6  # of each triangle; their sum at a point is the gradient of the volume
    across = _sum_at(triangles.ravel(), np.repeat(share, 3, axis=0), len(points))
    found = volume_and_centre(points, triangles)[0]
    lacking = float(np.copysign(volume, found)) - found
    return points + across * (lacking / max(float((across**2).sum()), 1e-12))


def _sum_at(index: NDArray[np.intp], values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    summed = np.empty((length, 3))
    for axis in range(3):
        summed[:, axis] = np.bincount(index, weights=values[:, axis], minlength=length)
    return summed
