"""Made anatomies, small enough to draw many of: an ellipsoidal pallidum between a ventricle and a putamen.

Places are mm from the middle of a pallidum, (z, y, x) with x growing to the side (lateral).
"""

import numpy as np
from numpy.typing import NDArray

from gpnet_node.model.drawing.atlas import Anatomy
from gpnet_node.model.drawing.pose import Head
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.tissue import HEAD_TISSUE_OFFSET, Tissue

PALLIDUM_MM = (6.0, 10.5, 6.0)  # half axes (z, y, x)
PALLIDUM_MM3 = 4 / 3 * np.pi * float(np.prod(PALLIDUM_MM))
SIDEWAYS_MM = 20.0  # of each pallidum from the midline
MARKER_MM = (0.0, 0.0, 14.0)  # middle of the vessel that only a marked side has, 3 mm in radius
BOX = (48, 60, 64)  # (z, y, x) voxels of 0.6 mm
HEAD = (64, 76, 96)  # (z, y, x) voxels of 1 mm


def anatomy(*, side: str = "left", marked: bool = False) -> Anatomy:
    """One side's box. Allen's border is a plane that looks medially; the others' are turned by 10 degrees.

    None runs along the voxels, so that every GPi share has a border of its own.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * BOX_SPACING_MM for n in BOX]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    turned = np.deg2rad(10)
    border = {
        "allen": -x + 0.11 * y + 0.07 * z - 1.5,
        "bigbrain": -x * np.cos(turned) + y * np.sin(turned) + 0.07 * z - 1.5,
        "cit168": -x * np.cos(turned) - y * np.sin(turned) + 0.07 * z - 1.0,
    }
    return Anatomy(
        person="made",
        side=side,
        tissue=_tissue(z, y, x, marked=marked),
        border={name: plane.astype(np.float32) for name, plane in border.items()},
    )


def head(*, marked: str = "left") -> Head:
    """A whole head of two mirrored sides; the vessel is on the marked side only."""
    axes = [np.arange(n) - (n - 1) / 2 for n in HEAD]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    beside = np.abs(x) - SIDEWAYS_MM
    one_side = (x > 0) == (marked == "left")  # LPS: x grows to the left
    tissue = np.where(
        one_side, _tissue(z, y, beside, marked=True), _tissue(z, y, beside, marked=False)
    ).astype(np.uint8)
    brain = [(n - 8) / 2 for n in HEAD]
    out = np.sqrt((z / brain[0]) ** 2 + (y / brain[1]) ** 2 + (x / brain[2]) ** 2)
    tissue[out > 1] = HEAD_TISSUE_OFFSET + 1
    tissue[out > 1.08] = Tissue.BACKGROUND
    middle = (np.array(HEAD) - 1) / 2
    return Head(
        tissue=tissue,
        centres=middle + np.array([[0, 0, SIDEWAYS_MM], [0, 0, -SIDEWAYS_MM]]),
        sides={side: anatomy(side=side, marked=side == marked) for side in ("left", "right")},
        displacement_mm=np.zeros((3, 2, 2, 2), np.float32),
    )


def _tissue(
    z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64], *, marked: bool
) -> NDArray[np.uint8]:
    c, b, a = PALLIDUM_MM
    tissue = np.full(z.shape, Tissue.WHITE_MATTER, np.uint8)
    tissue[(z / 8) ** 2 + (y / 13) ** 2 + ((x - 3) / 7) ** 2 < 1] = Tissue.PUTAMEN
    tissue[(z / c) ** 2 + (y / b) ** 2 + (x / a) ** 2 < 1] = Tissue.GPE
    tissue[(z / 9) ** 2 + (y / 12) ** 2 + ((x + SIDEWAYS_MM) / 9) ** 2 < 1] = Tissue.CSF
    if marked:
        up, back, out = MARKER_MM
        tissue[(z - up) ** 2 + (y - back) ** 2 + (x - out) ** 2 < 9] = Tissue.VESSEL
    return tissue
