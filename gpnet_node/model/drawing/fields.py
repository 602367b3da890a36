"""Smooth maps in a patient's space: the transmit field, what the coils receive, waves for phase and texture.

Places are LPS mm (..., 3), counted from between the pallida.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COILS = 6
_RING_MM = (100.0, 125.0)  # half axes of the ring of loops around the head, left-right and front-back
_LOOP_MM = 70.0  # radius of a loop
_PEAK = 1.05  # of the nominal flip angles, in the middle of the head


@dataclass(frozen=True, kw_only=True, eq=False)
class Transmit:
    """Share of the flip angles that is reached: highest in the middle of the head, with one drop-out."""

    centre_mm: NDArray[np.float64]
    fall: float
    drop_mm: NDArray[np.float64]
    drop_width_mm: NDArray[np.float64]
    depth: float

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest share in a head; signals are computed for these and interpolated between."""
        least = _PEAK * float(np.exp(-0.8 * self.fall)) * (1 - self.depth)
        return min(least, 0.95 * _PEAK), _PEAK

    def at(self, lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """At places (..., 3)."""
        away = ((lps_mm - self.centre_mm) / 100) ** 2
        hole = np.exp(-(((lps_mm - self.drop_mm) / self.drop_width_mm) ** 2).sum(-1) / 2)
        share: NDArray[np.float64] = _PEAK * np.exp(-self.fall * away.sum(-1)) * (1 - self.depth * hole)
        return share


@dataclass(frozen=True, kw_only=True, eq=False)
class Waves:
    """Smooth noise of unit variance anywhere in space: a few plane waves."""

    vectors: NDArray[np.float64]  # (wave, 3), radians a mm
    phases: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, length_mm: tuple[float, float], count: int = 8) -> "Waves":
        """Of wavelengths in a range."""
        along = rng.standard_normal((count, 3))
        along *= (
            2 * np.pi / rng.uniform(*length_mm, (count, 1)) / np.linalg.norm(along, axis=1, keepdims=True)
        )
        return cls(vectors=along, phases=rng.uniform(0, 2 * np.pi, count))

    def at(self, place_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """At places (..., 3)."""
        waves = np.cos(place_mm @ self.vectors.T + self.phases)
        found: NDArray[np.float64] = waves.sum(-1) * np.sqrt(2 / len(self.phases))
        return found


def received(lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root sum of squares of what a ring of loops receives from places; 1 between the pallida.

    Each sensitivity falls off as on the axis of a loop.
    """
    angle = (np.arange(COILS) + 0.5) * 2 * np.pi / COILS
    loops = np.stack([_RING_MM[0] * np.cos(angle), _RING_MM[1] * np.sin(angle), np.zeros(COILS)], -1)
    away = np.linalg.norm(lps_mm[..., None, :] - loops, axis=-1)
    squares: NDArray[np.float64] = ((1 + (away / _LOOP_MM) ** 2) ** -3.0).sum(-1)
    middle = ((1 + (np.linalg.norm(loops, axis=-1) / _LOOP_MM) ** 2) ** -3.0).sum()
    strength: NDArray[np.float64] = np.sqrt(squares / middle)
    return strength
