import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from gpnet_node.results.check.polygons import crossings, hausdorff
from gpnet_node.results.outline import Outline, outlines, signed_area

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def rings(found: tuple[Outline, ...]) -> list[NDArray[np.float64]]:
    return [ring for outline in found for ring in (outline.outer, *outline.holes)]


def filled(polygons: list[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies inside an odd number of the polygons, by matplotlib."""
    centres = np.argwhere(np.ones(shape, dtype=bool))
    inside = [Polygon(np.vstack([ring, ring[:1]]), closed=True).contains_points(centres) for ring in polygons]
    times: NDArray[np.float64] = np.sum([np.zeros(len(centres)), *inside], axis=0)
    return np.asarray(times.reshape(shape) % 2 == 1, dtype=np.bool_)


def ellipse(rows: float, columns: float, shape: tuple[int, int] = (60, 80)) -> NDArray[np.bool_]:
    row, column = np.indices(shape)
    return np.asarray(((row - 30.2) / rows) ** 2 + ((column - 40.3) / columns) ** 2 < 1)


@settings(max_examples=150, deadline=None)
@given(mask=MASKS)
def test_the_outlines_of_any_mask_keep_its_pixels_and_area_and_never_cross(mask: NDArray[np.bool_]) -> None:
    found = rings(outlines(mask))

    assert np.array_equal(filled(found, mask.shape), mask)
    assert sum(map(signed_area, found)) == pytest.approx(mask.sum(), rel=2e-2)
    assert crossings(found) == 0
    assert hausdorff(found, mask) < 0.71


def test_a_single_pixel_is_a_square_of_its_area() -> None:
    mask = np.zeros((5, 5), dtype=bool)
    mask[3, 1] = True

    (outline,) = outlines(mask)

    assert signed_area(outline.outer) == pytest.approx(1, abs=1e-3)
    assert outline.outer.mean(axis=0) == pytest.approx([3, 1])
    assert outline.holes == ()


def test_pixels_that_touch_at_a_corner_are_two_parts_that_do_not_touch() -> None:
    first, second = outlines(np.eye(2, dtype=bool))

    assert np.linalg.norm(first.outer[:, None] - second.outer[None], axis=2).min() > 0.1


def test_a_hole_and_the_island_in_it_are_told_apart() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[1:8, 1:8] = True
    mask[3:6, 3:6] = False
    mask[4, 4] = True

    ring, island = sorted(outlines(mask), key=lambda outline: -len(outline.outer))

    assert signed_area(ring.outer) == pytest.approx(49, rel=1e-3)
    assert [signed_area(hole) for hole in ring.holes] == pytest.approx([-9], rel=1e-2)
    assert signed_area(island.outer) == pytest.approx(1, rel=1e-2)


def test_an_outline_is_smooth_below_the_pixel() -> None:
    mask = ellipse(15, 26)

    (outline,) = outlines(mask)

    inside = ((outline.outer - [30.2, 40.3]) / [15, 26]) ** 2
    off_pixels = np.abs(np.sqrt(inside.sum(axis=1)) - 1) * 15
    assert off_pixels.mean() < 0.15  # the staircase itself is 0.25 off
    length = np.linalg.norm(outline.outer - np.roll(outline.outer, 1, axis=0), axis=1).sum()
    perimeter = np.pi * (3 * (15 + 26) - np.sqrt((3 * 15 + 26) * (15 + 3 * 26)))
    assert length == pytest.approx(perimeter, rel=0.01)  # the staircase is 27 % longer


def test_an_empty_mask_has_no_outline() -> None:
    assert outlines(np.zeros((3, 4), dtype=bool)) == ()
