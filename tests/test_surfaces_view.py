from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.page.planes import LEFT, POSTERIOR, SUPERIOR, Plane
from gpnet_node.results.page.surfaces_view import STEP_MM, look_at
from tests.factories import normal_of
from tests.pallida import OBLIQUE

FRONT = Plane(centre_mm=np.zeros(3), right=LEFT, down=-SUPERIOR, width_mm=60.0, height_mm=30.0)
FEET = Plane(centre_mm=np.zeros(3), right=LEFT, down=POSTERIOR, width_mm=60.0, height_mm=40.0)


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def balls(*centres_mm: tuple[int, tuple[float, float, float]], radius_mm: float = 6.0) -> LabelMap:
    """A label map on an oblique grid with one ball for each number and centre."""
    shape = (50, 60, 70)
    affine = np.eye(4)
    axes = np.array([normal_of(OBLIQUE), OBLIQUE[3:], OBLIQUE[:3]]).T
    affine[:3, :3], affine[:3, 3] = axes, -axes @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    labels = np.zeros(shape, np.uint8)
    for number, centre in centres_mm:
        labels[np.linalg.norm(places - np.array(centre), axis=-1) < radius_mm] = number
    patient = hd.CoordinateSystemNames.PATIENT
    geometry = hd.VolumeGeometry(affine=affine, spatial_shape=shape, coordinate_system=patient)
    return LabelMap(labels=labels, geometry=geometry)


def view(labels: LabelMap, card: ModelCard, plane: Plane) -> NDArray[np.float64]:
    return look_at(labels, card, np.asarray(labels.geometry.affine, float), plane)


def test_a_ball_is_seen_as_a_disc_of_its_size_at_its_place(card: ModelCard) -> None:
    image = view(balls((2, (12.0, 3.0, -4.0))), card, FRONT)

    rows, columns = np.nonzero(image[..., 3])
    assert len(rows) * STEP_MM**2 == pytest.approx(np.pi * 36, rel=0.06)
    assert (columns.mean() - image.shape[1] // 2) * STEP_MM == pytest.approx(12, abs=0.3)
    assert (rows.mean() - image.shape[0] // 2) * STEP_MM == pytest.approx(4, abs=0.3)


def test_it_has_its_colour_and_is_lit_from_the_upper_left(card: ModelCard) -> None:
    image = view(balls((2, (0.0, 0.0, 0.0))), card, FRONT)

    middle, step = np.array(image.shape[:2]) // 2, round(3 / STEP_MM)
    upper_left, lower_right = image[tuple(middle - step)], image[tuple(middle + step)]
    colour = np.array(card.structures[1].colour) / 255
    assert image[tuple(middle)][3] == 1
    assert upper_left[:3].sum() > 1.4 * lower_right[:3].sum()
    shade = lower_right[:3] / colour
    assert shade == pytest.approx([shade.mean()] * 3, rel=0.02)


@pytest.mark.parametrize(
    ("plane", "near"), [(FRONT, (0.0, -14.0, 0.0)), (FEET, (0.0, 0.0, -14.0))], ids=["front", "feet"]
)
def test_the_nearer_of_two_hides_the_farther(
    card: ModelCard, plane: Plane, near: tuple[float, float, float]
) -> None:
    far = tuple(-x for x in near)
    image = view(balls((2, near), (4, (far[0], far[1], far[2]))), card, plane)

    centre = image[image.shape[0] // 2, image.shape[1] // 2]
    blue, green = (np.array(card.structures[number].colour) / 255 for number in (1, 3))
    assert abs(centre[:3] / centre[:3].max() - blue / blue.max()).max() < 0.25
    assert abs(centre[:3] / centre[:3].max() - green / green.max()).max() > 0.25


def test_the_smaller_structure_is_seen_through_the_larger(card: ModelCard) -> None:
    behind = view(balls((1, (0, -8.0, 0)), (2, (0, 8.0, 0)), radius_mm=5), card, FRONT)
    alone = view(balls((1, (0, -8.0, 0)), radius_mm=5), card, FRONT)

    middle = tuple(np.array(behind.shape[:2]) // 2)
    assert (behind[middle][3], round(float(alone[middle][3]), 2)) == (1, 0.62)
    assert behind[middle][2] > alone[middle][2] + 0.1  # blue shines through orange


def test_what_lies_beyond_the_view_is_cut_off_and_nothing_is_seen_of_nothing(card: ModelCard) -> None:
    half = view(balls((1, (-27.0, 0.0, 0.0)), radius_mm=5), card, FRONT)
    none = view(balls(), card, FRONT)

    assert half[:, 0, 3].any()
    assert not half[:, half.shape[1] // 2 :, 3].any()
    assert not none.any()
