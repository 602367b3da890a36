"""Draws MR images from anatomies: random shape, contrast, resolution, bias field and noise.

After SynthSeg (Billot 2023): the network sees images that never existed, from label maps that did. Contrast
is drawn around a 7T T2 prior (dark pallidum, brighter medial lamina), with a share of T1-like, T2*-like and
random contrasts.
All arrays are (z, y, x) in LPS axes; every draw follows from the generator it is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpnet_node.model.atlas import BOX_SPACING_MM, HEAD_SPACING_MM, Anatomy
from gpnet_node.model.tissue import HEAD_TISSUE_OFFSET, T1, T2, T2STAR, Tissue

GPE, GPI = 1, 2  # labels of a drawn box; 0 is background
TISSUES = HEAD_TISSUE_OFFSET + 16


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """How far drawings may go; every number is a named setting of ``train.toml``."""

    shares: tuple[float, float, float, float] = (0.60, 0.12, 0.16, 0.12)  # T2, T2*, T1, random
    rotation_sd_degrees: float = 9.0
    anisotropy_sd: float = 0.05
    pallidum_mm3: tuple[float, float] = (1300.0, 2200.0)
    gpi_share: tuple[float, float] = (0.27, 0.40)
    border_wave_mm: float = 0.4
    elastic_mm: float = 1.2
    shift_sd_mm: float = 2.5
    slice_mm: tuple[float, float] = (0.6, 2.0)
    in_plane_mm: tuple[float, float] = (0.35, 1.0)
    bias: float = 0.35
    snr: tuple[float, float] = (8.0, 40.0)


def uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """One draw between the bounds."""
    return float(rng.uniform(*bounds))


def smooth_field(rng: np.random.Generator, nodes: int, shape: Sequence[int], channels: int = 1) -> Tensor:
    """Smooth noise, about unit variance, (channels, z, y, x)."""
    coarse = torch.from_numpy(rng.standard_normal((1, channels, nodes, nodes, nodes)).astype(np.float32))
    return functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)[0] * 1.6


def rotation(rng: np.random.Generator, sd_degrees: float) -> NDArray[np.float64]:
    """Rotation about a random axis, 3 x 3; the angle is cut at 2.8 SD."""
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(np.clip(rng.normal(0, sd_degrees), -2.8 * sd_degrees, 2.8 * sd_degrees))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turned: NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turned


def contrast(rng: np.random.Generator, settings: DrawSettings) -> tuple[NDArray[np.float32], float]:
    """Mean signal of each tissue, and the lamina's visibility 0-1 (0 = not seen)."""
    kind = rng.choice(4, p=np.array(settings.shares) / sum(settings.shares))
    means = rng.uniform(0.05, 2.0, TISSUES)
    means[Tissue.BACKGROUND] = rng.uniform(0, 0.1)
    if kind < 3:
        for tissue, bounds in (T2, T2STAR, T1)[kind].items():
            means[tissue] = uniform(rng, bounds)
        dark = kind < 2
        means[Tissue.GPI] = means[Tissue.GPE] + (
            rng.uniform(-0.05, 0.12) if dark else rng.uniform(-0.04, 0.06)
        )
        means[Tissue.LAMINA] = means[Tissue.GPE] + (rng.uniform(0.12, 0.35) if dark else rng.uniform(0, 0.15))
    visibility = float(rng.choice([1.0, 0.6, 0.25, 0.0], p=[0.40, 0.35, 0.15, 0.10]))
    return means.astype(np.float32), visibility


def paint(
    rng: np.random.Generator,
    tissue: Tensor,
    lamina: Tensor,
    means: NDArray[np.float32],
    spacing_mm: float,
    *,
    grain: bool = True,
) -> Tensor:
    """Noise-free signal: tissue means, the lamina drawn over by its weight (0-1), texture within tissue.

    ``grain``: also a texture as fine as the voxels.
    """
    image = torch.from_numpy(means)[tissue.long()]
    image = image + lamina * (float(means[Tissue.LAMINA]) - image)
    nodes = max(4, round(max(tissue.shape) * spacing_mm / 5))
    texture = smooth_field(rng, nodes, tissue.shape)[0] * rng.uniform(0.02, 0.05)
    if grain:
        noise = torch.from_numpy(rng.standard_normal(tuple(tissue.shape), dtype=np.float32))
        texture = texture + noise * rng.uniform(0.02, 0.08)
    return image * (1 + texture)


