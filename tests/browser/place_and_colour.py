"""The check: does each structure show its own colour where it lies, and none beside it?

An overlay is blended with the picture below it, so two pictures are compared, with and without the
segmentation. Their difference at a point must be one and the same share of the way from the grey below to the
structure's colour in red, green and blue; beside the structures there must be no difference. Without the
segmentation the same points must show the grey of the structures: so the place is that of the anatomy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.model.card import ModelCard
from tests.browser.heads import DARK_GREY, STRUCTURES, Point
from tests.browser.screen import Screen

Picture = NDArray[np.uint8]  # (height, width, 3) of the whole canvas

# Beside a structure: further away than a slice and its half, since the nearest slice to a point is taken.
CLEAR_MM = 3.0
# A viewer fills at about a half; less than this is not seen, more hides the anatomy.
LEAST_SHARE, LARGEST_SHARE = 0.3, 0.8
# Of 255: rounding of CIELab, of the blend, and of the picture.
SAME_COLOUR = 12
NO_COLOUR = 4
SAME_GREY = 25


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A point of the patient, and what must be seen there: a structure's colour, or none."""

    name: str
    point_mm: Point
    colour: tuple[int, int, int] | None


def probes(card: ModelCard, screen: Screen) -> list[Probe]:
    """The centre of each structure, and points beside it in the six directions of the image's axes.

    A point that lies in another structure, or close to it, is left out.
    """
    named = {structure.number: structure for structure in card.structures}
    found = []
    for structure in STRUCTURES:
        name, colour = named[structure.number].name, named[structure.number].colour
        found.append(Probe(name=name, point_mm=structure.centre_mm, colour=colour))
        for axis, direction in screen.axes().items():
            for sign, towards in ((-1, "back"), (1, "on")):
                point = structure.beside(sign * direction, CLEAR_MM)
                if not any(other.grown(CLEAR_MM - 0.5).holds(np.array(point)) for other in STRUCTURES):
                    where = f"beside {name}, {towards} along the {axis}"
                    found.append(Probe(name=where, point_mm=point, colour=None))
    return found


def faults(
    wanted: Sequence[Probe],
    screen: Screen,
    with_seg: Mapping[str, Picture],
    without_seg: Mapping[str, Picture],
) -> list[str]:
    """Say of each probe that shows something else what it shows; the pictures are by SOP Instance UID."""
    found = []
    for probe in wanted:
        place = screen.place(probe.point_mm)
        picture, below = with_seg[place.sop_instance_uid], without_seg[place.sop_instance_uid]
        pixel = screen.pixel(place, picture.shape[1], picture.shape[0])
        fault = _fault(_colour(picture, pixel), _colour(below, pixel), probe.colour)
        if fault:
            found.append(f"{probe.name}: {fault}")
    return found


def _fault(seen: NDArray[np.float64], below: NDArray[np.float64], colour: tuple[int, int, int] | None) -> str:
    difference = seen - below
    if colour is None:
        largest = float(np.abs(difference).max())
        return "" if largest <= NO_COLOUR else f"coloured by {largest:.0f} where there is nothing"
    if np.abs(below - DARK_GREY).max() > SAME_GREY:
        return f"the picture below is not the structure's: {below.round().tolist()}"
    way = np.array(colour, float) - below
    share = float(difference @ way / (way @ way))
    rest = float(np.abs(difference - share * way).max())
    if np.abs(difference).max() <= NO_COLOUR:
        return "no colour"
    if rest > SAME_COLOUR or not LEAST_SHARE <= share <= LARGEST_SHARE:
        return f"another colour: {seen.round().tolist()} over {below.round().tolist()}, wanted {colour}"
    return ""


def _colour(picture: Picture, pixel: tuple[float, float]) -> NDArray[np.float64]:
    """Mean of 3 x 3 pixels around a place on the screen."""
    x, y = round(pixel[0]), round(pixel[1])
    return np.asarray(picture[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(axis=0), dtype=np.float64)
