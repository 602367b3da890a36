"""Positions relative to the commissures, as stereotactic atlases and planning stations tell them."""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from gpnet_node.toml_file import TomlFile

Point = tuple[float, float, float]

_BETWEEN_MM = (15.0, 40.0)  # from commissure to commissure; in adults about 20-32
_OFF_LINE_MM = 10.0  # of the midline point: nearer ones do not tell how the head is turned


class AcPcPosition(NamedTuple):
    """From the middle between the commissures, mm: to the patient's left, forwards, upwards."""

    left_mm: float
    anterior_mm: float
    superior_mm: float


class Plan(BaseModel):
    """Where a person has marked the commissures, LPS mm in one frame of reference; never guessed here.

    ``midline_mm``: a further point of the midsagittal plane, well off the line through the two.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    frame_of_reference_uid: str
    ac_mm: Point
    pc_mm: Point
    midline_mm: Point

    @model_validator(mode="after")
    def _spans_a_plane(self) -> Self:
        between = float(np.linalg.norm(np.subtract(self.ac_mm, self.pc_mm)))
        if not _BETWEEN_MM[0] <= between <= _BETWEEN_MM[1]:
            raise ValueError(
                f"the commissures lie {between:.1f} mm apart, not {_BETWEEN_MM[0]:g}-{_BETWEEN_MM[1]:g} mm"
            )
        off = float(np.linalg.norm(self._upwards()))
        if off < _OFF_LINE_MM:
            raise ValueError(
                f"the midline point lies {off:.1f} mm from the line through the commissures; at least "
                f"{_OFF_LINE_MM:g} mm are needed"
            )
        return self

    def position(self, point_mm: Point) -> AcPcPosition:
        """Where a point (LPS mm) lies, seen from the middle between the commissures.

        Forwards is from PC to AC, left is square to the midsagittal plane, upwards is square to both.
        """
        anterior, superior = self._forwards(), self._upwards()
        superior = superior / np.linalg.norm(superior)
        if superior[2] < 0:  # the midline point lies below the commissures
            superior = -superior
        left = np.cross(superior, anterior)
        away = np.array(point_mm) - (np.array(self.ac_mm) + self.pc_mm) / 2
        return AcPcPosition(float(away @ left), float(away @ anterior), float(away @ superior))

    def _forwards(self) -> NDArray[np.float64]:
        line = np.subtract(self.ac_mm, self.pc_mm)
        return np.asarray(line / np.linalg.norm(line))

    def _upwards(self) -> NDArray[np.float64]:
        """From the commissures' line square to the midline point."""
        away = np.subtract(self.midline_mm, self.pc_mm)
        return np.asarray(away - (away @ self._forwards()) * self._forwards())


def read_plan(path: Path) -> Plan:
    """Read a plan file (TOML, the keys of :class:`Plan`). Raises ConfigurationError, with key and line."""
    return TomlFile(path).validated(Plan)
