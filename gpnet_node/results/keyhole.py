"""Joins a hole's outline to the outer one by a narrow channel: one polygon, as PS3.3 C.8.8.6.3 draws it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpnet_node.errors import SelfCheckError
from gpnet_node.results.outline import Outline

# Half the width of a channel, in pixels: less than points of one outline keep from those of another.
HALF_WIDTH = 0.005
# A channel keeps this far from every pixel centre and every point but its own ends, in pixels.
CLEAR = 0.03


def keyhole(outline: Outline) -> NDArray[np.float64]:
    """One polygon without crossings that encloses the part without its holes, (n, 2), row and column.

    Raises SelfCheckError where no straight channel to a hole is free.
    """
    points = outline.outer
    usable = np.ones(len(points), dtype=bool)  # may begin a channel: no end of another one
    holes = list(outline.holes)
    while holes:
        which, at, to = _free_channel(points, usable, holes)
        hole = holes.pop(which)
        inner = np.roll(hole, -to, axis=0)
        aside = _to_the_left(points[at], inner[0])
        way_in, way_out = [points[at] + aside, inner[0] + aside], [inner[0] - aside, points[at] - aside]
        points = np.concatenate([points[:at], way_in, inner[1:], way_out, points[at + 1 :]])
        ends = np.zeros(2, dtype=bool)
        inside = np.ones(len(inner) - 1, dtype=bool)
        usable = np.concatenate([usable[:at], ends, inside, ends, usable[at + 1 :]])
    return points


def _to_the_left(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the middle of a channel to the side that the outline comes in by: it has the part on its left."""
    row, column = (end - start) / np.linalg.norm(end - start)
    return HALF_WIDTH * np.array([column, -row])


def _free_channel(
    points: NDArray[np.float64], usable: NDArray[np.bool_], holes: list[NDArray[np.float64]]
) -> tuple[int, int, int]:
    """The shortest channel that meets nothing on its way: which hole, from which point, to which."""
    rings = [points, *holes]
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    for which, at, to in _by_length(points, usable, holes):
        if _is_free(points[at], holes[which][to], starts, ends):
            return which, at, to
    raise SelfCheckError("a hole of a contour cannot be reached by a straight channel: nothing is written")


def _by_length(
    points: NDArray[np.float64], usable: NDArray[np.bool_], holes: list[NDArray[np.float64]]
) -> Iterator[tuple[int, int, int]]:
    inner = np.concatenate(holes)
    which = np.repeat(np.arange(len(holes)), [len(hole) for hole in holes])
    first = np.repeat(np.cumsum([0, *(len(hole) for hole in holes[:-1])]), [len(hole) for hole in holes])
    outer = np.flatnonzero(usable)
    length = np.linalg.norm(points[outer][:, None] - inner[None], axis=2)
    for index in np.argsort(length, axis=None, kind="stable"):
        at, to = divmod(int(index), len(inner))
        yield int(which[to]), int(outer[at]), int(to - first[to])


def _is_free(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
) -> bool:
    """Whether the way crosses no segment, and passes no other point and no pixel centre closely."""
    own = (starts == start).all(axis=1) | (starts == end).all(axis=1)
    low, high = np.floor(np.minimum(start, end)), np.ceil(np.maximum(start, end))
    rows, columns = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1]
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1)
    if (_distance(start, end, np.concatenate([starts[~own], centres])) < CLEAR).any():
        return False
    way = end - start
    own_end = (ends == start).all(axis=1) | (ends == end).all(axis=1)
    others = ~own & ~own_end
    first, last = starts[others], ends[others]
    beside = _turn(start, way, first) * _turn(start, way, last) < 0
    segment = last - first
    across = _turn(first, segment, start) * _turn(first, segment, end) < 0
    return not bool((beside & across).any())


def _distance(
    start: NDArray[np.float64], end: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    way = end - start
    along = np.clip((points - start) @ way / (way @ way), 0, 1)
    return np.asarray(np.linalg.norm(start + along[:, None] * way - points, axis=1))


def _turn(
    origin: NDArray[np.float64], direction: NDArray[np.float64], point: NDArray[np.float64]
) -> NDArray[np.float64]:
    offset = point - origin
    return np.asarray(direction[..., 0] * offset[..., 1] - direction[..., 1] * offset[..., 0])
