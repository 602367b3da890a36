import numpy as np
import pytest
from hypothesis import example, given, settings
from numpy.typing import NDArray

from gpnet_node.errors import SelfCheckError
from gpnet_node.results.check.polygons import crossings, hausdorff
from gpnet_node.results.keyhole import keyhole
from gpnet_node.results.outline import Outline, outlines, signed_area
from tests.test_outline import MASKS, filled


def holes(shape: tuple[int, int], *pixels: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.ones(shape, dtype=bool)
    mask[tuple(np.transpose(pixels))] = False
    return mask


@settings(max_examples=150, deadline=None)
@given(mask=MASKS)
@example(mask=holes((11, 10), (7, 3), (9, 5)))  # a channel that leaves a hole along its own side
def test_one_polygon_per_part_says_what_the_outlines_with_their_holes_say(mask: NDArray[np.bool_]) -> None:
    polygons = [keyhole(outline) for outline in outlines(mask)]

    assert np.array_equal(filled(polygons, mask.shape), mask)
    assert all(signed_area(polygon) > 0 for polygon in polygons)
    assert sum(map(signed_area, polygons)) == pytest.approx(mask.sum(), rel=0.03)
    assert crossings(polygons) == 0
    assert hausdorff(polygons, mask) <= 1


def test_a_part_without_a_hole_is_its_outline() -> None:
    (outline,) = outlines(np.ones((3, 4), dtype=bool))

    assert np.array_equal(keyhole(outline), outline.outer)


def test_a_hole_that_no_channel_reaches_is_an_error() -> None:
    corners = np.array([[0.0, 0.0], [0.0, 8.0], [8.0, 8.0], [8.0, 0.0]])  # on pixel centres, so never free

    with pytest.raises(SelfCheckError, match="cannot be reached"):
        keyhole(Outline(outer=corners, holes=(corners[::-1] / 4 + 3,)))
