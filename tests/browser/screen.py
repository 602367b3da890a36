"""Where a point of the patient lies on the screen, by the source's headers and a rule of viewers alone.

From patient millimetres to row and column: PS3.3 C.7.6.2.1.1, read with plain pydicom. From there to the
screen: an image that fills its canvas as far as it can, in its middle, rows running to the right and columns
down. Nothing is asked of the viewer but how large its canvas is, so a viewer that draws a segmentation
elsewhere cannot talk its way out; that the rule holds is seen by the anatomy, dark at the same points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from tests.browser.heads import Point


@dataclass(frozen=True, kw_only=True)
class Place:
    """The source image nearest to a point; its column and row there, 0 at the first pixel's centre."""

    sop_instance_uid: str
    column: float
    row: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Screen:
    """The source images, as a viewer shows them one at a time."""

    headers: tuple[Dataset, ...]

    def place(self, point_mm: Point) -> Place:
        """Return image, column and row of a point in patient coordinates (LPS)."""
        axes = self.axes()
        offsets = [np.array(point_mm) - np.array(h.ImagePositionPatient, float) for h in self.headers]
        nearest = min(range(len(offsets)), key=lambda index: abs(float(axes["normal"] @ offsets[index])))
        row_mm, column_mm = self._spacing_mm()
        return Place(
            sop_instance_uid=str(self.headers[nearest].SOPInstanceUID),
            column=float(axes["row"] @ offsets[nearest]) / column_mm,
            row=float(axes["column"] @ offsets[nearest]) / row_mm,
        )

    def pixel(self, place: Place, width: int, height: int) -> tuple[float, float]:
        """Return x and y of a place in a picture of the whole canvas, in pixels."""
        row_mm, column_mm = self._spacing_mm()
        wide = int(self.headers[0].Columns) * column_mm
        high = int(self.headers[0].Rows) * row_mm
        scale = min(width / wide, height / high)
        x_mm = (place.column + 0.5) * column_mm - wide / 2
        y_mm = (place.row + 0.5) * row_mm - high / 2
        return width / 2 + x_mm * scale, height / 2 + y_mm * scale

    def axes(self) -> dict[str, NDArray[np.float64]]:
        """Unit vectors in patient coordinates along a row, along a column, and across the slices."""
        along_row, along_column = np.array(self.headers[0].ImageOrientationPatient, float).reshape(2, 3)
        return {"row": along_row, "column": along_column, "normal": np.cross(along_row, along_column)}

    def edge_letter(self) -> str:
        """The patient's direction towards the left edge: the first letter that viewers write there."""
        towards = -self.axes()["row"]
        axis = int(np.abs(towards).argmax())
        return "RLAPFH"[2 * axis + int(towards[axis] > 0)]

    def _spacing_mm(self) -> tuple[float, float]:
        between_rows, between_columns = self.headers[0].PixelSpacing
        return float(between_rows), float(between_columns)


def screen_of(paths: Sequence[Path]) -> Screen:
    """Read the headers of a series of single-frame images."""
    return Screen(headers=tuple(dcmread(path, stop_before_pixels=True) for path in paths))
