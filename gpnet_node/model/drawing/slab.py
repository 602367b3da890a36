"""Draws what the localiser learns from: heads and slabs as a scanner may send them, on its coarse grid.

After SynthSeg (Billot 2023), but with fields of view that hold both pallida, cut them, or end just before
them, and with images of no head at all: where a pallidum is not, the network must say so.
Arrays are (z, y, x) in LPS axes; every draw follows from the generator it is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpnet_node.model.drawing import phantom
from gpnet_node.model.drawing.atlas import HEAD_SPACING_MM
from gpnet_node.model.drawing.scanner import blur, smooth_field
from gpnet_node.model.drawing.synthesise import rotation, sample, sampling_grid
from gpnet_node.model.drawing.tissue import HEAD_TISSUE_OFFSET, T1, T2, T2STAR, TISSUES, Tissue
from gpnet_node.model.intensity import normalise
from gpnet_node.model.localise import LOCALISER_SHAPE, LOCALISER_SPACING_MM

_POOL = 2  # the head of 1 mm is painted and halved before it is turned, for partial volume
_TABLES = (T2, T2STAR, T1)


class FieldOfView(StrEnum):
    """What a slab shows of the two pallida."""

    WHOLE = "whole"  # the whole head
    HOLDING = "holding"  # a slab that holds both
    BESIDE = "beside"  # a slab that ends 2-20 mm from one or both
    CUTTING = "cutting"  # its edge runs through one or both
    NO_HEAD = "no head"  # a phantom, or shapes that are no brain


@dataclass(frozen=True, kw_only=True)
class SlabSettings:
    """How far slabs may go."""

    shape: tuple[int, int, int] = LOCALISER_SHAPE
    spacing_mm: float = LOCALISER_SPACING_MM
    views: tuple[float, ...] = (0.28, 0.34, 0.15, 0.11, 0.12)  # share of each FieldOfView
    contrasts: tuple[float, ...] = (0.45, 0.15, 0.20, 0.20)  # T2, T2*, T1, random
    thickness_mm: tuple[float, float] = (30.0, 110.0)
    thick_slice_mm: tuple[float, float] = (4.0, 8.0)  # of the slices that are thicker than the grid
    gap_mm: tuple[float, float] = (2.0, 20.0)
    scale: tuple[float, float] = (0.85, 1.15)
    window_mm: float = 35.0  # at most, along each axis, between the middles of window and field of view
    tilt_sd_degrees: float = 10.0
    strongly_tilted: float = 0.12  # share of heads turned by up to ``most_tilt_degrees``
    most_tilt_degrees: float = 35.0
    bare_brain: float = 0.15  # share of heads without skull and skin
    lead: float = 0.12
    lesion: float = 0.25
    bias: float = 0.6
    snr: tuple[float, float] = (12.0, 60.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Slab:
    """One sample.

    ``image``: (z, y, x), normalised, nothing outside the field of view. ``pallida``: (2, z, y, x), share of
    each voxel that is left and right pallidum inside the field of view. ``centres``: voxels (2, 3), NaN for a
    pallidum that is not wholly inside. ``inside``: share of each pallidum that is inside.
    """

    image: Tensor
    pallida: Tensor
    centres: NDArray[np.float64]
    inside: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Placed:
    """A head and a field of view in the window; mm, from the middle between the pallida, patient axes.

    ``turn``: head -> patient. ``window``: middle of the window. ``axes``, ``middle``, ``extent``: of the
    field of view, a box; the columns of ``axes`` are its directions, slices first.
    """

    turn: NDArray[np.float64]
    window: NDArray[np.float64]
    axes: NDArray[np.float64]
    middle: NDArray[np.float64]
    extent: NDArray[np.float64]


def draw_slab(
    tissue: NDArray[np.uint8],
    centres: NDArray[np.float64],
    rng: np.random.Generator,
    settings: SlabSettings | None = None,
    view: FieldOfView | None = None,
) -> Slab:
    """One localiser sample of one head. ``tissue`` and ``centres`` as ``atlas.load_head`` gives them.

    ``view``: drawn by its share where it is not given.
    """
    settings = settings or SlabSettings()
    if view is None:
        view = tuple(FieldOfView)[rng.choice(len(FieldOfView), p=settings.views)]
    if view is FieldOfView.NO_HEAD:
        return _no_head(rng, settings)
    placed = _place(tissue, centres, rng, settings, view)
    index = sampling_grid(settings.shape, np.eye(3) * settings.spacing_mm, placed.window)  # mm, patient axes
    where = _bent(index, placed, rng)
    image, pallida = _painted(tissue, centres, where, rng, settings)
    whole = pallida.sum((1, 2, 3)).numpy().astype(float)
    found = np.array([_centroid(side) for side in pallida])
    image = _abnormal(image, index, found, rng, settings)
    keep = _inside(index, placed)
    image = _acquired(image, keep, placed, rng, settings)
    pallida = pallida * keep
    inside = pallida.sum((1, 2, 3)).numpy() / np.maximum(whole, 1e-6)
    found[inside < 0.99] = np.nan
    return Slab(image=normalise(image), pallida=pallida, centres=found, inside=inside)


def _place(
    tissue: NDArray[np.uint8],
    centres: NDArray[np.float64],
    rng: np.random.Generator,
    settings: SlabSettings,
    view: FieldOfView,
) -> _Placed:
    """Turn the head, lay the field of view by what it is to show, and the window on one or the other."""
    turn = _tilt(rng, settings) @ np.diag(rng.uniform(*settings.scale) * np.exp(rng.normal(0, 0.03, 3)))
    axes = (turn / np.linalg.norm(turn, axis=0) if rng.random() < 0.5 else np.eye(3)) @ rotation(rng, 8.0)
    slices = int(rng.choice(3, p=[0.6, 0.2, 0.2]))  # axial, coronal, sagittal
    axes = np.roll(axes, -slices, axis=1)
    if view is FieldOfView.WHOLE:
        extent, middle = rng.uniform(180, 260, 3), rng.normal(0, [18, 14, 8])
    else:
        across = [
            _reach(tissue, centres, side, turn) @ axes[:, 0] for side in (0, 1)
        ]  # mm along the slices' normal
        low, high = _slice_range(across, rng, settings, view)
        extent = np.array([high - low, *rng.uniform(*(85, 130) if rng.random() < 0.2 else (130, 240), 2)])
        middle = axes @ np.array([(low + high) / 2, *rng.normal(0, extent[1:] * 0.04)])
    # Windows lie anywhere, or else a network learns where pallida lie in the window, not what they look like.
    window = middle + rng.uniform(-1, 1, 3) * settings.window_mm
    return _Placed(turn=turn, window=window, axes=axes, middle=middle, extent=extent)


def _tilt(rng: np.random.Generator, settings: SlabSettings) -> NDArray[np.float64]:
    if rng.random() >= settings.strongly_tilted:
        return rotation(rng, settings.tilt_sd_degrees)
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.deg2rad(rng.uniform(0, settings.most_tilt_degrees))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned: NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turned


def _reach(
    tissue: NDArray[np.uint8], centres: NDArray[np.float64], side: int, turn: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Voxels of one pallidum, mm in patient axes from the middle between both, (n, 3)."""
    start = np.maximum(centres[side].astype(int) - 24, 0)
    box = tuple(slice(int(a), int(a) + 48) for a in start)
    points = np.argwhere(tissue[box] == Tissue.GPE) + start
    points = points[np.abs(points - centres[side])[:, 2] < 16]  # not the other side's
    return np.asarray((points - centres.mean(0)) * HEAD_SPACING_MM @ turn.T)


