"""Draws a whole series: one head's image on a scanner's grid, with the truth that it was drawn from."""

from collections.abc import Mapping
from dataclasses import dataclass

import highdicom as hd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpnet_node.model.atlas import BOX_SPACING_MM, Anatomy
from gpnet_node.model.card import ModelCard
from gpnet_node.model.synthesise import (
    GPE,
    GPI,
    DrawSettings,
    contrast,
    divide,
    paint,
    rotation,
    smooth_field,
    uniform,
)
from gpnet_node.model.tissue import Tissue

_SUBSLICES = 2  # each slice is the mean of this many planes through its thickness


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """One person's anatomy, in LPS axes.

    ``tissue``: uint8 (z, y, x), 1 mm. ``centres``: middle of the left and right box in its voxels, (2, 3).
    ``sides``: boxes by side; the right one is mirrored. ``displacement_mm``: (3, z, y, x) over the extent of
    ``tissue``, added to each place before it is looked up.
    """

    tissue: NDArray[np.uint8]
    centres: NDArray[np.float64]
    sides: Mapping[str, Anatomy]
    displacement_mm: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnHead:
    """``voxels`` float32 and ``labels`` uint8 (card's numbers), both (slice, row, column) of ``geometry``."""

    voxels: NDArray[np.float32]
    labels: NDArray[np.uint8]
    geometry: hd.VolumeGeometry


@dataclass(frozen=True, kw_only=True, eq=False)
class _Painted:
    """Noise-free images of one head, each (channel, z, y, x), float32.

    ``head``: signal at 1 mm. ``boxes``: signal, GPe, GPi and brain of each side. ``bend_mm``: displacement
    over the head.
    """

    head: Tensor
    boxes: dict[str, Tensor]
    bend_mm: Tensor


def draw_series(
    head: Head, rng: np.random.Generator, geometry: hd.VolumeGeometry, card: ModelCard, settings: DrawSettings
) -> DrawnHead:
    """Draw the head on a grid whose patient origin lies between the two pallida.

    ``geometry``: (slice, row, column) -> LPS mm. The head is turned, scaled and bent at random.
    """
    painted = _paint(head, rng, settings)
    own_mm3 = (
        sum(float((side.tissue == Tissue.GPE).sum()) for side in head.sides.values()) * BOX_SPACING_MM**3 / 2
    )
    scale = np.clip((uniform(rng, settings.pallidum_mm3) / own_mm3) ** (1 / 3), 0.87, 1.16)
    inverse = np.linalg.inv(rotation(rng, settings.rotation_sd_degrees / 2) * scale)
    affine = np.asarray(geometry.affine, float)
    slices, rows, columns = geometry.spatial_shape
    voxels = np.zeros((slices, rows, columns), np.float32)
    labels = np.zeros(voxels.shape, np.uint8)
    offsets = (np.arange(_SUBSLICES) + 0.5) / _SUBSLICES - 0.5
    for k in range(slices):
        planes = [_cut(head, painted, _places(affine, k + o, rows, columns, inverse)) for o in offsets]
        mean = torch.stack(planes).mean(0)  # (signal and four shares, row, column)
        voxels[k] = mean[0].numpy()
        labels[k] = _labels(mean[1:], card)
    return DrawnHead(voxels=_scan(voxels, rng, settings), labels=labels, geometry=geometry)


def _paint(head: Head, rng: np.random.Generator, settings: DrawSettings) -> _Painted:
    means, visibility = contrast(rng, settings)
    boxes = {}
    for side, anatomy in head.sides.items():
        tissue = torch.from_numpy(anatomy.tissue.copy())
        mix = float(rng.random())
        allen, bigbrain = (torch.from_numpy(anatomy.border[name]).float() for name in ("allen", "bigbrain"))
        labels, lamina = divide(tissue, allen * mix + bigbrain * (1 - mix), rng, settings)
        signal = paint(rng, tissue, lamina * visibility, means, BOX_SPACING_MM, grain=False)
        parts = (labels == GPE, labels == GPI, tissue != Tissue.BACKGROUND)
        boxes[side] = torch.stack([signal, *(part.float() for part in parts)])
    whole = paint(rng, torch.from_numpy(head.tissue), torch.zeros(1), means, 1.0, grain=False)
    elastic = smooth_field(rng, 9, (32, 32, 32), channels=3) * (rng.uniform(0, settings.elastic_mm) / 2)
    own = functional.interpolate(
        torch.from_numpy(head.displacement_mm)[None], size=(32, 32, 32), mode="trilinear"
    )[0]
    return _Painted(head=whole[None], boxes=boxes, bend_mm=elastic + own)


