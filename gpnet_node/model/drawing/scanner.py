"""What a scanner makes of a noise-free image: slice profile, matrix, fields, ghosts, motion and noise.

Arrays are (z, y, x); every draw follows from the generator that is given.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gpnet_node.model.drawing.scene import Artefact, Scene


def smooth_field(rng: np.random.Generator, nodes: int, shape: Sequence[int], channels: int = 1) -> Tensor:
    """Smooth noise, about unit variance, (channels, z, y, x)."""
    coarse = torch.from_numpy(rng.standard_normal((1, channels, nodes, nodes, nodes)).astype(np.float32))
    return functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)[0] * 1.6


def resolve(image: Tensor, spacing_mm: float, acquired_mm: Sequence[float]) -> Tensor:
    """Isotropic voxels -> the voxels that are acquired, by their profile; never finer than the image."""
    image = blur(image, [0.4 * size / spacing_mm for size in acquired_mm])
    shape = [max(8, min(n, round(n * spacing_mm / s))) for n, s in zip(image.shape, acquired_mm, strict=True)]
    return functional.interpolate(image[None, None], size=shape, mode="trilinear", align_corners=True)[0, 0]


def expose(
    rng: np.random.Generator, image: Tensor, scene: Scene, *, spacing_mm: Sequence[float], slice_axis: int
) -> Tensor:
    """Fields, artefact and Rician noise on the acquired voxels, whose size is ``spacing_mm`` (z, y, x)."""
    shape = tuple(image.shape)
    image = image * torch.exp(smooth_field(rng, 4, shape)[0] * (scene.bias / 2))
    if scene.drop_out:
        image = image * _drop_out(rng, shape, spacing_mm, scene.drop_out)
    in_plane = [axis for axis in range(3) if axis != slice_axis]
    if scene.artefact is Artefact.SLICE_MOTION:
        image = _slice_motion(rng, image, slice_axis, in_plane[int(rng.integers(2))], spacing_mm)
    elif scene.artefact is not None:
        image = _phase_encode(rng, image, scene.artefact, in_plane[int(rng.integers(2))], spacing_mm)
    noise = float(image[image > 0.1].mean() if bool((image > 0.1).any()) else 1.0) / scene.snr
    real, imaginary = (
        torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) * noise for _ in range(2)
    )
    return torch.sqrt((image + real) ** 2 + imaginary**2)


def _drop_out(
    rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], depth: float
) -> Tensor:
    """Transmit field that fades towards one place, as at 7T: a factor of 1 - depth in its middle."""
    extents = np.array(shape) * np.array(spacing_mm)
    centre = rng.uniform(0.1, 0.9, 3) * extents
    away = torch.zeros(())
    for axis, n in enumerate(shape):
        view = [1, 1, 1]
        view[axis] = n
        run = torch.arange(n, dtype=torch.float32) * float(spacing_mm[axis]) - float(centre[axis])
        away = away + (run / float(rng.uniform(20, 45))).square().reshape(view)
    return 1 - depth * torch.exp(-away / 2)


def _phase_encode(
    rng: np.random.Generator, image: Tensor, artefact: Artefact, axis: int, spacing_mm: Sequence[float]
) -> Tensor:
    """Ghosts (every second or third line modulated) or motion (lines taken after a shift of 0.5-3 mm)."""
    lines = torch.fft.fft(image, dim=axis)
    n = image.shape[axis]
    view = [1, 1, 1]
    view[axis] = n
    frequency = torch.fft.fftfreq(n)
    if artefact is Artefact.GHOSTING:
        every, strength = int(rng.integers(2, 4)), float(rng.uniform(0.03, 0.12))
        factor = 1 + strength * (torch.arange(n) % every == 0).float().reshape(view)
        ghosted: Tensor = torch.fft.ifft(lines * factor, dim=axis).abs()
        return ghosted
    shift = float(rng.uniform(0.5, 3.0) * rng.choice([-1, 1])) / spacing_mm[axis]
    first, share = float(rng.uniform(-0.5, 0.3)), float(rng.uniform(0.05, 0.3))
    moved = ((frequency > first) & (frequency < first + share) & (frequency.abs() > 0.03)).reshape(view)
    ramp = torch.exp(-2j * torch.pi * frequency * shift).reshape(view)
    shifted: Tensor = torch.fft.ifft(torch.where(moved, lines * ramp, lines), dim=axis).abs()
    return shifted


def _slice_motion(
    rng: np.random.Generator, image: Tensor, slice_axis: int, axis: int, spacing_mm: Sequence[float]
) -> Tensor:
    """Odd slices are taken after the head has moved by 0.2-0.8 mm in plane (interleaved acquisition)."""
    shift = float(rng.uniform(0.2, 0.8) * rng.choice([-1, 1])) / spacing_mm[axis]
    view = [1, 1, 1]
    view[axis] = image.shape[axis]
    ramp = torch.exp(-2j * torch.pi * torch.fft.fftfreq(image.shape[axis]) * shift).reshape(view)
    moved = torch.fft.ifft(torch.fft.fft(image, dim=axis) * ramp, dim=axis).abs()
    odd = [1, 1, 1]
    odd[slice_axis] = image.shape[slice_axis]
    return torch.where((torch.arange(image.shape[slice_axis]) % 2 == 1).reshape(odd), moved, image)


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
