"""What a closed polygon encloses and how far it runs from the border of pixels, for the self-check.

All in pixels: points are (n, 2), row and column, pixel centres at whole numbers.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# Two segments of one polygon that run back and forth this close are a channel to a hole (PS3.3 C.8.8.6.3),
# not a border of anything.
CHANNEL_PIXELS = 0.1
_AT_ONCE = 1 << 20


def area_and_moment(points: Points) -> tuple[float, Points]:
    """Area of a polygon without crossings, in pixels, and area times centre, (2,)."""
    origin = points.mean(axis=0)
    here = points - origin
    after = np.roll(here, -1, axis=0)
    cross = here[:, 0] * after[:, 1] - after[:, 0] * here[:, 1]
    sign = np.sign(cross.sum()) or 1.0
    area = float(abs(cross.sum()) / 2)
    return area, area * origin + sign * (cross[:, None] * (here + after)).sum(axis=0) / 6


def crossings(polygons: Sequence[Points]) -> int:
    """How many pairs of segments, of one polygon or of two, cross each other."""
    starts, ends = _segments(polygons)
    found = 0
    for part in _parts(len(starts), len(starts)):
        a, b = starts[part, None], ends[part, None]
        apart = _side(a, b, starts[None]) * _side(a, b, ends[None]) < 0
        across = _side(starts[None], ends[None], a) * _side(starts[None], ends[None], b) < 0
        found += int((apart & across).sum())
    return found // 2


def hausdorff(polygons: Sequence[Points], mask: NDArray[np.bool_]) -> float:
    """Largest distance between polygons and the border of a mask's pixels, either way, in pixels.

    Infinite where only one of the two is there. Channels to holes do not count.
    """
    borders = _borders(mask)
    if not polygons or not len(borders[0]):
        return 0.0 if not polygons and not len(borders[0]) else float("inf")
    starts, ends = _segments(polygons)
    real = ~np.concatenate([_in_channel(polygon) for polygon in polygons])
    on_polygons = np.concatenate([starts, (starts[real] + ends[real]) / 2])
    on_borders = np.concatenate([borders[0], (borders[0] + borders[1]) / 2, borders[1]])
    return max(
        _furthest(on_polygons, *borders),
        _furthest(on_borders, starts[real], ends[real]),
    )


def _segments(polygons: Sequence[Points]) -> tuple[Points, Points]:
    ends = [np.roll(polygon, -1, axis=0) for polygon in polygons]
    return np.concatenate([np.empty((0, 2)), *polygons]), np.concatenate([np.empty((0, 2)), *ends])


def _borders(mask: NDArray[np.bool_]) -> tuple[Points, Points]:
    """The sides of pixels that have the mask on one side only."""
    padded = np.pad(mask, 1)
    half_row, half_column = np.array([0.5, 0.0]), np.array([0.0, 0.5])
    down = np.argwhere(padded[1:] != padded[:-1]) + half_row - 1
    right = np.argwhere(padded[:, 1:] != padded[:, :-1]) + half_column - 1
    starts = np.concatenate([down - half_column, right - half_row])
    return starts, np.concatenate([down + half_column, right + half_row])


def _in_channel(polygon: Points) -> NDArray[np.bool_]:
    """For each segment, whether another one runs back along it."""
    starts, ends = _segments([polygon])
    found = np.zeros(len(polygon), dtype=bool)
    for part in _parts(len(polygon), len(polygon)):
        there = np.linalg.norm(starts[part, None] - ends[None], axis=2) < CHANNEL_PIXELS
        back = np.linalg.norm(ends[part, None] - starts[None], axis=2) < CHANNEL_PIXELS
        found[part] = (there & back).any(axis=1)
    short = np.linalg.norm(ends - starts, axis=1) < CHANNEL_PIXELS  # near any point: no channel by itself
    return np.asarray(found & ~short)


def _furthest(points: Points, starts: Points, ends: Points) -> float:
    """Largest distance from a point to the nearest segment."""
    furthest = 0.0
    way = ends - starts
    square = np.maximum((way**2).sum(axis=1), 1e-12)
    for part in _parts(len(points), len(starts)):
        offset = points[part, None] - starts[None]
        along = np.clip((offset * way).sum(axis=2) / square, 0, 1)
        distance = np.linalg.norm(offset - along[..., None] * way, axis=2)
        furthest = max(furthest, float(distance.min(axis=1, initial=np.inf).max(initial=0.0)))
    return furthest


def _side(start: Points, end: Points, point: Points) -> Points:
    way, offset = end - start, point - start
    return np.asarray(way[..., 0] * offset[..., 1] - way[..., 1] * offset[..., 0])


def _parts(count: int, others: int) -> Iterator[slice]:
    """Pieces of ``count`` that are compared with all ``others`` at once, so that memory stays small."""
    size = max(_AT_ONCE // max(others, 1), 1)
    return (slice(start, start + size) for start in range(0, count, size))
