"""Which cuts a picture shows, and where each stands on its sheet."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import ModelCard
from gpnet_node.results.legend import tenths
from gpnet_node.results.planes import LEFT, POSTERIOR, SUPERIOR, Plane

# Both pallida span 51 to 61 mm; this leaves the putamen and the ventricles in the picture.
FIELD_MM = (84.0, 60.0)
SIDE_FIELD_MM = (60.0, 54.0)
STEP_MM = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One cut: where it stands on the sheet (pixels from the top left) and what is written on it."""

    title: str
    plane: Plane
    box_px: tuple[int, int, int, int]  # left, top, width, height
    edges: tuple[str, str, str, str]  # letters at left, right, top, bottom
    step_mm: float = STEP_MM
    bar_mm: int = 10
    marks: tuple[NDArray[np.float64], ...] = ()  # points through which the other cuts pass


def lay_out(labels: LabelMap, card: ModelCard, affine: NDArray[np.float64]) -> list[Panel]:
    """The panels of the sheet: axial first, which sets the window, and the overview last.

    ``affine``: (slice, row, column) -> LPS mm. The cuts go through the middle of the structures that the card
    names, or of the volume where it has none of them.
    """
    left, right = (_centre(labels, card, affine, side) for side in ("left", "right"))
    middle = (left + right) / 2
    front = (
        (f"Axial   z = {tenths(middle[2])} mm", POSTERIOR, (20, 86, 674, 481), ("R", "L", "A", "P")),
        (f"Coronal   y = {tenths(middle[1])} mm", -SUPERIOR, (706, 86, 674, 481), ("R", "L", "S", "I")),
    )
    sides = (("right", right, (20, 579, 444, 400)), ("left", left, (476, 579, 444, 400)))
    overview = Panel(
        title="Overview, axial",
        plane=_whole(labels, affine, middle, 448 / 400),
        box_px=(932, 579, 448, 400),
        edges=("R", "L", "A", "P"),
        step_mm=0.5,
        bar_mm=50,
    )
    return [
        *(
            Panel(
                title=title,
                plane=_plane(middle, LEFT, down, FIELD_MM),
                box_px=box,
                edges=edges,
                marks=(left, right, middle),
            )
            for title, down, box, edges in front
        ),
        *(
            Panel(
                title=f"Sagittal {side}   x = {tenths(centre[0])} mm",
                plane=_plane(centre, POSTERIOR, -SUPERIOR, SIDE_FIELD_MM),
                box_px=box,
                edges=("A", "P", "S", "I"),
                marks=(middle,),
            )
            for side, centre, box in sides
        ),
        overview,
    ]


def _plane(
    centre_mm: NDArray[np.float64],
    right: NDArray[np.float64],
    down: NDArray[np.float64],
    field_mm: tuple[float, float],
) -> Plane:
    return Plane(centre_mm=centre_mm, right=right, down=down, width_mm=field_mm[0], height_mm=field_mm[1])


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


def _whole(
    labels: LabelMap, affine: NDArray[np.float64], through_mm: NDArray[np.float64], aspect: float
) -> Plane:
    """An axial plane as large as the volume, at the height of the pallida."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(labels.labels.shape) - 1)
    corners = corners @ affine[:3, :3].T + affine[:3, 3]
    low, high = corners.min(axis=0), corners.max(axis=0)
    height = max(high[1] - low[1], (high[0] - low[0]) / aspect)
    middle = (low + high) / 2
    return Plane(
        centre_mm=np.array([middle[0], middle[1], through_mm[2]]),
        right=LEFT,
        down=POSTERIOR,
        width_mm=height * aspect,
        height_mm=height,
    )
