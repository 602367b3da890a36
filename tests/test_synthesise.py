import numpy as np
import pytest
import torch

from gpnet_node.model import shape
from gpnet_node.model.atlas import Anatomy
from gpnet_node.model.synthesise import (
    GPE,
    GPI,
    TISSUES,
    DrawSettings,
    acquire,
    blur,
    contrast,
    draw_box,
    normalise,
    rotation,
    shape_box,
)
from gpnet_node.model.tissue import FREESURFER_TISSUE, HEAD_TISSUE_OFFSET, Tissue

BOX = (64, 80, 64)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return shape.draw(np.random.default_rng(0)).sides["left"]


def test_the_same_seed_draws_the_same_box(anatomy: Anatomy) -> None:
    first = draw_box(anatomy, np.random.default_rng([7, 3]), BOX, DrawSettings())
    again = draw_box(anatomy, np.random.default_rng([7, 3]), BOX, DrawSettings())
    other = draw_box(anatomy, np.random.default_rng([7, 4]), BOX, DrawSettings())

    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_gpi_takes_the_share_of_the_pallidum_that_was_drawn(anatomy: Anatomy) -> None:
    for seed in range(4):
        _, labels, _ = shape_box(anatomy, np.random.default_rng(seed), BOX, DrawSettings())
        gpe, gpi = int((labels == GPE).sum()), int((labels == GPI).sum())

        assert 0.25 < gpi / (gpe + gpi) < 0.42


def test_gpi_lies_medial_of_gpe(anatomy: Anatomy) -> None:
    _, labels, _ = shape_box(anatomy, np.random.default_rng(5), BOX, DrawSettings())

    x = [float(np.argwhere(labels.numpy() == label)[:, 2].mean()) for label in (GPE, GPI)]

    assert x[1] < x[0]  # the box shows a left pallidum, and x grows to the left


def test_the_lamina_is_drawn_along_the_border_only(anatomy: Anatomy) -> None:
    tissue, _, lamina = shape_box(anatomy, np.random.default_rng(6), BOX, DrawSettings())
    bright = lamina > 0.8

    assert bool(bright.any())
    assert set(tissue[bright].tolist()) <= {int(Tissue.GPE), int(Tissue.GPI)}


def test_t2_contrast_has_a_dark_pallidum_and_bright_fluid() -> None:
    settings = DrawSettings(shares=(1.0, 0.0, 0.0, 0.0))
    for seed in range(20):
        means, visibility = contrast(np.random.default_rng(seed), settings)

        assert means[Tissue.GPE] < means[Tissue.PUTAMEN] < means[Tissue.CSF]
        assert means[Tissue.LAMINA] > means[Tissue.GPE]
        assert 0 <= visibility <= 1


def test_every_label_of_a_head_has_a_tissue_with_a_mean() -> None:
    assert max(FREESURFER_TISSUE.values()) < HEAD_TISSUE_OFFSET < TISSUES
    assert len(contrast(np.random.default_rng(0), DrawSettings())[0]) == TISSUES


def test_acquisition_keeps_the_grid_and_makes_no_negative_signal() -> None:
    image = torch.rand(20, 24, 28) + 0.5

    acquired = acquire(np.random.default_rng(0), image, 0.6, DrawSettings())

    assert acquired.shape == image.shape
    assert float(acquired.min()) >= 0


def test_blurring_keeps_the_sum_of_a_point_away_from_the_edge() -> None:
    image = torch.zeros(21, 21, 21)
    image[10, 10, 10] = 1

    blurred = blur(image, (1.0, 1.5, 0.1))

    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float(blurred.max()) < 0.2


def test_normalising_forgets_scale_and_offset() -> None:
    image = torch.rand(16, 16, 16)

    assert torch.allclose(normalise(image), normalise(image * 731 + 42), atol=1e-3)


def test_a_rotation_keeps_lengths_and_hands() -> None:
    turned = rotation(np.random.default_rng(3), 20.0)

    assert np.allclose(turned @ turned.T, np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1)
