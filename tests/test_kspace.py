import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from gpnet_node.model.drawing.fields import COILS
from gpnet_node.model.drawing.kspace import NO_TRAIN, EchoTrain, combine, image, line_factors, sample
from gpnet_node.model.drawing.scene import Artefact


def blob(shape: tuple[int, int], centre: tuple[float, float], sigma: float) -> Tensor:
    rows, columns = (torch.arange(n) - c for n, c in zip(shape, centre, strict=True))
    return torch.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * sigma**2)) + 0j


def magnified(lines: Tensor, n: int) -> Tensor:
    """The image on n x n pixels: k-space with zeros around."""
    large = torch.zeros(n, n, dtype=lines.dtype)
    row, column = (n // 2 - m // 2 for m in lines.shape)
    large[row : row + lines.shape[0], column : column + lines.shape[1]] = lines
    return image(large).abs() * (n * n / lines.numel())


@pytest.mark.parametrize("shape", [(48, 40), (45, 41)])
def test_sampling_keeps_places_and_values(shape: tuple[int, int]) -> None:
    fine = blob((2 * shape[0], 2 * shape[1]), (40.0, 50.0), 5.0)

    taken = image(sample(fine, shape))

    assert torch.allclose(taken, fine[::2, ::2], atol=1e-4)


def test_a_doubled_matrix_halves_the_spread_of_a_point() -> None:
    point = torch.zeros(256, 256) + 0j
    point[128, 128] = 1

    widths = []
    for matrix in (64, 128):
        spread = magnified(sample(point, (matrix, matrix)), 1024)[512]
        widths.append(int((spread > spread.max() / 2).sum()))

    assert widths[0] / widths[1] == pytest.approx(2, abs=0.15)


def test_an_edge_overshoots_by_the_nine_per_cent_of_gibbs() -> None:
    bar = torch.zeros(256, 256) + 0j
    bar[:, 64:192] = 1

    seen = magnified(sample(bar, (128, 128)), 512)[256]

    assert float(seen.max()) == pytest.approx(1.09, abs=0.02)


def test_an_echo_train_spreads_points_along_one_axis_only() -> None:
    shape, train = (64, 64), EchoTrain(echoes=9, spacing_ms=11.6)
    point = torch.zeros(128, 128) + 0j
    point[64, 64] = 1

    factors = line_factors(np.random.default_rng(0), shape, (0.4, 0.4), train, 22.0, None)
    power = magnified(sample(point, shape) * factors[0], 512) ** 2

    tails = [float(power.sum(axis)[:240].sum() / power.sum()) for axis in (0, 1)]
    assert max(tails) > 1.3 * min(tails)


def test_motion_between_slices_moves_the_odd_ones() -> None:
    lines = sample(blob((128, 128), (60.0, 70.0), 6.0), (64, 64))

    factors = line_factors(
        np.random.default_rng(3), (64, 64), (0.4, 0.4), NO_TRAIN, 0.0, Artefact.SLICE_MOTION
    )
    even, odd = (np.array(ndimage.center_of_mass(image(lines * f).abs().numpy())) for f in factors)

    assert even == pytest.approx([30.0, 35.0], abs=0.01)
    assert 0.2 <= np.linalg.norm((odd - even) * 0.4) <= 0.8


@pytest.mark.parametrize("artefact", [Artefact.GHOSTING, Artefact.MOTION])
def test_a_disturbed_slice_keeps_its_place_and_gains_signal_elsewhere(artefact: Artefact) -> None:
    lines = sample(blob((128, 128), (64.0, 64.0), 4.0), (64, 64))
    train = EchoTrain(echoes=9, spacing_ms=0.0)

    factors = line_factors(np.random.default_rng(1), (64, 64), (0.4, 0.4), train, 0.0, artefact)
    seen = image(lines * factors[0]).abs()

    assert np.unravel_index(int(seen.argmax()), seen.shape) == pytest.approx((32, 32), abs=1)
    assert float(seen[seen < 0.3].max()) > 1.5 * float(image(lines).abs()[16].max())
    assert float(image(lines).abs()[16].max()) < 0.01


def test_noise_of_combined_coils_follows_its_law() -> None:
    rng, ones = np.random.default_rng(0), torch.ones(200, 200)

    bright = combine(rng, ones + 0j, ones, 0.05, 0.0)
    empty = combine(rng, ones * 0j, ones, 0.05, 0.0)

    assert float(bright.std()) == pytest.approx(0.05, rel=0.03)
    assert float(empty.square().mean()) == pytest.approx(2 * COILS * 0.05**2, rel=0.02)


def test_normalisation_leaves_the_named_share_of_the_coils_brightness() -> None:
    received = torch.full((32, 32), 2.0)

    seen = combine(np.random.default_rng(0), torch.ones(32, 32) + 0j, received, 0.0, 0.5)

    assert float(seen.mean()) == pytest.approx(2**0.5, rel=1e-5)