def acquire(
    rng: np.random.Generator,
    image: Tensor,
    spacing_mm: float,
    settings: DrawSettings,
) -> Tensor:
    """What a scanner would make of it: slice profile, matrix, bias field, Rician noise, gamma."""
    axis = int(rng.choice(3, p=[0.7, 0.15, 0.15]))
    size = [uniform(rng, settings.in_plane_mm)] * 3
    size[axis] = uniform(rng, settings.slice_mm)
    shape = tuple(image.shape)
    acquired = [max(8, min(n, round(n * spacing_mm / s))) for n, s in zip(shape, size, strict=True)]
    image = blur(image, [0.4 * s / spacing_mm for s in size])
    image = functional.interpolate(image[None, None], size=acquired, mode="trilinear", align_corners=True)[
        0, 0
    ]
    image = image * torch.exp(smooth_field(rng, 4, acquired)[0] * (rng.uniform(0, settings.bias) / 2))
    brightness = float(image.mean())
    noise = brightness / uniform(rng, settings.snr)
    parts = torch.from_numpy(rng.standard_normal((2, *acquired)).astype(np.float32)) * noise
    image = torch.sqrt((image + parts[0]) ** 2 + parts[1] ** 2)
    image = functional.interpolate(image[None, None], size=shape, mode="trilinear", align_corners=True)[0, 0]
    if rng.random() < 0.3:
        image = (image / image.max()).clamp(min=1e-4) ** rng.uniform(0.7, 1.4)
    return image


