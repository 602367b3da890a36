from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from gpnet_node.model.drawing.scanner import blur, expose, resolve, smooth_field
from gpnet_node.model.drawing.scene import Artefact, Contrast, Scene, Visibility

SHAPE = (24, 32, 40)
SPACING_MM = (1.0, 0.6, 0.6)
QUIET = Scene(contrast=Contrast.T2, visibility=Visibility.CLEAR, bias=0.0, snr=1e9)


@pytest.fixture
def image() -> Tensor:
    """A bright block, with an edge in every direction, in a dim surround."""
    image = torch.full(SHAPE, 0.2)
    image[8:16, 10:16, 14:22] = 1.0
    return image


def exposed(image: Tensor, scene: Scene, *, seed: int = 1, slice_axis: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return expose(rng, image, scene, spacing_mm=SPACING_MM, slice_axis=slice_axis)


def test_a_quiet_scanner_without_fields_gives_the_image_back(image: Tensor) -> None:
    assert torch.allclose(exposed(image, QUIET), image, atol=1e-4)


@pytest.mark.parametrize("artefact", [None, *Artefact])
def test_the_same_seed_gives_the_same_image(image: Tensor, artefact: Artefact | None) -> None:
    scene = replace(QUIET, bias=0.3, snr=20.0, drop_out=0.4, artefact=artefact)

    assert torch.equal(exposed(image, scene), exposed(image, scene))
    assert not torch.equal(exposed(image, scene), exposed(image, scene, seed=2))


@pytest.mark.parametrize("artefact", Artefact)
def test_artefacts_change_the_image_but_not_its_size(image: Tensor, artefact: Artefact) -> None:
    changed = exposed(image, replace(QUIET, artefact=artefact))

    assert changed.shape == image.shape
    assert float((changed - image).abs().max()) > 0.01
    assert float(changed.mean()) == pytest.approx(float(image.mean()), rel=0.15)


@pytest.mark.parametrize("slice_axis", range(3))
def test_motion_between_slices_moves_odd_slices_only(image: Tensor, slice_axis: int) -> None:
    moved = exposed(image, replace(QUIET, artefact=Artefact.SLICE_MOTION), slice_axis=slice_axis)

    change = (moved - image).abs().movedim(slice_axis, 0)
    block = image.movedim(slice_axis, 0).amax((1, 2)) > 0.5
    odd = torch.arange(len(block)) % 2 == 1

    assert float(change[~odd].max()) < 1e-4
    assert bool((change[odd & block].amax((1, 2)) > 0.05).all())


@pytest.mark.parametrize("artefact", [Artefact.GHOSTING, Artefact.MOTION])
@pytest.mark.parametrize("slice_axis", range(3))
def test_ghosts_and_motion_stay_in_their_slice(image: Tensor, artefact: Artefact, slice_axis: int) -> None:
    image = image * 0 + torch.where(image > 0.5, image, 0)
    changed = exposed(image, replace(QUIET, artefact=artefact), slice_axis=slice_axis)

    empty = image.movedim(slice_axis, 0).amax((1, 2)) == 0

    assert float(changed.movedim(slice_axis, 0)[empty].max()) < 1e-5


def test_a_ghost_shows_the_object_again_elsewhere(image: Tensor) -> None:
    image = torch.where(image > 0.5, image, 0)
    for seed in range(6):
        ghosted = exposed(image, replace(QUIET, artefact=Artefact.GHOSTING), seed=seed)
        ghost = float(ghosted[image == 0].max())

        assert 0.01 < ghost < 0.1


def test_a_drop_out_takes_at_most_its_depth_and_spares_what_is_far(image: Tensor) -> None:
    deepest = []
    for seed in range(8):
        kept = exposed(torch.ones(SHAPE), replace(QUIET, drop_out=0.6), seed=seed)
        deepest.append(float(kept.min()))

        assert 0.4 - 1e-3 <= float(kept.min()) <= float(kept.max()) <= 1 + 1e-3

    assert min(deepest) < 0.45
    wide = expose(
        np.random.default_rng(1),
        torch.ones(SHAPE),
        replace(QUIET, drop_out=0.6),
        spacing_mm=(8, 8, 8),
        slice_axis=0,
    )
    assert float(wide.max()) > 0.99


def test_a_bias_field_is_smooth_and_positive() -> None:
    field = exposed(torch.ones(60, 60, 60), replace(QUIET, bias=0.35))

    steps = [float(field.diff(dim=axis).abs().max()) for axis in range(3)]

    assert float(field.min()) > 0
    assert float(field.std()) > 0.03
    assert max(steps) < 0.12 * float(field.max() - field.min())


def test_noise_is_rician() -> None:
    image = torch.ones(SHAPE)
    image[:12] = 0
    noisy = exposed(image, replace(QUIET, snr=10.0))  # deviation 0.1

    assert float(noisy.min()) >= 0
    assert float(noisy[:12].mean()) == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.03)  # Rayleigh
    assert float(noisy[12:].std()) == pytest.approx(0.1, rel=0.03)
    assert float(noisy[12:].mean()) == pytest.approx(1.005, abs=0.003)  # lifted by sigma^2 / 2


