"""What a segmenter gives back: the label map, each side's probabilities, and how far to trust them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap


@dataclass(frozen=True, kw_only=True, eq=False)
class SideProbability:
    """The network's probabilities around one pallidum, as it lies in the patient (a right one not mirrored).

    ``probability``: float32 (3, z, y, x): background, GPe, GPi. ``lesion``: float32 (z, y, x), that a lesion
    or lead is there; 0 where the network has no such channel. The grid runs along the patient's axes (LPS),
    ``spacing_mm`` in each, from ``origin_mm`` (x, y, z) at the first voxel's centre. ``located_mm``: the
    centre (x, y, z) that localiser and re-centred box agreed on; None where they were not asked.
    ``agreement``: mean Dice (GPe, GPi) of each moved box with their mean; None where only one box was seen.
    """

    side: str
    probability: NDArray[np.float32]
    lesion: NDArray[np.float32]
    spacing_mm: float
    origin_mm: tuple[float, float, float]
    located_mm: tuple[float, float, float] | None = None
    agreement: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How far a label map may be trusted; by structure name, or by side.

    ``entropy``: mean over the structure's voxels, nats (at most ln 3). ``predicted_dice``: empty where the
    card has no regression. ``lesion_mm3``: lesion or lead inside or touching the pallidum.
    ``outside_share``: of the pallidum's volume, predicted beyond the volume. ``edge_distance_mm``: from the
    labels to the nearest outer face of the volume. ``features``: what the Dice is predicted from.
    ``reasons``: one sentence each, why a person must look at it before anything is sent; mostly none.
    """

    entropy: Mapping[str, float] = field(default_factory=dict)
    predicted_dice: Mapping[str, float] = field(default_factory=dict)
    lesion_mm3: Mapping[str, float] = field(default_factory=dict)
    outside_share: Mapping[str, float] = field(default_factory=dict)
    edge_distance_mm: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """``labels``: the card's structure numbers on the volume's grid. ``sides``: by ``left`` and ``right``."""

    labels: LabelMap
    sides: Mapping[str, SideProbability]
    quality: Quality