def _slice_range(
    across: Sequence[NDArray[np.float64]], rng: np.random.Generator, settings: SlabSettings, view: FieldOfView
) -> tuple[float, float]:
    """First and last mm of the slab along its normal, for what it is to show."""
    thickness = rng.uniform(*settings.thickness_mm)
    low, high = float(min(a.min() for a in across)), float(max(a.max() for a in across))
    if view is FieldOfView.HOLDING:
        thickness = max(thickness, high - low + 5)
        start = rng.uniform(high + 2 - thickness, low - 2)
        return start, start + thickness
    sides = [across[int(rng.integers(2))]] if rng.random() < 0.5 else list(across)
    low, high = float(min(a.min() for a in sides)), float(max(a.max() for a in sides))
    if view is FieldOfView.CUTTING:
        edge = rng.uniform(0.9 * low + 0.1 * high, 0.1 * low + 0.9 * high)
        return (edge, edge + thickness) if rng.random() < 0.5 else (edge - thickness, edge)
    gap = rng.uniform(*settings.gap_mm) if rng.random() < 0.8 else rng.uniform(20, 60)
    return (high + gap, high + gap + thickness) if rng.random() < 0.5 else (low - gap - thickness, low - gap)


def _bent(index: Tensor, placed: _Placed, rng: np.random.Generator) -> Tensor:
    """Where each place lies in the head, mm from the middle between the pallida, (z, y, x, 3).

    Smoothly deformed, the ventricles and the pallida enlarged or shrunk.
    """
    where = index @ torch.from_numpy(np.linalg.inv(placed.turn).T.astype(np.float32))
    bend = smooth_field(rng, 7, where.shape[:3], channels=3).permute(1, 2, 3, 0) * rng.uniform(0, 1.5)
    places = (
        ((22.0, 4.0, 0.0), 16.0, rng.uniform(0, 0.45) if rng.random() < 0.4 else 0.0),  # ventricles
        ((0.0, 0.0, 21.0), 9.0, rng.uniform(-0.15, 0.3)),
        ((0.0, 0.0, -21.0), 9.0, rng.uniform(-0.15, 0.3)),
    )
    moved = where + bend
    for place, reach_mm, growth in places:
        away = where - torch.tensor(place)
        nearer = torch.exp(away.square().sum(-1, keepdim=True) * (-0.5 / reach_mm**2)) * float(growth)
        moved = moved - away * nearer
    return moved


