"""Heads drawn from the shape model, for the tests that need the real network to see a pallidum."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpnet_node.model import shape
from gpnet_node.model.card import read_card
from gpnet_node.model.evaluate import slab_geometry
from gpnet_node.model.head import DrawnHead, draw_series
from gpnet_node.model.synthesise import DrawSettings

MODEL = Path(__file__).resolve().parents[1] / "model_weights" / "gpnet-0"
CLEAR = DrawSettings(shares=(1.0, 0.0, 0.0, 0.0), snr=(22.0, 26.0), bias=0.2, elastic_mm=0.4)


@lru_cache(maxsize=4)
def drawn_head(
    *,
    seed: int = 1,
    spacing_mm: tuple[float, float, float] = (1.2, 0.8, 0.8),
    slices: int = 44,
    turned_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0),
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> DrawnHead:
    """A coarse slab, quick to draw. ``turned_degrees``: about the patient's x, y and z axes."""
    rng = np.random.default_rng(seed)
    geometry = slab_geometry(spacing_mm, slices, turned=turn(turned_degrees), centre_mm=centre_mm)
    return draw_series(shape.draw(rng), rng, geometry, read_card(MODEL), CLEAR)


def turn(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Rotation by angles about the patient's x, y and z axes, in that order."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one = np.eye(3)
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turned = one @ turned
    return turned
