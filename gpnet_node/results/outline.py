"""The outline of a structure in one slice: closed polygons that run through the staircase of its pixels.

After constrained elastic surface nets (Gibson 1998, doi:10.1007/BFb0056277), in the plane: the polygon has
one point for each corner of the staircase, and the points are pulled straight, each within the cell between
the four pixel centres around its corner. So no pixel centre changes sides (filling the outline gives the
label map back), no point moves further than 0.7 pixels, and segments meet at their ends only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

# How far a point may go along row and column from its corner, in pixels; less than half a pixel, so that
# points of neighbouring cells stay apart.
REACH = 0.49
# Two pixels that touch at a corner are outlined apart: each outline keeps this far to its own side of it.
APART = 0.05
ROUNDS = 16
STRENGTH = 0.5
# Each polygon keeps the area of its pixels, relative.
SAME_AREA = 1e-3
MOST_CORRECTIONS = 60

_STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # along an edge; the pixel lies to the right of it


@dataclass(frozen=True, kw_only=True, eq=False)
class Outline:
    """The outlines of one connected part (4-neighbours) of a slice.

    ``outer`` and each of ``holes``: (n, 2), row and column, pixel centres at whole numbers. The last point is
    joined to the first. Outer and inner outlines run in opposite directions.
    """

    outer: NDArray[np.float64]
    holes: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rings:
    """All rings of a slice, point after point; ``before`` and ``after`` name the neighbours of each."""

    corners: NDArray[np.float64]  # (n, 2)
    lowest: NDArray[np.float64]  # (n, 2), how far a point may go from its corner
    highest: NDArray[np.float64]
    ring: NDArray[np.intp]  # (n,)
    before: NDArray[np.intp]
    after: NDArray[np.intp]


def outlines(mask: NDArray[np.bool_]) -> tuple[Outline, ...]:
    """Outline each connected part of a slice, (rows, columns), with the area of its pixels (to 0.1 %).

    Two parts that touch at a corner only are apart. None for an empty mask.
    """
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return ()
    top, left = int(rows.min()), int(columns.min())
    part = np.pad(mask[top : rows.max() + 1, left : columns.max() + 1], 1)
    offset = np.array([top - 1, left - 1])
    edges, order, starts = _follow(part)
    rings = _lay_out(part, edges[order], starts)
    points = np.split(_relax(rings) + offset, starts[1:])
    parts = cc3d.connected_components(part.astype(np.uint8), connectivity=4)
    of_part = [int(parts[row, column]) for _, row, column in edges[order][starts]]
    return _group(points, of_part)


def signed_area(points: NDArray[np.float64]) -> float:
    """Area of a polygon in pixels, positive for an outer outline, negative for a hole."""
    rows, columns = points[:, 0], points[:, 1]
    return float(columns @ np.roll(rows, -1) - rows @ np.roll(columns, -1)) / 2


def _follow(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Edges between a pixel inside and one outside, (side, row, column of the pixel), ring after ring.

    Returns the edges, the order in which rings run through them, and where in that order each ring begins.
    """
    free = np.stack([mask & ~np.roll(mask, tuple(_STEPS[side - 1] * -1), (0, 1)) for side in range(4)])
    edges = np.argwhere(free)
    number = np.full(free.shape, -1)
    number[tuple(edges.T)] = np.arange(len(edges))
    side, pixel = edges[:, 0], edges[:, 1:]
    ahead = pixel + _STEPS[side]
    beyond = ahead + _STEPS[side - 1]
    turns = ~mask[tuple(ahead.T)]
    straight = ~turns & ~mask[tuple(beyond.T)]
    next_pixel = np.where(turns[:, None], pixel, np.where(straight[:, None], ahead, beyond))
    next_side = (side + np.where(turns, 1, np.where(straight, 0, -1))) % 4
    following = number[next_side, next_pixel[:, 0], next_pixel[:, 1]].tolist()
    order: list[int] = []
    starts: list[int] = []
    seen = np.zeros(len(edges), dtype=bool)
    for first in range(len(edges)):
        if seen[first]:
            continue
        starts.append(len(order))
        edge = first
        while not seen[edge]:
            seen[edge] = True
            order.append(edge)
            edge = following[edge]
    return edges, np.array(order), np.array(starts)


def _lay_out(mask: NDArray[np.bool_], edges: NDArray[np.intp], starts: NDArray[np.intp]) -> _Rings:
    """One point at the end of each edge, and how far it may go."""
    side, pixel = edges[:, 0], edges[:, 1:]
    along, outward = _STEPS[side], _STEPS[side - 1]
    inward = -(along + outward)
    ahead, beyond = pixel + along, pixel + along + outward
    # Only the pixel itself and the one across the corner are inside: the outlines of the two keep apart.
    touching = (~mask[tuple(ahead.T)] & mask[tuple(beyond.T)])[:, None]
    index = np.arange(len(edges))
    sizes = np.diff(np.append(starts, len(edges)))
    ends = starts + sizes - 1
    before, after = index - 1, index + 1
    before[starts], after[ends] = ends, starts
    return _Rings(
        corners=pixel + (along + outward) / 2,
        lowest=np.where(touching & (inward > 0), APART, -REACH),
        highest=np.where(touching & (inward < 0), -APART, REACH),
        ring=np.repeat(np.arange(len(starts)), sizes),
        before=before,
        after=after,
    )


def _relax(rings: _Rings) -> NDArray[np.float64]:
    """Pull the points straight, and give each ring its area back."""
    wanted = _areas(rings, rings.corners)
    points = _within(rings, rings.corners)
    for _ in range(ROUNDS):
        middle = (points[rings.before] + points[rings.after]) / 2
        points = _within(rings, points + STRENGTH * (middle - points))
        points = _swell(rings, points, wanted)
    for _ in range(MOST_CORRECTIONS):
        if (np.abs(_areas(rings, points) - wanted) <= SAME_AREA * np.abs(wanted)).all():
            break
        points = _swell(rings, points, wanted)
    return points


def _within(rings: _Rings, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return rings.corners + np.clip(points - rings.corners, rings.lowest, rings.highest)


def _swell(rings: _Rings, points: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move all points of a ring across it by what its area lacks."""
    chord = points[rings.after] - points[rings.before]
    across = np.stack([-chord[:, 1], chord[:, 0]], axis=1) / 2  # the gradient of the area
    steepness = np.bincount(rings.ring, weights=(across**2).sum(axis=1))
    step = (wanted - _areas(rings, points)) / np.maximum(steepness, 1e-12)
    return _within(rings, points + step[rings.ring][:, None] * across)


def _areas(rings: _Rings, points: NDArray[np.float64]) -> NDArray[np.float64]:
    following = points[rings.after]
    cross = points[:, 1] * following[:, 0] - following[:, 1] * points[:, 0]
    return np.bincount(rings.ring, weights=cross) / 2


def _group(points: Sequence[NDArray[np.float64]], of_part: Sequence[int]) -> tuple[Outline, ...]:
    found = []
    for part in dict.fromkeys(of_part):
        own = [ring for ring, number in zip(points, of_part, strict=True) if number == part]
        (outer,) = (ring for ring in own if signed_area(ring) > 0)
        found.append(Outline(outer=outer, holes=tuple(ring for ring in own if ring is not outer)))
    return tuple(found)
