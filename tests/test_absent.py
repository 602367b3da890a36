"""Images without a whole pallidum: that they are what they are called."""

from pathlib import Path

import numpy as np
import pytest

from gpnet_node.model.card import read_card
from gpnet_node.model.drawing.head import TRUTH_SPACING_MM, FineTruth
from gpnet_node.model.drawing.synthesise import GPE
from gpnet_node.model.evaluation.absent import Absent, absent_images, phantom, place
from gpnet_node.model.evaluation.cohort import Case, set_a
from tests.drawn import MODEL
from tests.made_people import keep_people


@pytest.mark.parametrize("seed", range(12))
def test_a_slab_beside_the_pallida_ends_two_to_twenty_millimetres_from_them(seed: int) -> None:
    case = _placed(Absent.BESIDE, seed)

    outside = _along_slices(case)
    gap = np.maximum(-outside, outside - case.slices * case.spacing_mm[0])  # mm beyond the first or last face

    assert 1.5 < gap.min() < 20.5


@pytest.mark.parametrize("seed", range(12))
def test_a_slab_that_cuts_the_pallida_holds_a_part_of_them(seed: int) -> None:
    case = _placed(Absent.CUTTING, seed)

    along = _along_slices(case)
    inside = (along > 0) & (along < case.slices * case.spacing_mm[0])

    assert 0.2 < inside.mean() < 0.8


def test_a_phantom_is_the_same_every_time_and_fits_twelve_bits() -> None:
    one, again = (phantom(np.random.default_rng(3)) for _ in range(2))

    assert np.array_equal(one.voxels, again.voxels)
    assert one.voxels.min() >= 0
    assert one.voxels.max() < 4096


def test_there_are_a_hundred_of_them_with_names_of_their_own(tmp_path: Path) -> None:
    keep_people(tmp_path)

    images = list(absent_images(tmp_path, read_card(MODEL)))

    assert [sum(image.kind is kind for image in images) for kind in Absent] == [40, 40, 20]
    assert len({image.name for image in images}) == 100


def _placed(kind: Absent, seed: int) -> Case:
    return place(set_a()[0], _truth(), kind, np.random.default_rng(seed))


def _truth() -> dict[str, FineTruth]:
    """Two balls of 8 mm, 19 mm to either side."""
    centre = (np.array((104, 120, 104)) - 1) / 2
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (104, 120, 104)), indexing="ij"), -1)
    labels = (np.linalg.norm((index - centre) * TRUTH_SPACING_MM, axis=-1) < 8).astype(np.uint8) * GPE
    return {
        side: FineTruth(
            labels=labels, origin_mm=np.array([sign * 19.0, 0, 0]) - TRUTH_SPACING_MM * centre[::-1]
        )
        for side, sign in (("left", 1), ("right", -1))
    }


def _along_slices(case: Case) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Where each labelled place lies across the slices, mm from the slab's first face."""
    places = []
    for side in _truth().values():
        places.append(np.argwhere(side.labels > 0)[:, ::-1] * TRUTH_SPACING_MM + side.origin_mm)
    inverse = np.linalg.inv(np.asarray(case.geometry.affine))
    index = np.concatenate(places) @ inverse[:3, :3].T + inverse[:3, 3]
    return np.asarray((index[:, 0] + 0.5) * case.spacing_mm[0])
