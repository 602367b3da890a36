"""A segmenter without a network, for the heads that ``tests.pallida`` draws: dark ellipsoids, by threshold.

It stands behind the same one-method seam as GP-net, so everything around it runs as it does in earnest.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpnet_node.config import SHIPPED_MODEL, Configuration, RouteConfig
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.segmentation import Quality, Segmentation
from gpnet_node.pipeline import Segmenter

MODEL = Path(__file__).resolve().parents[1] / "model_weights" / SHIPPED_MODEL
HOLD = "hold"  # while the archive has a file of this name, a held segmenter does not finish


def segmentation(volume: Volume, labels: NDArray[np.uint8], *reasons: str) -> Segmentation:
    """A label map with the reasons for its review; nothing is known of probabilities."""
    label_map = LabelMap(labels=labels, geometry=volume.geometry)
    return Segmentation(labels=label_map, sides={}, quality=Quality(reasons=reasons))


class ThresholdSegmenter:
    """Labels dark voxels near the drawn pallida: GPe lateral, GPi medial, sides by the patient's x axis."""

    def __init__(self) -> None:
        self.card: ModelCard = read_card(MODEL)

    def segment(self, volume: Volume) -> Segmentation:
        """Label map on the volume's grid."""
        shape = volume.voxels.shape
        index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
        affine = np.asarray(volume.geometry.affine)
        x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
        dark = (volume.voxels > 200) & (volume.voxels < 500)
        near = (np.abs(x) > 11) & (np.abs(x) < 26) & (np.abs(y) < 14) & (np.abs(z) < 7)
        labels = np.zeros(shape, np.uint8)
        for sign, outer, inner in ((1, 1, 2), (-1, 3, 4)):
            side = dark & near & (sign * x > 0)
            labels[side & (np.abs(x) >= 18)] = outer
            labels[side & (np.abs(x) < 18)] = inner
        return segmentation(volume, labels)


class DoubtfulSegmenter:
    """Segments, and finds a reason to doubt it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._inner = ThresholdSegmenter()
        self.card = self._inner.card

    def segment(self, volume: Volume) -> Segmentation:
        """Label map on the volume's grid, with its reason for a review."""
        return segmentation(volume, self._inner.segment(volume).labels.labels, self._reason)


class HeldSegmenter:
    """Finishes only when the file that holds it is gone."""

    def __init__(self, hold: Path) -> None:
        self._hold = hold
        self._inner = ThresholdSegmenter()
        self.card = self._inner.card

    def segment(self, volume: Volume) -> Segmentation:
        """Label map on the volume's grid, in the end."""
        while self._hold.exists():
            time.sleep(0.02)
        return self._inner.segment(volume)


class HungrySegmenter:
    """Wants more memory than any machine has, while the file that says so is there."""

    def __init__(self, hungry: Path) -> None:
        self._hungry = hungry
        self._inner = ThresholdSegmenter()
        self.card = self._inner.card

    def segment(self, volume: Volume) -> Segmentation:
        """Label map on the volume's grid. Raises MemoryError."""
        if self._hungry.exists():
            np.zeros(1 << 60, np.uint8)
        return self._inner.segment(volume)


def threshold_segmenters(configuration: Configuration) -> Callable[[RouteConfig | None], Segmenter]:
    """For a node whose worker uses the threshold."""
    segmenter = ThresholdSegmenter()
    return lambda _route: segmenter


def doubtful_segmenters(configuration: Configuration) -> Callable[[RouteConfig | None], Segmenter]:
    """For a command whose results are all doubtful."""
    segmenter = DoubtfulSegmenter("the left pallidum is doubtful")
    return lambda _route: segmenter


def held_segmenters(configuration: Configuration) -> Callable[[RouteConfig | None], Segmenter]:
    """For a node whose worker can be held in the middle of a job."""
    segmenter = HeldSegmenter(configuration.node.archive / HOLD)
    return lambda _route: segmenter
