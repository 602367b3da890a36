"""Which cuts a page shows, and where each stands on its sheet."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import ModelCard
from gpnet_node.results.page.planes import LEFT, POSTERIOR, SUPERIOR, Plane
from gpnet_node.results.page.sheet import tenths

# One pallidum spans 20 to 25 mm; this leaves putamen, internal capsule and optic tract in the picture.
FIELD_MM = (42.5, 40.0)
# Both pallida with insulae and ventricles, as radiologists know the plane.
BOTH_FIELD_MM = (113.3, 70.0)
STEP_MM = 0.25
SIDES = ("right", "left")  # from top to bottom

Box = tuple[int, int, int, int]  # left, top, width, height in pixels from the sheet's top left

SURFACES_BOX: Box = (1066, 76, 518, 320)
BOTH_BOX: Box = (1066, 404, 518, 320)


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One cut: where it stands on the sheet and what is written on it."""

    title: str
    subtitle: str
    plane: Plane
    box_px: Box
    edges: tuple[str, str, str, str]  # letters at left, right, top, bottom
    bar_mm: int = 10
    sides: tuple[str, ...]  # whose structures are named in it


def lay_out(labels: LabelMap, card: ModelCard, affine: NDArray[np.float64]) -> list[Panel]:
    """Three cuts through each pallidum, the right one's above the left one's, and last an axial one of both.

    ``affine``: (slice, row, column) -> LPS mm. The cuts go through the middle of the structures that the card
    names on that side, or of the volume where it has none of them.
    """
    centres = {side: _centre(labels, card, affine, side) for side in SIDES}
    panels = [
        panel for row, side in enumerate(SIDES) for panel in _of_side(side, centres[side], 76 + 328 * row)
    ]
    middle = np.mean(list(centres.values()), axis=0)
    width, height = BOTH_FIELD_MM
    both = Panel(
        title="BOTH",
        subtitle=f"axial  z = {tenths(middle[2])} mm",
        plane=Plane(centre_mm=middle, right=LEFT, down=POSTERIOR, width_mm=width, height_mm=height),
        box_px=BOTH_BOX,
        edges=("R", "L", "A", "P"),
        bar_mm=20,
        sides=(),
    )
    return [*panels, both]


def _of_side(side: str, centre: NDArray[np.float64], top: int) -> list[Panel]:
    """Axial, coronal and sagittal, seen from the feet, the front and the patient's left."""
    cuts = (
        ("axial", "z", LEFT, POSTERIOR, ("R", "L", "A", "P")),
        ("coronal", "y", LEFT, -SUPERIOR, ("R", "L", "S", "I")),
        ("sagittal", "x", POSTERIOR, -SUPERIOR, ("A", "P", "S", "I")),
    )
    width, height = FIELD_MM
    return [
        Panel(
            title=side.upper(),
            subtitle=f"{name}  {axis} = {tenths(centre['xyz'.index(axis)])} mm",
            plane=Plane(centre_mm=centre, right=right, down=down, width_mm=width, height_mm=height),
            box_px=(16 + 348 * column, top, 340, 320),
            edges=edges,
            sides=(side,),
        )
        for column, (name, axis, right, down, edges) in enumerate(cuts)
    ]


def _centre(labels: LabelMap, card: ModelCard, affine: NDArray[np.float64], side: str) -> NDArray[np.float64]:
    """Mean of the centres of one side's structures, so that a cut meets the small one too.

    The middle of the volume where there is none.
    """
    numbers = [structure.number for structure in card.structures if structure.side == side]
    centres = [
        np.array([axis.mean() for axis in np.nonzero(labels.labels == number)])
        for number in numbers
        if (labels.labels == number).any()
    ]
    index = np.mean(centres, axis=0) if centres else (np.array(labels.labels.shape) - 1) / 2
    return np.asarray(affine[:3, :3] @ index + affine[:3, 3])
