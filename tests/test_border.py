"""The border between GPi and GPe, which moves on its own, whatever the outline, and is seen or not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor

from gpnet_node.model.drawing.atlas import Anatomy
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.scene import Contrast, DrawSettings, Scene, Visibility, signals
from gpnet_node.model.drawing.synthesise import GPE, GPI, Divided, divide, mixed_border, paint
from gpnet_node.model.drawing.tissue import TISSUES, Tissue
from tests import anatomies

STILL = DrawSettings(  # the border stays where the atlases put it
    border_shift_sd_mm=0, border_tilt_sd_degrees=0, border_curvature_sd_per_mm=0, border_wave_mm=0
)
CLEAR = Scene(contrast=Contrast.T2, visibility=Visibility.CLEAR)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return anatomies.anatomy()


@pytest.fixture(scope="module")
def divided(anatomy: Anatomy) -> Divided:
    return cut(anatomy, 1, STILL)


def cut(anatomy: Anatomy, seed: int, settings: DrawSettings) -> Divided:
    """The anatomy as it lies, divided by Allen's border and what the settings add."""
    border = torch.from_numpy(anatomy.border["allen"]).float()
    return divide(torch.from_numpy(anatomy.tissue), border, np.random.default_rng(seed), settings)


def share(labels: Tensor) -> float:
    gpe, gpi = int((labels == GPE).sum()), int((labels == GPI).sum())
    return gpi / (gpe + gpi)


def test_gpi_takes_27_to_40_percent_before_its_border_moves(anatomy: Anatomy) -> None:
    shares = [share(cut(anatomy, seed, STILL).labels) for seed in range(40)]

    assert 0.265 < min(shares) < 0.29
    assert 0.38 < max(shares) < 0.405


def test_a_moved_border_leaves_each_segment_a_share(anatomy: Anatomy) -> None:
    far = DrawSettings(border_shift_sd_mm=4.0)
    shares = [share(cut(anatomy, seed, far).labels) for seed in range(30)]

    assert 0.14 < min(shares) < 0.20
    assert 0.47 < max(shares) < 0.55


def test_gpi_lies_medial_of_gpe(anatomy: Anatomy) -> None:
    for seed in range(8):
        labels = cut(anatomy, seed, DrawSettings()).labels.numpy()
        gpe, gpi = (float(np.argwhere(labels == label)[:, 2].mean()) for label in (GPE, GPI))

        assert gpi < gpe  # the box shows a left pallidum, and x grows to the left


def test_another_border_leaves_the_outline_as_it_is(anatomy: Anatomy) -> None:
    first, other = (cut(anatomy, seed, DrawSettings()) for seed in (1, 2))

    assert torch.equal(first.labels > 0, other.labels > 0)
    assert torch.equal(first.labels > 0, torch.from_numpy(anatomy.tissue) == Tissue.GPE)
    assert int((first.labels != other.labels).sum()) > 100


def test_tissue_and_labels_say_the_same(anatomy: Anatomy) -> None:
    drawn = cut(anatomy, 3, DrawSettings())

    assert torch.equal(drawn.tissue == Tissue.GPI, drawn.labels == GPI)
    assert torch.equal(drawn.tissue == Tissue.GPE, drawn.labels == GPE)
    rest = drawn.labels == 0
    assert torch.equal(drawn.tissue[rest], torch.from_numpy(anatomy.tissue)[rest])


def test_the_same_seed_divides_alike(anatomy: Anatomy) -> None:
    first, again = (cut(anatomy, 5, DrawSettings()) for _ in range(2))

    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.lamina, again.lamina)


def test_a_box_without_a_pallidum_is_not_divided() -> None:
    tissue = torch.ones(8, 9, 10, dtype=torch.uint8)

    empty = divide(tissue, torch.zeros(8, 9, 10), np.random.default_rng(0), DrawSettings())

    assert not empty.labels.any()
    assert not empty.lamina.any()
    assert torch.equal(empty.tissue, tissue)


@pytest.fixture(scope="module")
def roomy() -> tuple[Tensor, Tensor]:
    """Tissue and border of an ellipsoid so large that a border of 1 mm SD seldom meets the shares' limits."""
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (24, 36, 24)), indexing="ij")
    inside = (z / 11) ** 2 + (y / 17) ** 2 + (x / 11) ** 2 < 1
    tissue = np.where(inside, Tissue.GPE, Tissue.WHITE_MATTER).astype(np.uint8)
    return torch.from_numpy(tissue), torch.from_numpy((0.13 * z + 0.1 * y - x).astype(np.float32))


def interfaces(roomy: tuple[Tensor, Tensor], settings: DrawSettings, draws: int) -> NDArray[np.float64]:
    """x = a + b z + c y + d z^2 + e y^2 of each drawn interface, mm from the middle; (draws, 5)."""
    fits = []
    fixed = replace(settings, gpi_share=(0.34, 0.34))
    for seed in range(draws):
        labels = divide(*roomy, np.random.default_rng(seed), fixed, 1.0).labels.numpy()
        z, y = np.nonzero((labels == GPE).any(2) & (labels == GPI).any(2))
        x = labels.shape[2] - np.argmax((labels == GPI)[z, y, ::-1], axis=1) - 0.5
        z, y, x = (v - (n - 1) / 2 for v, n in zip((z, y, x), labels.shape, strict=True))
        terms = np.stack([np.ones(len(z)), z, y, z**2, y**2], axis=1)
        fits.append(np.linalg.lstsq(terms, x, rcond=None)[0])
    return np.array(fits)