def _painted(
    tissue: NDArray[np.uint8],
    centres: NDArray[np.float64],
    where: Tensor,
    rng: np.random.Generator,
    settings: SlabSettings,
) -> tuple[Tensor, Tensor]:
    """Noise-free signal (z, y, x), and the share of left and right pallidum (2, z, y, x)."""
    even = tissue[tuple(slice(n // _POOL * _POOL) for n in tissue.shape)]
    middle = (np.array(even.shape) - 1) / 2
    offset = torch.from_numpy((centres.mean(0) - middle).astype(np.float32))
    coordinates = (where / HEAD_SPACING_MM + offset) / _POOL
    means = _means(rng, settings)
    corners = [even[(slice(k, None, _POOL),) * 3] for k in range(_POOL)]  # of each block, for all of it
    signal = torch.from_numpy(np.mean([means[corner] for corner in corners], axis=0, dtype=np.float32))
    pallidum = np.mean([corner == Tissue.GPE for corner in corners], axis=0, dtype=np.float32)
    ends = (coordinates - 0.5, coordinates + 0.5)  # a voxel is the mean of two places on its diagonal
    share = torch.stack([sample(torch.from_numpy(pallidum), end, "bilinear") for end in ends]).mean(0)
    image = torch.stack([sample(signal, end, "bilinear") for end in ends]).mean(0)
    texture = smooth_field(rng, 40, image.shape)[0] * rng.uniform(0.02, 0.08)
    left = where[..., 2] > 0  # LPS: x grows to the left
    return image * (1 + texture), torch.stack([share * left, share * ~left])


def _means(rng: np.random.Generator, settings: SlabSettings) -> NDArray[np.float32]:
    """Mean signal of each tissue; skull and skin of any brightness, or none."""
    means = rng.uniform(0.05, 2.0, TISSUES)
    means[Tissue.BACKGROUND] = rng.uniform(0, 0.1)
    kind = int(rng.choice(4, p=settings.contrasts))
    if kind < len(_TABLES):
        for tissue, bounds in _TABLES[kind].items():
            means[tissue] = rng.uniform(*bounds)
    else:  # any contrast, but one in which the pallidum differs from what surrounds it
        around = means[[Tissue.WHITE_MATTER, Tissue.PUTAMEN]].mean()
        if abs(means[Tissue.GPE] - around) < 0.25:
            means[Tissue.GPE] = around + rng.choice([-1, 1]) * rng.uniform(0.25, 0.5)
    if rng.random() < settings.bare_brain:
        means[HEAD_TISSUE_OFFSET:] = means[Tissue.BACKGROUND] = 0
        if rng.random() < 0.3:
            means[Tissue.CSF] = rng.uniform(0, 0.1)
    return np.maximum(means, 0).astype(np.float32)


def _abnormal(
    image: Tensor, index: Tensor, found: NDArray[np.float64], rng: np.random.Generator, settings: SlabSettings
) -> Tensor:
    """Lesions of any brightness near the pallida, and dark tracks of leads that come from above."""
    places = [_at(index, centre) for centre in found if np.isfinite(centre).all()]
    if places and rng.random() < settings.lesion:
        for _ in range(int(rng.integers(1, 4))):
            place = places[int(rng.integers(len(places)))] + torch.from_numpy(
                rng.normal(0, 12, 3).astype(np.float32)
            )
            reach_mm = rng.uniform(1.5, 7.0)
            weight = torch.exp(-0.5 * (index - place).square().sum(-1) / reach_mm**2)
            image = image * (1 - weight) + weight * rng.uniform(0, 3.0)
    if rng.random() < settings.lead:
        for place in places if rng.random() < 0.6 else places[int(rng.integers(2)) :][:1]:
            tip = place + torch.from_numpy(rng.normal(0, 4, 3).astype(np.float32))
            along = np.array([1.0, rng.normal(-0.4, 0.2), np.sign(float(tip[2])) * rng.uniform(0, 0.5)])
            unit = torch.from_numpy((along / np.linalg.norm(along)).astype(np.float32))
            away = index - tip
            length = (away @ unit).clamp(min=0)
            distance = (away - length[..., None] * unit).square().sum(-1)
            image = image * (1 - torch.exp(-0.5 * distance / rng.uniform(1.2, 3.0) ** 2))
    return image


def _at(index: Tensor, voxel: NDArray[np.float64]) -> Tensor:
    """mm of a voxel."""
    step = index[1, 1, 1] - index[0, 0, 0]
    return index[0, 0, 0] + torch.from_numpy(voxel.astype(np.float32)) * step


def _inside(index: Tensor, placed: _Placed) -> Tensor:
    """1 inside the field of view, (z, y, x)."""
    away = (index - torch.from_numpy(placed.middle.astype(np.float32))) @ torch.from_numpy(
        placed.axes.astype(np.float32)
    )
    half = torch.from_numpy((placed.extent / 2).astype(np.float32))
    return (away.abs() <= half).all(-1).float()


def _acquired(
    image: Tensor, keep: Tensor, placed: _Placed, rng: np.random.Generator, settings: SlabSettings
) -> Tensor:
    """Resolution, ghosts, receive field, noise and gamma; nothing outside the field of view."""
    axis = int(np.abs(placed.axes[:, 0]).argmax())
    shape = tuple(image.shape)
    if rng.random() < 0.3:  # slices thicker than the grid
        slice_mm = rng.uniform(*settings.thick_slice_mm)
        sigmas, size = [0.0] * 3, list(shape)
        sigmas[axis], size[axis] = (
            0.4 * slice_mm / settings.spacing_mm,
            round(shape[axis] * settings.spacing_mm / slice_mm),
        )
        image = blur(image, sigmas)[None, None]
        image = functional.interpolate(image, size=size, mode="trilinear", align_corners=True)
        image = functional.interpolate(image, size=shape, mode="trilinear", align_corners=True)[0, 0]
    if rng.random() < 0.15:
        shift = int(rng.integers(4, 40))
        image = image + rng.uniform(0.05, 0.25) * torch.roll(image, shift, dims=int(rng.integers(3)))
    field = smooth_field(rng, int(rng.integers(2, 5)), shape)[0] * (rng.uniform(0, settings.bias) / 2)
    image = image * torch.exp(field)
    noise = float(image[keep > 0].mean() if bool(keep.any()) else image.mean()) / rng.uniform(*settings.snr)
    parts = torch.from_numpy(rng.standard_normal((2, *shape), dtype=np.float32)) * noise
    image = torch.sqrt((image + parts[0]) ** 2 + parts[1] ** 2)
    if rng.random() < 0.3:
        image = (image / image.max().clamp(min=1e-6)) ** rng.uniform(0.6, 1.5)
    return image * keep


def _no_head(rng: np.random.Generator, settings: SlabSettings) -> Slab:
    """A phantom with or without structure, or shapes of chance: nothing to be found."""
    index = sampling_grid(settings.shape, np.eye(3) * settings.spacing_mm, rng.normal(0, 8, 3))
    turned = index @ torch.from_numpy(rotation(rng, 20.0).astype(np.float32))
    image = phantom.shapes_of_chance(turned, rng) if rng.random() < 0.5 else phantom.phantom(turned, rng)
    placed = _Placed(
        turn=np.eye(3),
        window=np.zeros(3),
        axes=np.roll(rotation(rng, 8.0), int(rng.integers(3)), axis=1),
        middle=rng.normal(0, 6, 3),
        extent=rng.uniform(130, 260, 3),
    )
    if rng.random() < 0.6:
        placed.extent[0] = rng.uniform(*settings.thickness_mm)
    image = _acquired(image, _inside(index, placed), placed, rng, settings)
    nothing = np.full((2, 3), np.nan)
    pallida = torch.zeros(2, *settings.shape)
    return Slab(image=normalise(image), pallida=pallida, centres=nothing, inside=np.zeros(2))


def _centroid(share: Tensor) -> NDArray[np.float64]:
    """Middle of what lies in the grid, voxels; NaN where nothing does."""
    total = float(share.sum())
    if total < 1:
        return np.full(3, np.nan)
    sums = [share.sum(tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    return np.array([float(torch.arange(len(s), dtype=torch.float32) @ s) / total for s in sums])
