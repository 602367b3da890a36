"""Volume, centre of mass, signal and left-right asymmetry of each structure of a label map."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, Structure

# Grids closer than this are one grid; a label map is never resampled.
SAME_GRID_MM = 1e-3
ASYMMETRY_FORMULA = "100 * (left - right) / ((left + right) / 2)"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One structure, measured. What cannot be known of an empty structure is None, never NaN.

    ``volume_mm3``: voxel count times voxel volume. ``centroid_mm``: mean of the voxel centres, LPS.
    ``signal_mean`` and ``signal_sd`` (of the population, no Bessel correction): rescaled signal of the
    source over the same voxels. ``asymmetry_percent``: of the volumes of this structure and its
    counterpart on the other side, ``ASYMMETRY_FORMULA``; positive where the left is larger, the same
    number for both; None where both are empty.
    """

    structure: Structure
    voxel_count: int
    volume_mm3: float
    centroid_mm: tuple[float, float, float] | None
    signal_mean: float | None
    signal_sd: float | None
    asymmetry_percent: float | None

    @property
    def within_conventional_range(self) -> bool:
        """Whether the volume lies in the range that the model card gives for one side."""
        low, high = self.structure.volume_range_mm3
        return low <= self.volume_mm3 <= high


def measure(volume: Volume, labels: LabelMap, card: ModelCard) -> tuple[Measurement, ...]:
    """Measure every structure of the card, in the card's order.

    Raises SelfCheckError where the label map holds a number that the card does not name, or does not
    lie on the volume's grid.
    """
    refuse_unmapped(labels, card)
    if labels.labels.shape != volume.voxels.shape:
        raise SelfCheckError(f"label map {labels.labels.shape}, volume {volume.voxels.shape}: sizes differ")
    affine = np.asarray(volume.geometry.affine, dtype=float)
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    index = np.flatnonzero(labels.labels)
    value = labels.labels.ravel()[index]
    voxels = {s.number: index[value == s.number] for s in card.structures}
    volumes = {s.number: voxels[s.number].size * voxel_mm3 for s in card.structures}
    signal = {s.number: volume.voxels.ravel()[voxels[s.number]].astype(np.float64) for s in card.structures}
    return tuple(
        Measurement(
            structure=structure,
            voxel_count=int(voxels[structure.number].size),
            volume_mm3=volumes[structure.number],
            centroid_mm=_centroid(voxels[structure.number], labels.labels.shape, affine),
            signal_mean=_mean(signal[structure.number]),
            signal_sd=_sd(signal[structure.number]),
            asymmetry_percent=_asymmetry(structure, card, volumes),
        )
        for structure in card.structures
    )


def refuse_unmapped(labels: LabelMap, card: ModelCard) -> None:
    """Raise SelfCheckError for a label that the card does not name: there is no default code."""
    present = np.flatnonzero(np.bincount(labels.labels.ravel(), minlength=1))
    unknown = sorted(set(present.tolist()) - {0} - {s.number for s in card.structures})
    if unknown:
        raise SelfCheckError(
            f"the label map holds {', '.join(map(str, unknown))}, not named by model card {card.name}: "
            "nothing is written"
        )


def refuse_other_grid(volume: Volume, labels: LabelMap) -> None:
    """Raise SelfCheckError for a label map that does not lie on exactly the volume's grid."""
    shift = np.abs(np.asarray(volume.geometry.affine) - np.asarray(labels.geometry.affine)).max()
    if labels.labels.shape != volume.voxels.shape or shift > SAME_GRID_MM:
        raise SelfCheckError(
            f"the label map {labels.labels.shape} is not on the grid of its volume {volume.voxels.shape}: "
            "nothing is written"
        )


def counterpart(structure: Structure, card: ModelCard) -> Structure | None:
    """The same structure on the other side, if the card has one."""
    for other in card.structures:
        if other.side != structure.side and other.type == structure.type:
            return other
    return None


def _centroid(
    voxels: NDArray[np.intp], shape: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[float, float, float] | None:
    if not voxels.size:
        return None
    centre = np.array([axis.mean() for axis in np.unravel_index(voxels, shape)])
    x, y, z = (affine[:3, :3] @ centre + affine[:3, 3]).tolist()
    return (x, y, z)


def _mean(signal: NDArray[np.float64]) -> float | None:
    return float(signal.mean()) if signal.size else None


def _sd(signal: NDArray[np.float64]) -> float | None:
    return float(signal.std()) if signal.size else None


def _asymmetry(structure: Structure, card: ModelCard, volumes: dict[int, float]) -> float | None:
    other = counterpart(structure, card)
    if other is None:
        return None
    by_side = {structure.side: volumes[structure.number], other.side: volumes[other.number]}
    left, right = by_side["left"], by_side["right"]
    if left + right == 0:
        return None
    return 100 * (left - right) / ((left + right) / 2)
