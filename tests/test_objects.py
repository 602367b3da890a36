"""What is written for which receivers."""

from pathlib import Path

import pytest

from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.result_profile import ResultProfile, SegForm
from gpnet_node.results.objects import write_objects
from tests.pallida import content_of, draw_head


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def test_each_kind_is_written_once_and_each_form_of_the_segmentation_with_its_own_report(
    tmp_path: Path, card: ModelCard
) -> None:
    labelmap = SegForm(labelmap=True)
    profiles = [
        ResultProfile(),
        ResultProfile(objects=("seg", "rtstruct", "stl")),
        ResultProfile(objects=("sr", "rtstruct"), seg=labelmap),
    ]

    objects, left_out = write_objects(content_of(draw_head(tmp_path), card), profiles)

    names = ["seg", "sr", "seg-labelmap", "sr-labelmap", "rtstruct", "stl-1", "stl-2", "stl-3", "stl-4"]
    assert [it.name for it in objects] == names
    assert left_out == ()
    assert [it.name for it in objects if it.is_for(profiles[2])] == ["sr-labelmap", "rtstruct"]


def test_nothing_is_rejected_where_nothing_is_replaced(tmp_path: Path, card: ModelCard) -> None:
    objects, _ = write_objects(content_of(draw_head(tmp_path), card), [ResultProfile(objects=("rejection",))])

    assert objects == ()


def test_images_that_cannot_carry_contours_are_left_out_and_hold_nothing_else_up(
    tmp_path: Path, card: ModelCard
) -> None:
    content = content_of(draw_head(tmp_path, Modality="CT"), card)

    objects, left_out = write_objects(content, [ResultProfile(objects=("rtstruct", "mr"))])

    assert [it.name for it in objects] == ["rtstruct"]
    assert len(left_out) == 1
    assert left_out[0].startswith("left out the images with contours: ")
