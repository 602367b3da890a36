from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpnet_node.model.drawing.slab import FieldOfView, Slab, SlabSettings, draw_slab
from gpnet_node.model.drawing.tissue import HEAD_TISSUE_OFFSET, Tissue

COARSE = SlabSettings(shape=(40, 40, 40), spacing_mm=5.0, thick_slice_mm=(5.0, 8.0))
LEFT, RIGHT = 0, 1


@lru_cache(maxsize=1)
def head() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A ball of a head: scalp, white matter, ventricles and two pallida, at 1 mm."""
    centres = np.array([[64.0, 70.0, 96.0], [64.0, 70.0, 54.0]])
    place = np.stack(np.meshgrid(*(np.arange(n) for n in (130, 160, 150)), indexing="ij"), axis=-1)
    tissue = np.zeros(place.shape[:3], np.uint8)
    for radii_mm, kind in ((62, 76, 70), HEAD_TISSUE_OFFSET), ((54, 68, 62), Tissue.WHITE_MATTER):
        tissue[(((place - (64, 80, 75)) / radii_mm) ** 2).sum(-1) < 1] = kind
    tissue[(((place - (80, 76, 75)) / (10, 25, 12)) ** 2).sum(-1) < 1] = Tissue.CSF
    for centre in centres:
        tissue[(((place - centre) / (6, 10, 6)) ** 2).sum(-1) < 1] = Tissue.GPE
    return tissue, centres


def slab(seed: int, view: FieldOfView | None = None, settings: SlabSettings = COARSE) -> Slab:
    return draw_slab(*head(), np.random.default_rng([3, seed]), settings, view)


def test_the_same_seed_draws_the_same_slab() -> None:
    first, again, other = slab(1), slab(1), slab(2)

    assert torch.equal(first.image, again.image)
    assert torch.equal(first.pallida, again.pallida)
    assert not torch.equal(first.image, other.image)


@pytest.mark.parametrize("view", [FieldOfView.WHOLE, FieldOfView.HOLDING])
def test_a_view_that_holds_both_pallida_shows_each_whole_on_its_side(view: FieldOfView) -> None:
    for seed in range(4):
        drawn = slab(seed, view)

        assert drawn.inside.tolist() == pytest.approx([1, 1], abs=0.01)
        assert drawn.centres[LEFT, 2] > drawn.centres[RIGHT, 2]  # LPS: x grows to the left
        apart_mm = np.linalg.norm(drawn.centres[LEFT] - drawn.centres[RIGHT]) * COARSE.spacing_mm
        assert 25 < apart_mm < 60


def test_a_slab_beside_the_pallida_lacks_one_or_both_and_says_so() -> None:
    lacking = [slab(seed, FieldOfView.BESIDE) for seed in range(6)]

    assert all(drawn.inside.min() < 0.2 for drawn in lacking)
    assert all(bool(np.isnan(drawn.centres).any()) for drawn in lacking)


def test_a_slab_that_cuts_a_pallidum_gives_it_no_centre() -> None:
    drawn = [slab(seed, FieldOfView.CUTTING) for seed in range(8)]

    cut = [d.inside.min() < 0.99 for d in drawn]
    assert sum(cut) >= 6
    assert all(bool(np.isnan(d.centres).any()) == c for d, c in zip(drawn, cut, strict=True))


def test_an_image_of_no_head_holds_no_pallidum() -> None:
    for seed in range(6):
        drawn = slab(seed, FieldOfView.NO_HEAD)

        assert not drawn.pallida.any()
        assert float(drawn.image.std()) > 0.1  # but something is to be seen


def test_every_image_is_finite_and_normalised() -> None:
    for seed in range(12):
        image = slab(seed).image

        assert bool(torch.isfinite(image).all())
        assert float(image.mean()) == pytest.approx(0, abs=1e-3)


def test_the_pallidum_is_painted_where_the_target_says() -> None:
    tissue, centres = head()
    without = np.where(tissue == Tissue.GPE, Tissue.WHITE_MATTER, tissue).astype(np.uint8)
    plain = replace(COARSE, contrasts=(1.0, 0.0, 0.0, 0.0), lesion=0.0, lead=0.0)

    drawn, bare = (
        draw_slab(t, centres, np.random.default_rng(5), plain, FieldOfView.WHOLE) for t in (tissue, without)
    )

    darkest = int((drawn.image - bare.image).argmin())  # T2: a pallidum is darker than white matter
    assert float(drawn.pallida.sum(0).flatten()[darkest]) > 0.5


def test_some_heads_are_drawn_without_skull_and_skin() -> None:
    tissue = np.where(head()[0] >= HEAD_TISSUE_OFFSET, head()[0], 0).astype(np.uint8)
    bare = replace(COARSE, bare_brain=1.0, lesion=0.0, lead=0.0)

    drawn = draw_slab(tissue, head()[1], np.random.default_rng(0), bare, FieldOfView.WHOLE)

    assert float(drawn.image.std()) == pytest.approx(0, abs=1e-3)
