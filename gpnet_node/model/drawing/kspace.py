"""How a receiver takes one slice: lines of k-space, an echo train's decay, moved lines, several coils.

Images and k-space are complex64 (row, column); k-space is centred, its zero frequency at index n // 2. All
that happens while lines are taken is one factor a sample of k-space: rigid shifts, ghosts and decay alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpnet_node.model.drawing.fields import COILS
from gpnet_node.model.drawing.scene import Artefact

_STILL = 0.03  # cycles a pixel around the middle of k-space that are taken without motion


@dataclass(frozen=True, kw_only=True)
class EchoTrain:
    """A spin-echo train whose middle echo falls in the middle of k-space; 1 echo: no decay between lines."""

    echoes: int
    spacing_ms: float


NO_TRAIN = EchoTrain(echoes=1, spacing_ms=0.0)


def sample(fine: Tensor, shape: Sequence[int]) -> Tensor:
    """K-space of the acquired matrix, from an object on a finer grid whose every n-th pixel is a voxel's.

    What lies outside the matrix is not sampled: edges ring (Gibbs) and points spread as with a scanner.
    """
    spectrum = torch.fft.fftshift(torch.fft.fft2(fine))
    low = [n // 2 - m // 2 for n, m in zip(fine.shape, shape, strict=True)]
    cut = spectrum[low[0] : low[0] + shape[0], low[1] : low[1] + shape[1]]
    lines: Tensor = cut * (shape[0] * shape[1] / fine.numel())
    return lines


def image(lines: Tensor) -> Tensor:
    """The complex image of k-space lines."""
    found: Tensor = torch.fft.ifft2(torch.fft.ifftshift(lines))
    return found


def line_factors(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    train: EchoTrain,
    rate_per_s: float,
    artefact: Artefact | None,
) -> Tensor:
    """Factors of k-space, (2, row, column): for even slices and for the odd ones, which are taken later.

    ``rate_per_s``: decay of the transverse magnetisation; one rate stands for all tissues. In an echo train
    neighbouring lines belong to neighbouring shots, so that motion returns in the band of every echo.
    """
    axis = int(rng.integers(2))
    view = [1, 1]
    view[axis] = shape[axis]
    frequency = _frequency(shape[axis])
    band = torch.floor((frequency + 0.5) * train.echoes)
    late_ms = (band - train.echoes // 2) * train.spacing_ms
    factors = torch.exp(-late_ms / 1000 * rate_per_s).reshape(view).expand(tuple(shape)) + 0j
    if artefact is Artefact.GHOSTING:
        every, strength = int(rng.integers(2, 4)), float(rng.uniform(0.03, 0.12))
        turned = np.exp(1j * rng.uniform(0, 2 * np.pi))
        modulated = 1 + strength * complex(turned) * (torch.arange(shape[axis]) % every == 0)
        factors = factors * modulated.reshape(view)
    if artefact is Artefact.MOTION:
        shot = (frequency + 0.5) * train.echoes - band
        first, share = float(rng.uniform(0, 0.7)), float(rng.uniform(0.05, 0.3))
        moved = (shot > first) & (shot < first + share) & (frequency.abs() > _STILL)
        shifted = _shifted(rng, shape, spacing_mm, (0.5, 3.0))
        factors = torch.where(moved.reshape(view), factors * shifted, factors)
    odd = factors
    if artefact is Artefact.SLICE_MOTION:
        odd = factors * _shifted(rng, shape, spacing_mm, (0.2, 0.8))
    return torch.stack([factors, odd]).to(torch.complex64)


def combine(rng: np.random.Generator, slice_: Tensor, received: Tensor, noise: float, bias: float) -> Tensor:
    """Root sum of squares of noisy coils, (row, column), float32.

    ``received``: root sum of squares of the sensitivities, which are so smooth that they are applied to the
    sampled image. ``bias``: the share (exponent) of it that normalisation leaves. With equal noise in every
    coil the sum follows a non-central chi law of two degrees a coil, which is drawn as a whole: one normal
    deviate along the signal and the squares of all others.
    """
    along = torch.from_numpy(rng.standard_normal(slice_.shape, dtype=np.float32))
    across = torch.from_numpy(rng.standard_gamma(COILS - 0.5, slice_.shape, dtype=np.float32)) * 2
    power = (slice_.abs() * received + along * noise).square() + across * noise**2
    combined: Tensor = power.sqrt() / received ** (1 - bias)
    return combined


def _frequency(n: int) -> Tensor:
    """Cycles a pixel of centred k-space."""
    return (torch.arange(n, dtype=torch.float32) - n // 2) / n


def _shifted(
    rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], mm: tuple[float, float]
) -> Tensor:
    """The factor of a shift in plane by a drawn distance and direction."""
    direction = rng.uniform(0, 2 * np.pi)
    distance = rng.uniform(*mm)
    rows, columns = (
        _frequency(n) * float(distance * part / size)
        for n, size, part in zip(shape, spacing_mm, (np.cos(direction), np.sin(direction)), strict=True)
    )
    return torch.exp(-2j * torch.pi * (rows[:, None] + columns[None]))
