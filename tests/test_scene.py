from dataclasses import replace

import numpy as np
import pytest

from gpnet_node.model.drawing.scene import (
    Artefact,
    Contrast,
    DrawSettings,
    Lesion,
    Scene,
    Visibility,
    draw_scene,
    signals,
)
from gpnet_node.model.drawing.tissue import TISSUES, Tissue

DRAWS = 3000
SETTINGS = DrawSettings()
DARK = (Contrast.T2, Contrast.T2STAR)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = np.random.default_rng(5)
    return [draw_scene(rng, SETTINGS) for _ in range(DRAWS)]


def scene(contrast: Contrast, **conditions: object) -> Scene:
    plain = Scene(contrast=contrast, visibility=Visibility.CLEAR)
    return replace(plain, **conditions)  # type: ignore[arg-type]  # each a field of Scene


def mean_signal(drawn: Scene, tissue: Tissue, draws: int = 200) -> float:
    return float(np.mean([signals(np.random.default_rng(seed), drawn)[tissue] for seed in range(draws)]))


def near(share: float) -> object:
    """Four standard deviations of a share among the draws."""
    return pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / DRAWS))


def test_visibility_of_the_lamina_is_30_35_20_15_percent_by_default(scenes: list[Scene]) -> None:
    asked = {
        Visibility.CLEAR: 0.30,
        Visibility.PARTIAL: 0.35,
        Visibility.FAINT: 0.20,
        Visibility.ABSENT: 0.15,
    }
    for visibility, share in asked.items():
        assert np.mean([s.visibility is visibility for s in scenes]) == near(share)


def test_contrasts_come_at_the_shares_that_are_set(scenes: list[Scene]) -> None:
    for contrast, share in zip(Contrast, SETTINGS.contrast_shares, strict=True):
        assert np.mean([s.contrast is contrast for s in scenes]) == near(share)


def test_shares_need_not_add_up_to_one() -> None:
    rng = np.random.default_rng(1)
    settings = DrawSettings(contrast_shares=(0, 0, 2, 0), visibility_shares=(0, 3, 0, 0))

    drawn = [draw_scene(rng, settings) for _ in range(20)]

    assert {s.contrast for s in drawn} == {Contrast.T1}
    assert {s.visibility for s in drawn} == {Visibility.PARTIAL}


def test_lesions_artefacts_ventricles_and_drop_out_come_at_the_shares_that_are_set(
    scenes: list[Scene],
) -> None:
    assert np.mean([bool(s.lesions) for s in scenes]) == near(SETTINGS.lesion_share)
    assert np.mean([s.artefact is not None for s in scenes]) == near(SETTINGS.artefact_share)
    assert np.mean([s.ventricle_mm > 0 for s in scenes]) == near(SETTINGS.ventricle_share)
    assert np.mean([s.drop_out > 0 for s in scenes]) == near(SETTINGS.drop_out_share)


def test_every_kind_of_lesion_and_of_artefact_comes_as_often_as_the_others(scenes: list[Scene]) -> None:
    for lesion in Lesion:
        assert np.mean([lesion in s.lesions for s in scenes]) == near(SETTINGS.lesion_share / len(Lesion))
    for artefact in Artefact:
        assert np.mean([s.artefact is artefact for s in scenes]) == near(
            SETTINGS.artefact_share / len(Artefact)
        )


def test_a_lesion_lies_left_right_or_on_both_sides(scenes: list[Scene]) -> None:
    for sides in (("left",), ("right",), ("left", "right")):
        assert np.mean([s.lesion_sides == sides for s in scenes]) == near(1 / 3)


def test_amounts_stay_within_what_is_set(scenes: list[Scene]) -> None:
    low, high = SETTINGS.age_years
    assert all(low <= s.age_years <= high for s in scenes)
    assert all(0 <= s.ventricle_mm <= SETTINGS.ventricle_mm for s in scenes)
    assert all(s.drop_out == 0 or 0.2 <= s.drop_out <= 0.6 for s in scenes)
    assert all(0 <= s.bias <= SETTINGS.bias for s in scenes)
    assert all(SETTINGS.snr[0] <= s.snr <= SETTINGS.snr[1] for s in scenes)