def _places(
    affine: NDArray[np.float64], k: float, rows: int, columns: int, inverse: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Head coordinates of one plane: (row, column, 3) as (z, y, x) mm from the middle of the two pallida."""
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    index = np.stack([np.full(row.shape, k), row, column, np.ones(row.shape)], axis=-1)
    lps = index @ affine[:3].T
    return (lps[..., ::-1] @ inverse.T).astype(np.float32)


def _moved(head: Head, painted: _Painted, places: NDArray[np.float32]) -> Tensor:
    """Places after bending, counted from the centre of the head's array, mm = voxels; (1, row, column, 3)."""
    middle = (np.array(head.tissue.shape) - 1) / 2
    where = torch.from_numpy(places + (head.centres.mean(0) - middle).astype(np.float32))[None]
    ratio = torch.tensor(painted.bend_mm.shape[1:]) / torch.tensor(head.tissue.shape)
    return where + _look_up(painted.bend_mm, where * ratio).movedim(0, -1)


def _look_up(source: Tensor, where: Tensor) -> Tensor:
    """(channel, z, y, x) at (1, row, column, 3) counted from its centre -> (channel, 1, row, column)."""
    half = torch.tensor([n / 2 for n in source.shape[1:]], dtype=torch.float32)
    return functional.grid_sample(source[None], (where / half).flip(-1)[None], align_corners=False)[0]


def _cut(head: Head, painted: _Painted, places: NDArray[np.float32]) -> Tensor:
    """One plane: signal, then GPe and GPi of the left and of the right side (0-1); (5, row, column)."""
    moved = _moved(head, painted, places)
    cut = torch.zeros(5, *places.shape[:2])
    cut[0] = _look_up(painted.head, moved)[0, 0]
    for number, (side, box) in enumerate(painted.boxes.items()):
        where, inside = _in_box(head, side, moved)
        if bool(inside.any()):
            signal, gpe, gpi, brain = _look_up(box, where[inside][None, None])[:, 0, 0]
            plane = inside[0]
            cut[0, plane] = torch.where(brain > 0.99, signal, cut[0, plane])
            cut[1 + 2 * number, plane], cut[2 + 2 * number, plane] = gpe, gpi
    return cut


def _in_box(head: Head, side: str, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates in a side's box, counted from its centre, and where the box holds this side of the head."""
    middle = (np.array(head.tissue.shape) - 1) / 2
    centre = head.centres[0 if side == "left" else 1] - middle
    where = (moved - torch.from_numpy(centre.astype(np.float32))) / BOX_SPACING_MM
    half = torch.tensor([n / 2 - 2 for n in head.sides[side].tissue.shape], dtype=torch.float32)
    between = float(head.centres[:, 2].mean() - middle[2])
    own = (moved[..., 2] >= between) if side == "left" else (moved[..., 2] < between)
    if side == "right":
        where = where * torch.tensor([1.0, 1.0, -1.0])
    return where, (where.abs() < half).all(-1) & own


def _labels(shares: Tensor, card: ModelCard) -> NDArray[np.uint8]:
    """Structure numbers where a pallidum fills more than half; (4, row, column) -> (row, column)."""
    labels = np.zeros(tuple(shares.shape[1:]), np.uint8)
    for number, side in enumerate(("left", "right")):
        gpe, gpi = shares[2 * number], shares[2 * number + 1]
        for structure in card.structures:
            if structure.side == side:
                mine = (gpe + gpi > 0.5) & ((gpi > gpe) if structure.channel == GPI else (gpi <= gpe))
                labels[mine.numpy()] = structure.number
    return labels


def _scan(
    voxels: NDArray[np.float32], rng: np.random.Generator, settings: DrawSettings
) -> NDArray[np.float32]:
    """Receive field and Rician noise on the acquired grid; scaled to 0-4000 for 12 stored bits."""
    field = smooth_field(rng, 4, voxels.shape)[0].numpy() * (rng.uniform(0, settings.bias) / 2)
    signal = voxels * np.exp(field)
    noise = float(signal[signal > 0.1].mean()) / uniform(rng, settings.snr)
    real = signal + rng.standard_normal(signal.shape, dtype=np.float32) * noise
    imaginary = rng.standard_normal(signal.shape, dtype=np.float32) * noise
    magnitude = np.hypot(real, imaginary)
    scaled: NDArray[np.float32] = magnitude * np.float32(4000 / np.percentile(magnitude, 99.95))
    return scaled.clip(0, 4095)
