from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray

from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.drawing.head import TRUTH_SPACING_MM, DrawnHead, FineTruth, draw_series
from gpnet_node.model.drawing.pose import Head, PosedHead, Seeds
from gpnet_node.model.drawing.scene import Artefact, Contrast, DrawSettings, Lesion, Scene, Visibility
from gpnet_node.model.drawing.synthesise import GPE, GPI
from gpnet_node.model.evaluation.cohort import slab_geometry, turn
from tests import anatomies
from tests.anatomies import MARKER_MM, PALLIDUM_MM3, SIDEWAYS_MM

QUIET = Scene(contrast=Contrast.T2, visibility=Visibility.CLEAR, bias=0.0, snr=1e6)
AS_IT_LIES = DrawSettings(rotation_sd_degrees=0, elastic_mm=0, pallidum_mm3=(PALLIDUM_MM3, PALLIDUM_MM3))
SIDES = {"left": 1, "right": -1}  # LPS: x grows to the left
SLAB = partial(slab_geometry, (1.5, 1.0, 1.0), 28, field_mm=80.0)


@pytest.fixture(scope="module")
def head() -> Head:
    return anatomies.head()


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def drawn(
    head: Head,
    card: ModelCard,
    *,
    scene: Scene = QUIET,
    geometry: hd.VolumeGeometry | None = None,
    seeds: Seeds | None = None,
    settings: DrawSettings = AS_IT_LIES,
) -> DrawnHead:
    return draw_series(head, scene, geometry or SLAB(), card, seeds or Seeds.all(1), settings)


@pytest.fixture(scope="module")
def plain(head: Head, card: ModelCard) -> DrawnHead:
    """As it lies, on a coarse slab."""
    return drawn(head, card)


@pytest.fixture(scope="module")
def oblique(head: Head, card: ModelCard) -> DrawnHead:
    """Turned and bent, on a fine oblique slab."""
    geometry = slab_geometry((0.8, 0.5, 0.5), 48, field_mm=80.0, turned=turn((8.0, -6.0, 12.0)))
    return drawn(head, card, geometry=geometry, settings=DrawSettings(rotation_sd_degrees=6.0))


def numbers(card: ModelCard) -> dict[tuple[str, int], int]:
    return {(str(s.side), s.channel): s.number for s in card.structures}


def native_mm(found: DrawnHead, mask: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """Volume, mm3, and centre, LPS mm, of voxels of the scanner's grid."""
    affine = np.asarray(found.geometry.affine, float)
    centre: NDArray[np.float64] = affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]
    return float(mask.sum() * abs(np.linalg.det(affine[:3, :3]))), centre


def true_mm(truth: FineTruth, mask: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """The same of the fine truth."""
    centre: NDArray[np.float64] = truth.origin_mm + TRUTH_SPACING_MM * np.argwhere(mask).mean(0)[::-1]
    return float(mask.sum() * TRUTH_SPACING_MM**3), centre


def near(found: DrawnHead, x_mm: float, y_mm: float, z_mm: float) -> float:
    """Mean signal within 2 mm of a place, LPS mm."""
    affine = np.asarray(found.geometry.affine, float)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in found.voxels.shape), indexing="ij"), axis=-1)
    away = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - [x_mm, y_mm, z_mm], axis=-1)
    return float(found.voxels[away < 2].mean())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("structure", [GPE, GPI])
def test_fine_truth_and_native_labels_agree_in_volume_and_place(
    oblique: DrawnHead, card: ModelCard, side: str, structure: int
) -> None:
    native = native_mm(oblique, oblique.labels == numbers(card)[side, structure])
    true = true_mm(oblique.truth[side], oblique.truth[side].labels == structure)

    assert native[0] == pytest.approx(true[0], rel=0.04)
    assert np.linalg.norm(native[1] - true[1]) < 0.3


def test_fine_truth_lies_on_one_grid_of_the_paper_s_spacing(oblique: DrawnHead) -> None:
    for truth in oblique.truth.values():
        steps = truth.origin_mm / TRUTH_SPACING_MM

        assert np.allclose(steps, steps.round(), atol=1e-6)
        assert truth.labels.dtype == np.uint8
        for axis in range(3):
            assert not truth.labels.take([0, -1], axis=axis).any()  # nothing is cut off


@pytest.mark.parametrize("side", SIDES)
def test_each_side_lies_on_its_side_with_its_gpi_medial(plain: DrawnHead, card: ModelCard, side: str) -> None:
    for gpe, gpi in (
        [native_mm(plain, plain.labels == numbers(card)[side, s])[1] for s in (GPE, GPI)],
        [true_mm(plain.truth[side], plain.truth[side].labels == s)[1] for s in (GPE, GPI)],
    ):
        assert 10 < SIDES[side] * gpi[0] < SIDES[side] * gpe[0] < 30


