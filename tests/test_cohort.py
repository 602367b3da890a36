"""The fixed cohorts: who is in them, under what conditions, and that they stay the same."""

import itertools
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpnet_node.model.drawing.scene import Contrast, Lesion, Visibility
from gpnet_node.model.evaluation.cohort import (
    TEST_PEOPLE,
    TRAIN_PEOPLE,
    VALIDATE_PEOPLE,
    Case,
    control_of,
    degraded,
    set_a,
    set_b,
    validation,
    whole_head,
)

PALLIDA_MM = (30.0, 14.0, 11.0)  # half the extent of both together, x, y and z


def test_people_are_kept_apart_as_the_training_settings_say(model_folder: Path) -> None:
    settings = tomllib.loads((model_folder / "train.toml").read_text(encoding="utf-8"))

    assert set(settings["train_people"]) == set(TRAIN_PEOPLE)
    assert set(settings["validate_people"]) == set(VALIDATE_PEOPLE)
    assert set(settings["test_people"]) == set(TEST_PEOPLE)
    assert len({*TRAIN_PEOPLE, *VALIDATE_PEOPLE, *TEST_PEOPLE}) == 20


def test_set_a_is_43_images_of_six_people_with_distinct_seeds() -> None:
    cases = set_a()

    assert len(cases) == 43
    assert {case.person for case in cases} == set(TEST_PEOPLE)
    assert len({case.seed for case in cases}) == len({case.name for case in cases}) == 43


def test_cohorts_are_the_same_every_time() -> None:
    assert set_a() == set_a()
    assert degraded(TEST_PEOPLE, seed=6) == degraded(TEST_PEOPLE, seed=6)


def test_no_two_cohorts_share_a_seed() -> None:
    cohorts = (set_a(), set_b(), validation(), degraded(TEST_PEOPLE, seed=6))

    seeds = [case.seed for case in itertools.chain(*cohorts)]

    assert len(set(seeds)) == len(seeds)


def test_set_a_has_the_conditions_that_the_paper_and_its_critics_ask_for() -> None:
    cases = set_a()
    seen = Counter(case.scene.visibility for case in cases)
    contrasts = Counter(case.scene.contrast for case in cases)
    extents = [case.spacing_mm[0] * case.slices for case in cases]

    assert [seen[v] for v in Visibility] == [13, 15, 9, 6]  # 30, 35, 20, 15 %
    assert contrasts[Contrast.T2] > 2 * contrasts[Contrast.T2STAR] > 0
    assert contrasts[Contrast.T1] > 0
    assert {kind for case in cases for kind in case.scene.lesions} == set(Lesion)
    assert sum(case.scene.artefact is not None for case in cases) >= 6
    assert min(extents) <= 31
    assert max(extents) >= 109
    assert min(min(case.spacing_mm) for case in cases) == 0.3
    assert max(max(case.spacing_mm) for case in cases) == 1.2


@pytest.mark.parametrize("case", set_a(), ids=lambda case: case.name)
def test_every_image_of_set_a_holds_both_pallida(case: Case) -> None:
    inverse = np.linalg.inv(np.asarray(case.geometry.affine))
    size = np.array(case.geometry.spatial_shape)

    for corner in itertools.product(*((-half, half) for half in PALLIDA_MM)):
        index = (inverse @ [*corner, 1.0])[:3]
        assert (index >= -0.5).all()
        assert (index <= size - 0.5).all()


def test_a_control_differs_in_lamina_and_contrast_alone() -> None:
    case = set_a()[3]

    control = control_of(case)

    assert control.scene.visibility is Visibility.ABSENT
    assert not control.scene.segments_differ
    assert (control.seed, control.person, control.spacing_mm, control.slices) == (
        case.seed, case.person, case.spacing_mm, case.slices,
    )  # fmt: skip
    assert control.scene.snr == case.scene.snr


def test_what_bends_a_persons_head_is_the_same_in_all_images_and_in_the_t1() -> None:
    for case in (*set_a(), *set_b()):
        assert case.scene.ventricle_mm == whole_head(case.person).scene.ventricle_mm


def test_set_b_takes_its_border_from_the_atlas_that_nothing_was_trained_on() -> None:
    assert {case.border for case in set_b()} == {"cit168"}
    assert {case.border for case in set_a()} == {None}