def test_the_same_seed_draws_the_same_scene_and_the_same_signals() -> None:
    first, again, other = (np.random.default_rng(seed) for seed in (3, 3, 4))

    drawn = draw_scene(first, SETTINGS)

    assert drawn == draw_scene(again, SETTINGS)
    assert drawn != draw_scene(other, SETTINGS)
    assert np.array_equal(signals(first, drawn), signals(again, drawn))


@pytest.mark.parametrize("contrast", Contrast)
def test_every_tissue_of_a_head_has_a_signal(contrast: Contrast) -> None:
    means = signals(np.random.default_rng(0), scene(contrast))

    assert means.shape == (TISSUES,)
    assert means.dtype == np.float32
    assert np.isfinite(means).all()
    assert (means >= 0).all()


@pytest.mark.parametrize("contrast", DARK)
def test_pallidum_is_dark_and_the_lamina_brighter_where_iron_shows(contrast: Contrast) -> None:
    for seed in range(30):
        means = signals(np.random.default_rng(seed), scene(contrast))

        assert means[Tissue.GPE] < min(means[Tissue.PUTAMEN], means[Tissue.INTERNAL_CAPSULE])
        assert 0.1 < means[Tissue.LAMINA] - means[Tissue.GPE] < 0.36


def test_t1_shows_almost_no_difference_between_the_segments() -> None:
    for seed in range(30):
        means = signals(np.random.default_rng(seed), scene(Contrast.T1))

        assert abs(means[Tissue.GPI] - means[Tissue.GPE]) <= 0.041
        assert means[Tissue.CSF] < means[Tissue.GPE]


def test_random_contrast_puts_tissues_in_any_order() -> None:
    drawn = [signals(np.random.default_rng(seed), scene(Contrast.RANDOM)) for seed in range(40)]

    brighter = {bool(means[Tissue.GPE] > means[Tissue.CSF]) for means in drawn}
    inside_out = {bool(means[Tissue.GPI] > means[Tissue.GPE]) for means in drawn}

    assert brighter == inside_out == {True, False}


@pytest.mark.parametrize("contrast", DARK)
@pytest.mark.parametrize("tissue", [Tissue.GPE, Tissue.PUTAMEN, Tissue.SUBSTANTIA_NIGRA])
def test_iron_darkens_with_age_where_it_shows(contrast: Contrast, tissue: Tissue) -> None:
    young, old = (mean_signal(scene(contrast, age_years=age), tissue) for age in (25.0, 80.0))

    assert old < young - 0.05


def test_age_changes_nothing_on_t1() -> None:
    young, old = (signals(np.random.default_rng(1), scene(Contrast.T1, age_years=a)) for a in (25.0, 80.0))

    assert np.array_equal(young, old)


def test_age_changes_no_tissue_that_stores_no_iron() -> None:
    young, old = (signals(np.random.default_rng(1), scene(Contrast.T2, age_years=a)) for a in (25.0, 80.0))

    for tissue in (Tissue.WHITE_MATTER, Tissue.CSF, Tissue.THALAMUS, Tissue.INTERNAL_CAPSULE):
        assert young[tissue] == old[tissue]


@pytest.mark.parametrize("contrast", Contrast)
def test_a_control_differs_from_its_image_in_the_gpi_s_signal_only(contrast: Contrast) -> None:
    shown, control = (
        signals(np.random.default_rng(2), scene(contrast, segments_differ=differ)) for differ in (True, False)
    )
    changed = np.flatnonzero(shown != control)

    assert changed.tolist() == [Tissue.GPI]
    assert control[Tissue.GPI] == control[Tissue.GPE]
