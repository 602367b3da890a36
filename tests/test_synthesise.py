from dataclasses import replace

import numpy as np
import pytest
import torch

from gpnet_node.model.drawing.atlas import Anatomy
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.scene import Contrast, DrawSettings, Lesion, Scene, Visibility, signals
from gpnet_node.model.drawing.synthesise import (
    GPI,
    deform,
    divide,
    draw_box,
    paint,
    rotation,
    sample,
    sampling_grid,
    towards_fluid,
)
from gpnet_node.model.drawing.tissue import Tissue
from gpnet_node.model.intensity import normalise
from tests import anatomies

SHAPE = (44, 56, 44)
RIGID = DrawSettings(anisotropy_sd=0, elastic_mm=0)
VOXEL_MM3 = BOX_SPACING_MM**3
CLEAR = Scene(contrast=Contrast.T2, visibility=Visibility.CLEAR)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return anatomies.anatomy()


# --- shape


@pytest.mark.parametrize("asked_mm3", [1300.0, 1750.0, 2200.0])
def test_the_pallidum_is_scaled_to_the_volume_that_was_drawn(anatomy: Anatomy, asked_mm3: float) -> None:
    settings = replace(RIGID, pallidum_mm3=(asked_mm3, asked_mm3))
    for seed in range(3):
        tissue, _ = deform(anatomy, np.random.default_rng(seed), SHAPE, settings, 0.0)

        assert int((tissue == Tissue.GPE).sum()) * VOXEL_MM3 == pytest.approx(asked_mm3, rel=0.02)


def test_pallida_of_1300_to_2200_mm3_are_drawn(anatomy: Anatomy) -> None:
    volumes = []
    for seed in range(16):
        tissue, _ = deform(anatomy, np.random.default_rng(seed), SHAPE, RIGID, 0.0)
        volumes.append(int((tissue == Tissue.GPE).sum()) * VOXEL_MM3)

    assert 1280 < min(volumes) < 1500
    assert 2000 < max(volumes) < 2230


def test_the_same_seed_deforms_alike(anatomy: Anatomy) -> None:
    first, again, other = (
        deform(anatomy, np.random.default_rng(seed), SHAPE, DrawSettings(), 2.0) for seed in (1, 1, 2)
    )

    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_wider_ventricles_hold_more_fluid_and_leave_the_pallidum_its_size(anatomy: Anatomy) -> None:
    narrow, wide = (
        deform(anatomy, np.random.default_rng(4), SHAPE, RIGID, ventricle_mm)[0]
        for ventricle_mm in (0.0, 3.5)
    )
    fluid, pallidum = (
        [int((tissue == kind).sum()) for tissue in (narrow, wide)] for kind in (Tissue.CSF, Tissue.GPE)
    )

    assert fluid[1] > 1.15 * fluid[0]
    assert pallidum[1] == pytest.approx(pallidum[0], rel=0.05)


def test_the_way_to_fluid_points_at_it_and_fades() -> None:
    tissue = torch.ones(24, 24, 48, dtype=torch.uint8)
    tissue[:, :, :12] = Tissue.CSF
    way = towards_fluid(tissue, 0.6)[12, 12]

    assert way.shape == (48, 3)
    assert float(way[14, 2]) < -0.5
    assert abs(float(way[14, 0])) + abs(float(way[14, 1])) < 0.1
    assert float(way[:, 2].abs().max()) <= 1.0
    assert float(way[40].norm()) < 0.05


def test_without_fluid_there_is_no_way_to_it() -> None:
    assert not towards_fluid(torch.ones(12, 12, 12, dtype=torch.uint8), 0.6).any()


# --- signal


