"""A segmenter that is told the labels, so that everything around the network can be measured without it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpnet_node.config import Configuration, RouteConfig
from gpnet_node.imaging.volume import Volume
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.segmentation import Segmentation
from gpnet_node.node import SegmentersOf
from gpnet_node.pipeline import Segmenter
from tests.segmenters import segmentation

# (x, y, z) in mm from the middle, half axes in mm: about as large as the pallida of a person.
_ELLIPSOIDS = {
    1: ((21.0, -2.0, 0.0), (4.0, 10.0, 5.8)),  # GPe left; x grows to the patient's left
    2: ((14.0, 1.0, -0.5), (2.7, 7.5, 4.6)),  # GPi left
    3: ((-21.0, -2.0, 0.0), (4.0, 10.0, 5.8)),
    4: ((-14.0, 1.0, -0.5), (2.7, 7.5, 4.6)),
}


@dataclass(frozen=True, kw_only=True)
class KnownLabels:
    """Answers every volume with the label map that lies in ``path``."""

    card: ModelCard
    path: Path

    def segment(self, volume: Volume) -> Segmentation:
        """Label map on the volume's grid; nothing is known of probabilities."""
        return segmentation(volume, np.load(self.path))


def ellipsoids(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Four structures around the middle of an axial grid, (slice, row, column)."""
    z, y, x = (
        (np.arange(count) - (count - 1) / 2).reshape([-1 if axis == own else 1 for axis in range(3)]) * step
        for own, (count, step) in enumerate(zip(shape, spacing_mm, strict=True))
    )
    labels = np.zeros(shape, np.uint8)
    for number, (middle, half) in _ELLIPSOIDS.items():
        parts = [((c - m) / h) ** 2 for c, m, h in zip((x, y, z), middle, half, strict=True)]
        labels[sum(parts) < 1] = number
    return labels


def known_labels(path: Path, model: Path) -> SegmentersOf:
    """For a node whose worker is told the labels."""
    return partial(_segmenters, path, model)


def _segmenters(
    path: Path, model: Path, _configuration: Configuration
) -> Callable[[RouteConfig | None], Segmenter]:
    segmenter = KnownLabels(card=read_card(model), path=path)
    return lambda _route: segmenter
