"""Heads drawn from the shape model, for the tests that need the real network to see a pallidum."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpnet_node.config import SHIPPED_MODEL
from gpnet_node.model.card import read_card
from gpnet_node.model.drawing import shape
from gpnet_node.model.drawing.head import DrawnHead, draw_series
from gpnet_node.model.drawing.pose import Seeds
from gpnet_node.model.drawing.scene import Contrast, DrawSettings, Scene, Visibility
from gpnet_node.model.evaluation.cohort import slab_geometry, turn

MODEL = Path(__file__).resolve().parents[1] / "model_weights" / SHIPPED_MODEL
CLEAR = Scene(contrast=Contrast.T2, visibility=Visibility.CLEAR)
PLAIN = DrawSettings(elastic_mm=0.4, border_shift_sd_mm=0.3, border_tilt_sd_degrees=3.0)


@lru_cache(maxsize=4)
def drawn_head(
    *,
    seed: int = 1,
    spacing_mm: tuple[float, float, float] = (1.2, 0.8, 0.8),
    slices: int = 44,
    turned_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0),
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    scene: Scene = CLEAR,
) -> DrawnHead:
    """A coarse slab, quick to draw. ``turned_degrees``: about the patient's x, y and z axes."""
    geometry = slab_geometry(spacing_mm, slices, turned=turn(turned_degrees), centre_mm=centre_mm)
    head = shape.draw(np.random.default_rng(seed))
    return draw_series(head, scene, geometry, read_card(MODEL), Seeds.all(seed), PLAIN)


def dice(found: NDArray[np.uint8], truth: NDArray[np.uint8], number: int) -> float:
    """2 |A and B| / (|A| + |B|) of one label."""
    a, b = found == number, truth == number
    return 2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum()))
