"""How far two segmentations of one side's pallidum are apart: the paper's measures, and the interface.

Solomon 2021 took surface distances on axial slices where both masks exist; here they are three-dimensional.
A structure that was not found has Dice 0 and infinite distances, so that a median over sides tells of it.
Needs the ``train`` extra (MONAI).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_distance import compute_average_surface_distance
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gpnet_node.model.drawing.synthesise import GPE, GPI

STRUCTURES = {"GPe": GPE, "GPi": GPI}
Labels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class StructureMetrics:
    """One structure of one side. ``centre_*_mm``: found minus true, LPS (left, back and up are positive)."""

    dice: float
    hd95_mm: float
    surface_mm: float  # mean over both surfaces
    volume_mm3: float
    true_volume_mm3: float
    volume_error_mm3: float
    volume_error_percent: float
    centre_mm: float
    centre_x_mm: float
    centre_y_mm: float
    centre_z_mm: float
    precision: float
    recall: float
    interface_mm: float  # of GPe and GPi: one figure per side, told with both


def compare(
    found: Labels, truth: Labels, spacing_mm: Sequence[float], axes: NDArray[np.float64] | None = None
) -> dict[str, StructureMetrics]:
    """Metrics by structure of two label maps of one side, (z, y, x) with 0 / GPE / GPI.

    ``spacing_mm``: along the arrays' axes. ``axes``: direction of each of them in LPS, columns, 3 x 3;
    without it they run up, back and left. Raises ValueError where the truth lacks a structure.
    """
    axes = np.eye(3)[:, ::-1] if axes is None else axes
    found, truth = _cropped(found, truth)
    interface_mm = interface_distance_mm(found, truth, spacing_mm)
    return {
        name: _structure(found == label, truth == label, np.asarray(spacing_mm, float), axes, interface_mm)
        for name, label in STRUCTURES.items()
    }


def dice(found: Labels, truth: Labels, number: int) -> float:
    """2 |A and B| / (|A| + |B|) of one label; 1 where both are empty."""
    a, b = found == number, truth == number
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def interface_distance_mm(found: Labels, truth: Labels, spacing_mm: Sequence[float]) -> float:
    """Mean distance between the two GPi/GPe interfaces, both ways averaged; infinite where one is missing.

    An interface is the set of voxel faces on which GPe meets GPi, each face stood for by its middle.
    """
    spacing = np.asarray(spacing_mm, float)
    one, other = (_faces(labels) * spacing for labels in (found, truth))
    if not len(one) or not len(other):
        return float("inf")
    there, back = cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]
    return float((there.mean() + back.mean()) / 2)


def _faces(labels: Labels) -> NDArray[np.float64]:
    """Middles of the faces between a GPe and a GPi voxel, in voxels, (faces, 3)."""
    middles = []
    for axis in range(3):
        a, b = (np.moveaxis(labels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        meets = ((a == GPE) & (b == GPI)) | ((a == GPI) & (b == GPE))
        where = np.argwhere(np.moveaxis(meets, 0, axis)).astype(float)
        where[:, axis] += 0.5
        middles.append(where)
    return np.concatenate(middles)


def _cropped(found: Labels, truth: Labels) -> tuple[Labels, Labels]:
    """Both maps around what either holds: the rest says nothing and costs time."""
    if found.shape != truth.shape:
        raise ValueError(f"label maps of {found.shape} and {truth.shape} voxels cannot be compared")
    if not all((truth == label).any() for label in STRUCTURES.values()):
        raise ValueError("the truth lacks a structure: there is nothing to compare with")
    where = np.argwhere((found > 0) | (truth > 0))
    low, high = (where.min(0) - 1).clip(0), where.max(0) + 2
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return found[box], truth[box]


def _structure(
    found: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: NDArray[np.float64],
    axes: NDArray[np.float64],
    interface_mm: float,
) -> StructureMetrics:
    voxel_mm3 = float(spacing.prod())
    volume, true_volume = float(found.sum()) * voxel_mm3, float(truth.sum()) * voxel_mm3
    hit = float((found & truth).sum()) * voxel_mm3
    away = np.full(3, np.inf)
    hd95 = surface = float("inf")
    if found.any():
        away = axes @ ((np.argwhere(found).mean(0) - np.argwhere(truth).mean(0)) * spacing)
        one, other = (torch.from_numpy(mask)[None, None] for mask in (found, truth))
        mm = spacing.tolist()
        hd95 = float(
            compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=mm)
        )
        surface = float(
            compute_average_surface_distance(one, other, include_background=True, symmetric=True, spacing=mm)
        )
    return StructureMetrics(
        dice=2 * hit / (volume + true_volume),
        hd95_mm=hd95,
        surface_mm=surface,
        volume_mm3=volume,
        true_volume_mm3=true_volume,
        volume_error_mm3=volume - true_volume,
        volume_error_percent=100 * (volume - true_volume) / true_volume,
        centre_mm=float(np.linalg.norm(away)),
        centre_x_mm=float(away[0]),
        centre_y_mm=float(away[1]),
        centre_z_mm=float(away[2]),
        precision=hit / volume if volume else 0.0,
        recall=hit / true_volume,
        interface_mm=interface_mm,
    )
