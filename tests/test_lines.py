from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gpnet_node.errors import InputError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.lines import border_lines, place_word


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def picture(*rows: str) -> NDArray[np.uint8]:
    return np.array([[0 if mark == "." else int(mark) for mark in row] for row in rows], np.uint8)


def shown(labels: NDArray[np.uint8], card: ModelCard) -> list[str]:
    """The slice as text: structures by number, the bright line as #, the dark one as o."""
    bright, dark = border_lines(labels, card)
    marks = np.where(labels > 0, labels.astype(str), ".")
    marks[bright] = "#"
    marks[dark] = "o"
    return ["".join(row) for row in marks]


def test_a_bright_line_lies_on_the_pixels_beside_a_structure_and_a_dark_one_beside_that(
    card: ModelCard,
) -> None:
    labels = picture(
        ".........", ".........", ".........", "...11....", "...11....", ".........", "........."
    )

    assert shown(labels, card) == [
        ".........",
        "...oo....",
        "..o##o...",
        ".o#11#o..",
        ".o#11#o..",
        "..o##o...",
        "...oo....",
    ]


def test_between_two_structures_the_lines_lie_in_the_larger_and_the_smaller_is_never_hidden(
    card: ModelCard,
) -> None:
    labels = picture("2211111111", "2211111111", "2211111111")

    assert shown(labels, card) == ["22#o111111"] * 3


def test_lines_end_at_the_edge_of_the_image(card: ModelCard) -> None:
    assert shown(picture("11...", "....."), card) == ["11#o.", "##o.."]


def test_a_slice_without_a_structure_has_no_line(card: ModelCard) -> None:
    assert shown(picture("...", "..."), card) == ["...", "..."]


@pytest.mark.parametrize(
    ("shape", "size"), [((48, 60), (9, 49)), ((512, 512), (18, 98)), ((640, 300), (9, 49))]
)
def test_the_word_grows_with_the_matrix(shape: tuple[int, int], size: tuple[int, int]) -> None:
    word = place_word(np.zeros(shape, bool))

    assert word.letters.shape == size
    assert (word.row, word.column) == (0, 0)


def test_the_word_is_told_by_its_letters() -> None:
    letters = place_word(np.zeros((20, 60), bool)).letters

    assert ["".join(" #"[int(pixel)] for pixel in row) for row in letters] == [
        "                                                 ",
        " ####  #####  #### #####  ###  ####   #### #   # ",
        " #   # #     #     #     #   # #   # #     #   # ",
        " #   # #     #     #     #   # #   # #     #   # ",
        " ####  ####   ###  ####  ##### ####  #     ##### ",
        " # #   #         # #     #   # # #   #     #   # ",
        " #  #  #         # #     #   # #  #  #     #   # ",
        " #   # ##### ####  ##### #   # #   #  #### #   # ",
        "                                                 ",
    ]


def test_the_word_gives_way_to_structures_and_to_the_lines_around_them() -> None:
    occupied = np.zeros((60, 80), bool)
    occupied[2:6, 40:60] = occupied[50, 3] = True

    word = place_word(occupied)

    rows, columns = np.nonzero(occupied)
    (top, left), (height, width) = (word.row, word.column), word.letters.shape
    below, right = (
        np.array([rows - (top + height - 1), top - rows]),
        np.array([columns - (left + width - 1), left - columns]),
    )
    assert (below.max(axis=0).clip(min=0) + right.max(axis=0).clip(min=0)).min() > 2


def test_a_matrix_that_is_too_small_for_the_large_word_gets_the_small_one() -> None:
    occupied = np.zeros((512, 512), bool)
    occupied[:, 60:] = True

    assert place_word(occupied).letters.shape == (9, 49)


@pytest.mark.parametrize("shape", [(8, 60), (20, 48)])
def test_an_image_without_room_for_the_word_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"{shape[0]} x {shape[1]} pixels has no room for RESEARCH"):
        place_word(np.zeros(shape, bool))


def test_an_image_that_structures_fill_has_no_room_for_the_word() -> None:
    with pytest.raises(InputError, match="no room"):
        place_word(np.ones((60, 60), bool))
