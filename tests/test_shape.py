from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gpnet_node.model.drawing import atlas, shape
from gpnet_node.model.drawing.tissue import Tissue
from tests import anatomies

REFERENCE = "00"
OTHERS = ("01", "02")
BULGE_MM = 5.0


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


@dataclass(frozen=True, kw_only=True)
class Built:
    """A model of made heads: the reference, and two whose halves are stretched along y by 4 and 6 mm."""

    path: Path
    cache: Path
    told: tuple[str, ...]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("shape")
    made = anatomies.head()
    whole = made.tissue.repeat(2, 0).repeat(2, 1).repeat(2, 2)  # as large as a head that is registered
    boxes: dict[str, NDArray[np.generic]] = {"head_centres": made.centres * 2 + 0.5}
    for side, anatomy in made.sides.items():
        boxes[f"{side}_tissue"] = anatomy.tissue
        for name in atlas.BORDERS:
            boxes[f"{side}_border_{name}"] = anatomy.border[name]
    for number, name in enumerate((REFERENCE, *OTHERS)):
        bulge_mm = 0.0 if name == REFERENCE else BULGE_MM + 2.0 * (number - 1.5)
        tissue = bulged(whole, bulge_mm)
        np.savez(folder / f"{name}.npz", allow_pickle=False, head_tissue=tissue, **boxes)
    told: list[str] = []
    shape.build(folder, REFERENCE, OTHERS, folder / "shape.npz", told.append)
    return Built(path=folder / "shape.npz", cache=folder, told=tuple(told))


def bulged(tissue: NDArray[np.uint8], by_mm: float) -> NDArray[np.uint8]:
    """Looked up ``by_mm`` further forward in the front half, and further back in the back half."""
    y = np.arange(tissue.shape[1])
    looked_up = y - by_mm * np.sin(2 * np.pi * y / (len(y) - 1))
    return np.ascontiguousarray(tissue[:, looked_up.round().astype(int)])


def test_building_tells_of_each_person(built: Built) -> None:
    assert built.told == OTHERS


def test_a_built_model_holds_the_reference_s_boxes(built: Built) -> None:
    reference = shape.person(built.cache, REFERENCE)

    drawn = shape.draw(np.random.default_rng(1), built.path)

    for side, anatomy in reference.sides.items():
        inside = anatomy.tissue == Tissue.GPE
        assert np.array_equal(drawn.sides[side].tissue, anatomy.tissue)
        for name in atlas.BORDERS:
            away = drawn.sides[side].border[name][inside] - anatomy.border[name][inside]
            assert np.abs(away.astype(np.float32)).max() < 0.06  # kept in tenths of a millimetre


def test_a_built_model_keeps_each_centre_in_its_pallidum(built: Built) -> None:
    drawn = shape.draw(np.random.default_rng(1), built.path)

    for centre in drawn.centres.round().astype(int):
        assert drawn.tissue[tuple(centre)] == Tissue.GPE


def test_the_mean_bend_looks_the_others_shape_up_in_the_reference(built: Built) -> None:
    with np.load(built.path) as data:
        mean = data["mean_mm"].astype(np.float32)
    front, back = mean[:, 8:16, 5:8, 8:16], mean[:, 8:16, 16:19, 8:16]  # (3, z, y, x)

    # Less than 5 mm: the affine part has taken its share, and the field is smooth.
    assert float(front[1].mean()) < -0.5
    assert float(back[1].mean()) > 0.5
    # Along y alone; what registration finds along the others differs from run to run by half a millimetre.
    for half in (front, back):
        assert max(abs(float(half[axis].mean())) for axis in (0, 2)) < abs(float(half[1].mean()))


def test_a_draw_bends_the_head_by_the_mean_and_its_modes(built: Built) -> None:
    with np.load(built.path) as data:
        mean, modes = data["mean_mm"].astype(np.float32), data["modes_mm"].astype(np.float32)

    drawn = shape.draw(np.random.default_rng(1), built.path)

    away = drawn.displacement_mm - mean
    weight = float(
        (away * modes[0]).sum() / (modes[0] ** 2).sum()
    )  # the second mode of two people is nothing
    assert 0.01 < abs(weight) <= 2.05
    assert np.abs(away - weight * modes[0]).max() < 0.05