def test_a_scene_s_lesions_are_painted_and_marked(anatomy: Anatomy) -> None:
    border = torch.from_numpy(anatomy.border["allen"]).float()
    divided = divide(torch.from_numpy(anatomy.tissue), border, np.random.default_rng(1), DrawSettings())
    scene = replace(CLEAR, lesions=(Lesion.LACUNE, Lesion.LEAD))
    means = signals(np.random.default_rng(1), scene)

    image, marked = paint(divided, scene, means, np.random.default_rng(1), BOX_SPACING_MM)
    _, unhurt = paint(divided, CLEAR, means, np.random.default_rng(1), BOX_SPACING_MM)

    assert marked.any()
    assert not unhurt.any()
    assert bool(torch.isfinite(image).all())


# --- the whole sample


def test_the_same_seed_draws_the_same_box(anatomy: Anatomy) -> None:
    first, again, other = (
        draw_box(anatomy, np.random.default_rng([7, seed]), SHAPE, DrawSettings()) for seed in (3, 3, 4)
    )

    assert torch.equal(first.image, again.image)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.lesion, again.lesion)
    assert not torch.equal(first.image, other.image)


def test_every_box_is_a_normalised_image_of_a_divided_pallidum(anatomy: Anatomy) -> None:
    for seed in range(12):
        drawn = draw_box(anatomy, np.random.default_rng(seed), SHAPE, DrawSettings())

        assert drawn.image.shape == drawn.labels.shape == drawn.lesion.shape == SHAPE
        assert bool(torch.isfinite(drawn.image).all())
        assert float(drawn.image.mean()) == pytest.approx(0, abs=1e-3)
        assert float(drawn.image.std()) == pytest.approx(1, abs=1e-3)
        assert 1000 < int((drawn.labels > 0).sum()) * VOXEL_MM3 < 2800
        share = float((drawn.labels == GPI).sum() / (drawn.labels > 0).sum())
        assert 0.14 < share < 0.55  # of 0.27-0.40, from which the border then moves


def test_lesions_come_when_they_are_asked_for(anatomy: Anatomy) -> None:
    never, always = (
        [
            bool(draw_box(anatomy, np.random.default_rng(seed), SHAPE, settings).lesion.any())
            for seed in range(10)
        ]
        for settings in (DrawSettings(lesion_share=0.0), DrawSettings(lesion_share=1.0))
    )

    assert not any(never)
    assert sum(always) >= 5  # perivascular spaces are not marked


def test_a_slab_that_ends_in_the_box_shows_nothing_beyond_and_keeps_its_labels(anatomy: Anatomy) -> None:
    for seed in range(4):
        whole, ended = (
            draw_box(anatomy, np.random.default_rng(seed), SHAPE, DrawSettings(cut_share=cut_share))
            for cut_share in (0.0, 1.0)
        )
        beyond = ended.image == ended.image.min()
        ends = [bool(beyond.movedim(axis, 0)[end].all()) for axis in range(3) for end in (0, -1)]

        assert torch.equal(whole.labels, ended.labels)
        assert sum(ends) == 1


# --- tools of the drawing


def test_an_identity_grid_gives_the_source_back_and_nothing_lies_outside() -> None:
    source = torch.rand(6, 7, 8)

    same = sample(source, sampling_grid((6, 7, 8), np.eye(3), np.zeros(3)), "bilinear")
    moved = sample(source, sampling_grid((6, 7, 8), np.eye(3), np.array([0.0, 0.0, 1.0])), "nearest")

    assert torch.allclose(same, source, atol=1e-5)
    assert torch.allclose(moved[..., :-1], source[..., 1:])
    assert not moved[..., -1].any()


def test_normalising_forgets_scale_and_offset() -> None:
    image = torch.rand(16, 16, 16)

    assert torch.allclose(normalise(image), normalise(image * 731 + 42), atol=1e-3)


def test_a_rotation_keeps_lengths_and_hands_and_is_never_far() -> None:
    for seed in range(50):
        turned = rotation(np.random.default_rng(seed), 20.0)

        assert np.allclose(turned @ turned.T, np.eye(3))
        assert np.linalg.det(turned) == pytest.approx(1)
        assert np.rad2deg(np.arccos((np.trace(turned) - 1) / 2)) <= 56.0001