def blur(image: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Separable Gaussian, sigmas in voxels, edges repeated."""
    for axis, sigma in enumerate(sigmas):
        radius = int(np.ceil(2.5 * sigma))
        if radius < 1 or sigma < 0.2:
            continue
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        pads = [0] * 6
        pads[2 * (2 - axis)] = pads[2 * (2 - axis) + 1] = radius
        padded = functional.pad(image[None, None], pads, mode="replicate")
        image = functional.conv3d(padded, (kernel / kernel.sum()).reshape(shape))[0, 0]
    return image


def normalise(image: Tensor) -> Tensor:
    """Clip to the 0.5-99.5 % range, then zero mean and unit deviation: what training and inference share."""
    flat = image.flatten()
    low, high = np.percentile(flat[:: max(1, len(flat) // 50_000)].numpy(), [0.5, 99.5])
    clipped = image.clamp(float(low), float(high))
    return (clipped - clipped.mean()) / clipped.std().clamp(min=1e-6)


def sampling_grid(shape: Sequence[int], matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Tensor:
    """Source voxels ``matrix @ index + offset``, indices counted from the centre; (z, y, x, 3)."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return index @ torch.from_numpy(matrix.T.astype(np.float32)) + torch.from_numpy(offset.astype(np.float32))


def sample(source: Tensor, coordinates: Tensor, mode: str) -> Tensor:
    """Values at voxel coordinates counted from the source's centre; outside: 0. (z, y, x) -> (z, y, x)."""
    half = torch.tensor([n / 2 for n in source.shape], dtype=torch.float32)
    grid = (coordinates / half).flip(-1)[None]
    return functional.grid_sample(source[None, None].float(), grid, mode=mode, align_corners=False)[0, 0]


def draw_box(
    anatomy: Anatomy, rng: np.random.Generator, shape: Sequence[int], settings: DrawSettings
) -> tuple[Tensor, Tensor]:
    """One sample on the network's grid: image (z, y, x) normalised, labels (z, y, x) 0 / GPE / GPI."""
    tissue, labels, lamina = shape_box(anatomy, rng, shape, settings)
    means, visibility = contrast(rng, settings)
    image = paint(rng, tissue, lamina * visibility, means, BOX_SPACING_MM)
    return normalise(acquire(rng, image, BOX_SPACING_MM, settings)), labels


def shape_box(
    anatomy: Anatomy, rng: np.random.Generator, shape: Sequence[int], settings: DrawSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Deformed anatomy: tissue with GPe and GPi divided, labels, and the lamina's weight, each (z, y, x)."""
    own_mm3 = float((anatomy.tissue == Tissue.GPE).sum()) * BOX_SPACING_MM**3
    scale = (uniform(rng, settings.pallidum_mm3) / own_mm3) ** (1 / 3)
    stretch = np.diag(np.exp(rng.normal(0, settings.anisotropy_sd, 3)) * scale)
    matrix = np.linalg.inv(rotation(rng, settings.rotation_sd_degrees) @ stretch)
    offset = rng.normal(0, settings.shift_sd_mm, 3).clip(-7, 7) / BOX_SPACING_MM
    where = sampling_grid(shape, matrix, offset)
    elastic = smooth_field(rng, 7, shape, channels=3).permute(1, 2, 3, 0)
    where = where + elastic * (rng.uniform(0, settings.elastic_mm) / 2 / BOX_SPACING_MM)
    tissue = sample(torch.from_numpy(anatomy.tissue), where, "nearest").to(torch.uint8)
    mix = rng.random()
    allen, bigbrain = (torch.from_numpy(anatomy.border[name]).float() for name in ("allen", "bigbrain"))
    border = sample(allen * mix + bigbrain * (1 - mix), where, "bilinear")
    labels, lamina = divide(tissue, border, rng, settings)
    return tissue, labels, lamina


def divide(
    tissue: Tensor, border: Tensor, rng: np.random.Generator, settings: DrawSettings
) -> tuple[Tensor, Tensor]:
    """Divide the pallidum where ``border`` (mm, positive towards GPi) passes a level: the GPi share is drawn.

    Writes GPI into ``tissue``; labels 0 / GPE / GPI and the lamina's weight 0-1, each (z, y, x).
    """
    border = border + smooth_field(rng, 5, tissue.shape)[0] * (rng.uniform(0, settings.border_wave_mm) / 2)
    inside = tissue == Tissue.GPE
    if bool(inside.any()):
        border = border - torch.quantile(border[inside][::4], 1 - uniform(rng, settings.gpi_share))
    inner = inside & (border > 0)
    lamina = torch.exp(-0.5 * (border / rng.uniform(0.25, 0.5)) ** 2) * inside
    labels = inside.to(torch.uint8) * GPE
    labels[inner] = GPI
    tissue[inner] = Tissue.GPI
    return labels, lamina


def draw_head(
    tissue: NDArray[np.uint8],
    centres: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    shape: Sequence[int],
    spacing_mm: float,
    settings: DrawSettings,
) -> tuple[Tensor, NDArray[np.float64]]:
    """A localiser sample: image (z, y, x) normalised, and the two centres in its voxels (2, 3).

    A random slab is left of the head; a centre outside the slab is NaN.
    """
    ratio = spacing_mm / HEAD_SPACING_MM
    turn = rotation(rng, 12.0) @ np.diag(np.exp(rng.normal(0, 0.07, 3)))
    matrix = np.linalg.inv(turn) * ratio
    middle = (np.array(tissue.shape) - 1) / 2
    offset = centres.mean(0) - middle + rng.normal(0, [14, 12, 8]).clip(-30, 30) / HEAD_SPACING_MM
    where = sampling_grid(shape, matrix, offset)
    drawn = sample(torch.from_numpy(tissue), where, "nearest").to(torch.uint8)
    found = (centres - middle - offset) @ np.linalg.inv(matrix).T + (np.array(shape) - 1) / 2
    means, _ = contrast(rng, settings)
    image = paint(rng, drawn, torch.zeros(1), means, spacing_mm)
    coarse = DrawSettings(slice_mm=(2.5, 5.0), in_plane_mm=(2.5, 2.5), bias=settings.bias, snr=settings.snr)
    image = acquire(rng, image, spacing_mm, coarse)
    keep = _slab(rng, shape, spacing_mm)
    image = image * keep
    for centre in found:
        index = tuple(round(v) for v in centre)
        inside = all(0 <= i < n for i, n in zip(index, shape, strict=True)) and bool(keep[index] > 0)
        if not inside:
            centre[:] = np.nan
    return normalise(image), found


def _slab(rng: np.random.Generator, shape: Sequence[int], spacing_mm: float) -> Tensor:
    """1 inside the field of view: the whole grid, or a slab of 30-110 mm and a cut in plane."""
    keep = torch.ones(tuple(shape))
    if rng.random() < 0.35:
        return keep
    axes = sampling_grid(shape, rotation(rng, 8.0) * spacing_mm, np.zeros(3))
    axis = int(rng.choice(3, p=[0.7, 0.15, 0.15]))
    for which in range(3):
        extent = rng.uniform(30, 110) if which == axis else rng.uniform(130, 240)
        centre = rng.normal(0, extent * (0.45 if which == axis else 0.2))
        keep = keep * ((axes[..., which] - centre).abs() < extent / 2)
    return keep