def test_noise_follows_the_signal_to_noise_ratio() -> None:
    for snr in (8.0, 40.0):
        noisy = exposed(torch.full(SHAPE, 700.0), replace(QUIET, snr=snr))

        assert float(noisy.mean() / noisy.std()) == pytest.approx(snr, rel=0.03)


def test_an_image_of_nothing_gets_noise_only() -> None:
    noisy = exposed(torch.zeros(SHAPE), replace(QUIET, snr=10.0))

    assert 0 < float(noisy.mean()) < 0.5


def test_partial_volume_keeps_the_mean_and_dims_what_is_small() -> None:
    image = torch.zeros(40, 40, 40)
    image[18:22, 14:26, 14:26] = 1.0
    thin = resolve(image, 0.6, (2.0, 0.6, 0.6))
    sharp = resolve(image, 0.6, (0.6, 0.6, 0.6))

    assert float(thin.mean()) == pytest.approx(float(image.mean()), rel=0.06)
    assert float(thin.max()) < float(sharp.max()) <= 1.0


def test_what_is_acquired_has_the_acquired_voxels_but_never_finer_ones() -> None:
    image = torch.rand(40, 50, 60)

    assert resolve(image, 0.6, (1.2, 0.6, 1.0)).shape == (20, 50, 36)
    assert resolve(image, 0.6, (0.3, 0.4, 0.5)).shape == image.shape
    assert min(resolve(image, 0.6, (9.0, 9.0, 9.0)).shape) == 8


def test_a_coarser_slice_shifts_nothing() -> None:
    image = torch.zeros(41, 41, 41)
    image[14:27, 14:27, 14:27] = 1.0

    coarse = resolve(image, 0.6, (2.0, 0.6, 0.6))

    run = torch.arange(len(coarse), dtype=torch.float32)
    centre = float((coarse.sum((1, 2)) * run).sum() / coarse.sum())
    assert centre == pytest.approx((len(coarse) - 1) / 2, abs=0.01)


def test_blurring_keeps_the_sum_of_a_point_away_from_the_edge() -> None:
    image = torch.zeros(21, 21, 21)
    image[10, 10, 10] = 1

    blurred = blur(image, (1.0, 1.5, 0.1))

    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float(blurred.max()) < 0.2
    assert torch.count_nonzero(blurred.sum((0, 1))) == 1  # a tenth of a voxel is no blur


def test_blurring_keeps_a_constant_up_to_the_edge() -> None:
    assert torch.allclose(blur(torch.full((9, 10, 11), 0.7), (1.0, 2.0, 0.5)), torch.tensor(0.7))


def test_smooth_noise_has_about_unit_variance_and_zero_mean() -> None:
    rng = np.random.default_rng(2)
    fields = torch.stack([smooth_field(rng, 6, (12, 14, 16), channels=2) for _ in range(60)])

    assert fields.shape == (60, 2, 12, 14, 16)
    assert float(fields.mean()) == pytest.approx(0, abs=0.1)
    assert float(fields.std()) == pytest.approx(1, abs=0.2)