@pytest.mark.parametrize("side", SIDES)
def test_what_only_one_side_has_is_seen_on_that_side(card: ModelCard, side: str) -> None:
    found = drawn(anatomies.head(marked=side), card)
    z, y, x = MARKER_MM

    marked, other = (near(found, sign * SIDES[side] * (SIDEWAYS_MM + x), y, z) for sign in (1, -1))

    assert marked < 0.6 * other  # a vessel is dark on T2


def test_pallida_are_where_the_image_is_dark(plain: DrawnHead) -> None:
    inside = plain.voxels[plain.labels > 0].mean()

    for sign in (1, -1):
        assert inside < 0.7 * near(plain, sign * 10.0, 22.0, 0.0)


def test_pallida_have_the_volume_that_was_drawn(plain: DrawnHead) -> None:
    for truth in plain.truth.values():
        assert true_mm(truth, truth.labels > 0)[0] == pytest.approx(PALLIDUM_MM3, rel=0.02)


def test_another_border_leaves_the_outline_and_another_image_leaves_the_truth(
    head: Head, card: ModelCard, plain: DrawnHead
) -> None:
    bordered = drawn(head, card, seeds=Seeds(shape=1, border=2, image=1))
    imaged = drawn(head, card, seeds=Seeds(shape=1, border=1, image=2))

    for side, truth in plain.truth.items():
        other = bordered.truth[side].labels
        assert np.mean((truth.labels > 0) != (other > 0)) < 1e-5
        assert (truth.labels != other).sum() > 300
        assert np.array_equal(truth.labels, imaged.truth[side].labels)
    assert np.array_equal(plain.labels, imaged.labels)
    assert not np.array_equal(plain.voxels, imaged.voxels)


def test_the_same_seeds_draw_the_same_series(head: Head, card: ModelCard) -> None:
    scene = replace(
        QUIET, bias=0.2, snr=20.0, lesions=(Lesion.LACUNE,), artefact=Artefact.MOTION, ventricle_mm=2.0
    )
    first, again = (drawn(head, card, scene=scene, settings=DrawSettings()) for _ in range(2))

    assert np.array_equal(first.voxels, again.voxels)
    assert np.array_equal(first.labels, again.labels)


def test_signal_fits_twelve_bits(head: Head, card: ModelCard) -> None:
    noisy = drawn(head, card, scene=replace(QUIET, bias=0.3, snr=10.0))

    assert noisy.voxels.dtype == np.float32
    assert noisy.voxels.shape == noisy.labels.shape == tuple(noisy.geometry.spatial_shape)
    assert 0 <= float(noisy.voxels.min()) < float(noisy.voxels.max()) <= 4095
    assert float(np.percentile(noisy.voxels, 99.9)) > 2000


@pytest.mark.parametrize("side", SIDES)
def test_a_lead_is_drawn_on_its_side_only(head: Head, card: ModelCard, side: str) -> None:
    scene = replace(QUIET, lesions=(Lesion.LEAD,), lesion_sides=(side,))
    found = drawn(head, card, scene=scene)
    tissue = near(found, 10.0, 22.0, 0.0)  # white matter

    above = found.voxels[found.geometry.spatial_shape[0] // 2 + 6]  # 9 mm above the pallida
    middle = above.shape[1] // 2
    half = {"left": above[:, middle:], "right": above[:, :middle]}  # columns run to the left
    void = {name: int((part[10:-10] < 0.45 * tissue).sum()) for name, part in half.items()}

    other = "right" if side == "left" else "left"
    assert void[side] >= void[other] + 5


def test_a_renderer_of_one_s_own_sees_the_posed_head_and_changes_no_truth(
    head: Head, card: ModelCard, plain: DrawnHead
) -> None:
    seen: dict[str, object] = {}

    def flat(posed: PosedHead, scene: Scene, geometry: hd.VolumeGeometry, seed: int) -> NDArray[np.float32]:
        sides: Mapping[str, object] = posed.sides
        seen.update(sides=tuple(sides), scene=scene, seed=seed)
        return np.full(geometry.spatial_shape, 7, np.float32)

    found = draw_series(
        head, QUIET, SLAB(), card, Seeds(shape=1, border=1, image=9), AS_IT_LIES, renderer=flat
    )

    assert seen == {"sides": ("left", "right"), "scene": QUIET, "seed": 9}
    assert (found.voxels == 7).all()
    assert np.array_equal(found.labels, plain.labels)
