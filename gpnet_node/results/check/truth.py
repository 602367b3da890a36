"""What a label map says of its structures, computed a second time for the self-check.

Shares no code with ``measure``: a mistake there must not confirm itself here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, Structure


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """One structure as the label map has it; None for what an empty structure cannot have."""

    count: int
    volume_mm3: float
    centroid_mm: NDArray[np.float64] | None  # (3,), LPS
    mean: float | None
    sd: float | None


def measure_again(volume: Volume, labels: LabelMap, card: ModelCard) -> dict[int, Truth]:
    """Count, place and average each structure of the card, by its number."""
    affine = np.asarray(labels.geometry.affine, dtype=float)
    voxel_mm3 = float(np.prod(np.linalg.norm(affine[:3, :3], axis=0)))
    slices, rows, columns = np.nonzero(labels.labels)
    numbers = labels.labels[slices, rows, columns]
    signal = volume.voxels[slices, rows, columns].astype(np.float64)
    points = np.stack([slices, rows, columns], axis=1) @ affine[:3, :3].T + affine[:3, 3]
    truth = {}
    for structure in card.structures:
        chosen = numbers == structure.number
        count = int(chosen.sum())
        truth[structure.number] = Truth(
            count=count,
            volume_mm3=count * voxel_mm3,
            centroid_mm=points[chosen].mean(axis=0) if count else None,
            mean=float(signal[chosen].mean()) if count else None,
            sd=float(signal[chosen].std()) if count else None,
        )
    return truth


def asymmetry(structure: Structure, truth: Mapping[int, Truth], card: ModelCard) -> float | None:
    """Percent by which the left volume exceeds the right, of their mean; None where there is neither."""
    pair = {s.side: truth[s.number].volume_mm3 for s in card.structures if s.type == structure.type}
    if len(pair) < 2 or not sum(pair.values()):
        return None
    return 200 * (pair["left"] - pair["right"]) / (pair["left"] + pair["right"])
