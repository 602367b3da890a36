import numpy as np
import pytest
from numpy.typing import NDArray

from gpnet_node.results.check.polygons import area_and_moment, crossings, hausdorff

SQUARE = np.array([[-0.5, -0.5], [-0.5, 3.5], [3.5, 3.5], [3.5, -0.5]])  # around 4 x 4 pixels
MASK = np.ones((4, 4), dtype=bool)


@pytest.mark.parametrize("polygon", [SQUARE, SQUARE[::-1]], ids=["one way round", "the other"])
def test_area_and_centre_do_not_depend_on_the_direction(polygon: NDArray[np.float64]) -> None:
    area, moment = area_and_moment(polygon)

    assert area == pytest.approx(16)
    assert moment / area == pytest.approx([1.5, 1.5])


def test_the_centre_of_a_triangle_is_the_mean_of_its_corners() -> None:
    triangle = np.array([[10.0, 4.0], [13.0, 4.0], [10.0, 10.0]])

    area, moment = area_and_moment(triangle)

    assert area == pytest.approx(9)
    assert moment / area == pytest.approx(triangle.mean(axis=0))


def test_segments_that_cross_are_counted_in_one_polygon_and_between_two() -> None:
    bow = SQUARE[[0, 2, 1, 3]]

    assert crossings([SQUARE]) == 0
    assert crossings([bow]) == 1
    assert crossings([SQUARE, SQUARE + 1.0]) == 2
    assert crossings([SQUARE, SQUARE + 9.0]) == 0


def test_the_distance_is_that_of_the_furthest_point_either_way() -> None:
    spike = np.vstack([SQUARE, [[1.5, -2.5]]])

    assert hausdorff([SQUARE], MASK) == pytest.approx(0)
    assert hausdorff([SQUARE + np.array([0.0, 0.75])], MASK) == pytest.approx(0.75)
    assert hausdorff([spike], MASK) == pytest.approx(2)
    assert hausdorff([SQUARE], np.pad(MASK, ((0, 3), (0, 0)))) == pytest.approx(0)
    assert hausdorff([SQUARE], np.ones((7, 4), dtype=bool)) == pytest.approx(3)


def test_only_one_of_the_two_is_an_infinite_distance() -> None:
    nothing = np.zeros((4, 4), dtype=bool)

    assert hausdorff([], MASK) == float("inf")
    assert hausdorff([SQUARE], nothing) == float("inf")
    assert hausdorff([], nothing) == 0


def test_a_channel_to_a_hole_is_no_border_but_the_hole_is() -> None:
    mask = np.ones((9, 9), dtype=bool)
    mask[4, 4] = False
    outer = np.array([[-0.5, -0.5], [-0.5, 8.5], [8.5, 8.5], [8.5, -0.5]])
    inner = np.array([[3.5, 3.5], [4.5, 3.5], [4.5, 4.5], [3.5, 4.5]])
    way_in, way_out = [[-0.5, 3.49], [3.5, 3.49]], [[3.5, 3.51], [-0.5, 3.51]]
    keyhole = np.vstack([outer[:1], way_in, inner[1:], way_out, outer[1:]])

    assert hausdorff([keyhole], mask) < 0.1
    assert hausdorff([outer], mask) > 3
    assert hausdorff([keyhole], np.ones((9, 9), dtype=bool)) > 3