def test_the_border_shifts_by_as_much_as_was_asked(roomy: tuple[Tensor, Tensor]) -> None:
    still, moved = (
        interfaces(roomy, settings, draws)[:, 0]
        for settings, draws in ((STILL, 4), (replace(STILL, border_shift_sd_mm=1.0), 120))
    )

    assert float(still.std()) < 0.01
    assert float(moved.mean() - still.mean()) == pytest.approx(0, abs=0.35)
    assert float(moved.std()) == pytest.approx(1.0, abs=0.2)


def test_the_border_tilts_by_as_much_as_was_asked(roomy: tuple[Tensor, Tensor]) -> None:
    fits = interfaces(roomy, replace(STILL, border_tilt_sd_degrees=8.0), 120)
    about_each_axis = np.rad2deg(np.arctan(fits[:, 1:3])).std(0)

    assert about_each_axis == pytest.approx([8.0, 8.0], abs=1.8)


def test_the_border_bends_by_as_much_as_was_asked(roomy: tuple[Tensor, Tensor]) -> None:
    fits = interfaces(roomy, replace(STILL, border_curvature_sd_per_mm=0.012), 120)

    assert fits[:, 3:].std(0) == pytest.approx([0.012, 0.012], abs=0.004)


def test_the_border_lies_between_those_of_the_two_atlases(anatomy: Anatomy) -> None:
    both = [torch.from_numpy(anatomy.border[name]).float() for name in ("allen", "bigbrain")]
    low, high = (torch.minimum(*both).clamp(-12, 12), torch.maximum(*both).clamp(-12, 12))
    for seed in range(4):
        mixed = mixed_border(anatomy.border, np.random.default_rng(seed))

        assert bool((mixed >= low - 1e-3).all())
        assert bool((mixed <= high + 1e-3).all())


def test_the_lamina_runs_along_the_border_only(divided: Divided) -> None:
    bright = divided.lamina.numpy() > 0.5
    labels = divided.labels.numpy()
    beside = [binary_dilation(labels == label, iterations=2) for label in (GPE, GPI)]

    assert bright.sum() > 100
    assert (bright <= (beside[0] & beside[1])).all()
    assert not divided.lamina[divided.labels == 0].any()
    assert 0 <= float(divided.lamina.min()) <= float(divided.lamina.max()) <= 1


def lamina_seen(divided: Divided, visibility: Visibility, seed: int) -> tuple[float, float, float]:
    """Signal on the lamina, of 1, where the segments have none: mean, and its dimmest and brightest tenth."""
    means = np.zeros(TISSUES, np.float32)
    means[Tissue.LAMINA] = 1.0
    scene = replace(CLEAR, visibility=visibility)
    image, _ = paint(divided, scene, means, np.random.default_rng(seed), BOX_SPACING_MM, grain=False)
    seen = image[divided.lamina > 0.9].numpy()
    return float(seen.mean()), float(np.quantile(seen, 0.1)), float(np.quantile(seen, 0.9))


def test_the_lamina_is_seen_clearly_in_places_faintly_or_not_at_all(divided: Divided) -> None:
    clear, partial, faint, absent = (
        np.mean([lamina_seen(divided, visibility, seed) for seed in range(6)], axis=0)
        for visibility in (Visibility.CLEAR, Visibility.PARTIAL, Visibility.FAINT, Visibility.ABSENT)
    )

    assert clear[0] == pytest.approx(0.97, abs=0.05)
    assert clear[1] > 0.8
    assert 0.2 < partial[0] < 0.8
    assert partial[1] < 0.3
    assert partial[2] > 0.8
    assert faint[0] == pytest.approx(0.3, abs=0.03)
    assert absent[0] == 0


def test_a_control_shows_nothing_of_the_border(anatomy: Anatomy) -> None:
    scene = replace(CLEAR, visibility=Visibility.ABSENT, segments_differ=False)
    means = signals(np.random.default_rng(1), scene)

    shown, other = (
        paint(cut(anatomy, seed, DrawSettings()), scene, means, np.random.default_rng(7), BOX_SPACING_MM)[0]
        for seed in (1, 2)
    )

    assert torch.equal(shown, other)


def test_segments_that_differ_show_their_border(divided: Divided) -> None:
    means = np.ones(TISSUES, np.float32)
    means[Tissue.GPE], means[Tissue.GPI] = 0.5, 0.6
    scene = replace(CLEAR, visibility=Visibility.ABSENT)

    image, _ = paint(divided, scene, means, np.random.default_rng(1), BOX_SPACING_MM)

    gpe, gpi = (float(image[divided.labels == label].mean()) for label in (GPE, GPI))
    assert gpi / gpe == pytest.approx(1.2, rel=0.05)
