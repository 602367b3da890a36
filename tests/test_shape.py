import numpy as np

from gpnet_node.model import shape
from gpnet_node.model.tissue import Tissue


def test_each_draw_is_another_head() -> None:
    first, second = (shape.draw(np.random.default_rng(seed)) for seed in (1, 2))

    assert not np.array_equal(first.displacement_mm, second.displacement_mm)


def test_the_same_draw_is_the_same_head() -> None:
    first, again = (shape.draw(np.random.default_rng(1)) for _ in range(2))

    assert np.array_equal(first.displacement_mm, again.displacement_mm)


def test_both_boxes_hold_a_whole_pallidum_with_a_border_inside() -> None:
    head = shape.draw(np.random.default_rng(1))

    for anatomy in head.sides.values():
        inside = anatomy.tissue == Tissue.GPE
        edge = [inside.take(k, axis=axis).any() for axis in range(3) for k in (0, -1)]
        assert 900 < inside.sum() * 0.6**3 < 2500  # mm3
        assert not any(edge)
        for border in anatomy.border.values():
            assert 0.1 < (border[inside] > 0).mean() < 0.6


def test_the_left_box_lies_to_the_left() -> None:
    head = shape.draw(np.random.default_rng(1))

    assert head.centres[0, 2] > head.centres[1, 2]  # LPS: x grows to the left


def test_the_model_is_small_enough_to_ship() -> None:
    assert shape.SHAPE_FILE.stat().st_size < 3_000_000
