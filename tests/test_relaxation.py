from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from gpnet_node.model.drawing import shape
from gpnet_node.model.drawing.composition import COMPOSITION, Matter, draw_matter
from gpnet_node.model.drawing.pose import (
    PosedHead,
    Seeds,
    look_up_plane,
    over_slices,
    pose,
    segment_masks,
    shares,
)
from gpnet_node.model.drawing.relaxation import draw_protocol, render, signal
from gpnet_node.model.drawing.scene import Contrast, Lesion, Scene, Visibility
from gpnet_node.model.drawing.tissue import Tissue
from gpnet_node.model.evaluation.cohort import slab_geometry
from tests.drawn import CLEAR, PLAIN

GEOMETRY = slab_geometry((1.5, 0.8, 0.8), 6, field_mm=120.0)
PURE = replace(CLEAR, snr=300.0, bias=0.0)
CONTROL = replace(PURE, visibility=Visibility.ABSENT, segments_differ=False)


@lru_cache(maxsize=1)
def posed() -> PosedHead:
    return pose(shape.draw(np.random.default_rng(1)), PURE, Seeds.all(1), PLAIN)


@lru_cache(maxsize=8)
def rendered(scene: Scene, seed: int = 1) -> NDArray[np.float32]:
    return render(posed(), scene, GEOMETRY, seed)


@lru_cache(maxsize=1)
def truth() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """GPe and GPi of both sides, where they fill a voxel."""
    gpe, gpi = (over_slices(GEOMETRY, 1, partial(share_of, part)) for part in (0, 1))
    return gpe > 0.9, gpi > 0.9


def share_of(part: int, lps_mm: NDArray[np.float64]) -> Tensor:
    where = look_up_plane(posed(), lps_mm)
    left, right = (
        shares(posed(), side, segment_masks(divided), where)[part] for side, divided in posed().sides.items()
    )
    return torch.maximum(left, right)


def person(age_years: float = 55.0, *, segments_differ: bool = True, seed: int = 0) -> Matter:
    scene = replace(PURE, age_years=age_years, segments_differ=segments_differ)
    return draw_matter(np.random.default_rng(seed), scene)


def signals(contrast: Contrast, matter: Matter, b1: float = 1.0) -> NDArray[np.float32]:
    return signal(matter, draw_protocol(np.random.default_rng(0), contrast), b1)


@pytest.mark.parametrize(
    ("tissue", "mg_per_100g"), [(Tissue.GPE, 20.341), (Tissue.PUTAMEN, 10.677), (Tissue.CAUDATE, 7.835)]
)
def test_iron_at_thirty_years_is_that_of_the_published_curves(tissue: Tissue, mg_per_100g: float) -> None:
    assert COMPOSITION[tissue].iron(30) == pytest.approx(mg_per_100g, abs=1e-3)


@pytest.mark.parametrize("contrast", [Contrast.T2, Contrast.T2STAR])
def test_the_pallidum_is_dark_and_darker_with_age(contrast: Contrast) -> None:
    for seed in range(5):
        by_age = [signals(contrast, person(age, seed=seed)) for age in (22.0, 50.0, 80.0)]
        pallidum = [float(s[Tissue.GPE] / s[Tissue.WHITE_MATTER]) for s in by_age]
        assert 0.65 > pallidum[0] > pallidum[1] > pallidum[2] > 0.1


def test_t2_shows_fluid_brightest_and_t1_white_matter() -> None:
    t2, t1 = signals(Contrast.T2, person()), signals(Contrast.T1, person())

    assert t2[Tissue.CSF] > t2[Tissue.CORTEX] > t2[Tissue.WHITE_MATTER] > t2[Tissue.GPE]
    assert t1[Tissue.WHITE_MATTER] > t1[Tissue.PUTAMEN] > t1[Tissue.CORTEX] > abs(t1[Tissue.CSF])


def test_a_control_has_one_signal_for_both_segments() -> None:
    control = signals(Contrast.T2, person(segments_differ=False))
    other = signals(Contrast.T2, person())

    assert control[Tissue.GPI] == control[Tissue.GPE]
    assert other[Tissue.GPI] != other[Tissue.GPE]


def test_a_smaller_flip_angle_is_no_plain_factor() -> None:
    full, half = signals(Contrast.T2, person()), signals(Contrast.T2, person(), b1=0.5)

    assert half[Tissue.WHITE_MATTER] < 0.8 * full[Tissue.WHITE_MATTER]
    assert half[Tissue.GPE] / half[Tissue.CSF] > 1.3 * full[Tissue.GPE] / full[Tissue.CSF]


def test_the_dark_pallidum_lies_where_the_truth_says() -> None:
    image, inside = rendered(PURE), truth()[0] | truth()[1]
    away_mm = ndimage.distance_transform_edt(~inside, sampling=GEOMETRY.spacing)

    assert inside.sum() > 500
    assert image[inside].mean() < 0.65 * np.median(image[(away_mm > 1) & (away_mm < 4)])
    for shift in (-2, 2):  # voxels to either side
        assert image[inside].mean() < 0.9 * image[np.roll(inside, shift, axis=2)].mean()


def test_the_lamina_is_bright_in_the_image_but_not_in_a_controls() -> None:
    gpe, gpi = truth()
    border = ndimage.binary_dilation(gpi, iterations=1) & ndimage.binary_dilation(gpe, iterations=1)
    rest = (gpe | gpi) & ~ndimage.binary_dilation(border, iterations=2)
    border &= ndimage.binary_erosion(gpe | gpi | border)

    clear, control = (image[border].mean() / image[rest].mean() for image in map(rendered, (PURE, CONTROL)))

    assert clear > control + 0.1
    assert control == pytest.approx(1, abs=0.06)


def test_the_seed_decides_everything() -> None:
    small = slab_geometry((2.0, 2.0, 2.0), 2, field_mm=80.0)

    first, again, other = (render(posed(), CLEAR, small, seed) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_signal_fits_twelve_bits_and_the_grid() -> None:
    image = rendered(PURE)

    assert image.shape == tuple(GEOMETRY.spatial_shape)
    assert image.dtype == np.float32
    assert 0 <= float(image.min()) < 400
    assert 3500 < float(image.max()) <= 4095


def test_a_lesion_is_drawn_on_its_side_only() -> None:
    hurt = rendered(replace(PURE, lesions=(Lesion.LACUNE,), lesion_sides=("left",)))

    changed = np.abs(hurt - rendered(PURE)) > 200
    columns = np.argwhere(changed)[:, 2]

    assert changed.sum() > 20
    assert columns.min() > changed.shape[2] // 2  # columns grow to the patient's left
