"""The check by itself, on pictures painted here: what it lets pass, and what it finds."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from gpnet_node.model.card import ModelCard
from tests.browser.heads import DARK_GREY, draw_lopsided_head, shifted
from tests.browser.place_and_colour import Picture, faults, probes
from tests.browser.screen import Screen, screen_of
from tests.pallida import AXIAL, OBLIQUE, Head

SCALE = 8  # pixels a voxel, of 1 mm in plane
Pictures = dict[str, Picture]


@pytest.fixture(scope="module", params=["axial", "oblique"])
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Head:
    orientation = {"axial": AXIAL, "oblique": OBLIQUE}[request.param]
    folder = tmp_path_factory.mktemp("head")
    return draw_lopsided_head(folder, study_instance_uid="2.25.1", orientation=orientation)


def painted(
    head: Head, screen: Screen, card: ModelCard, *, share: float = 0.5, names: Mapping[int, int] | None = None
) -> Pictures:
    """Each slice as a viewer paints it: the grey of the structures everywhere, colours over it."""
    pictures = {}
    for plane, header in zip(head.labels.labels, screen.headers, strict=True):
        picture = np.full((*plane.shape, 3), DARK_GREY)
        for structure in card.structures:
            number = (names or {}).get(structure.number, structure.number)
            picture[plane == number] = (1 - share) * DARK_GREY + share * np.array(structure.colour)
        large = picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        pictures[str(header.SOPInstanceUID)] = large.round().astype(np.uint8)
    return pictures


def empty(head: Head) -> Head:
    return head.relabelled(np.zeros_like(head.labels.labels))


def test_colours_at_their_places_pass(head: Head, card: ModelCard) -> None:
    screen = screen_of(head.paths)
    wanted = probes(card, screen)

    found = faults(wanted, screen, painted(head, screen, card), painted(empty(head), screen, card))

    assert found == []
    assert len([probe for probe in wanted if probe.colour is None]) > 3 * len(card.structures)


WRONG: Mapping[str, Callable[[Head, Screen, ModelCard], Pictures]] = {
    "no segmentation": lambda head, screen, card: painted(empty(head), screen, card),
    "ten slices too high": lambda head, screen, card: painted(shifted(head, 10), screen, card),
    "left and right exchanged": lambda head, screen, card: painted(
        head, screen, card, names={1: 3, 2: 4, 3: 1, 4: 2}
    ),
    "colours one further": lambda head, screen, card: painted(
        head, screen, card, names={1: 2, 2: 3, 3: 4, 4: 1}
    ),
    "hardly to be seen": lambda head, screen, card: painted(head, screen, card, share=0.1),
    "mirrored": lambda head, screen, card: {
        uid: picture[:, ::-1] for uid, picture in painted(head, screen, card).items()
    },
    "upside down": lambda head, screen, card: {
        uid: picture[::-1] for uid, picture in painted(head, screen, card).items()
    },
}


@pytest.mark.parametrize("wrong", WRONG)
def test_every_structure_is_named_that_is_not_where_it_lies_in_its_colour(
    head: Head, card: ModelCard, wrong: str
) -> None:
    screen = screen_of(head.paths)
    with_seg = WRONG[wrong](head, screen, card)

    found = faults(probes(card, screen), screen, with_seg, painted(empty(head), screen, card))

    assert {fault.split(":")[0] for fault in found} >= {structure.name for structure in card.structures}


def test_a_shift_of_three_slices_colours_what_lies_beside(head: Head, card: ModelCard) -> None:
    screen = screen_of(head.paths)
    with_seg = painted(shifted(head, 3), screen, card)

    found = faults(probes(card, screen), screen, with_seg, painted(empty(head), screen, card))

    assert any("coloured" in fault and "on along the normal" in fault for fault in found)


def test_anatomy_that_is_not_under_its_colour_is_told(head: Head, card: ModelCard) -> None:
    screen = screen_of(head.paths)
    brighter = {uid: np.full_like(picture, 180) for uid, picture in painted(head, screen, card).items()}

    found = faults(probes(card, screen), screen, painted(head, screen, card), brighter)

    assert len([fault for fault in found if "the picture below" in fault]) == len(card.structures)
