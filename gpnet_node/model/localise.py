"""Find the centre of each pallidum in a whole head or a slab, or say that it is not there.

The network is GP-net without gates on a 2.5 mm grid in patient axes. Its four channels are, for left and
right, a heat map and a vote for "not inside"; one softmax over all voxels and the mean vote makes both one
probability.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnet_node.errors import NoPallidumError
from gpnet_node.model.network import GPNet
from gpnet_node.model.patient_grid import lps_grid
from gpnet_node.model.synthesise import normalise

LOCALISER_SHAPE = (80, 80, 80)  # (z, y, x): 200 mm
LOCALISER_SPACING_MM = 2.5
_HEAT_SD_VOXELS = 1.2
_BACKGROUND_AHEAD = 8.0  # logarithm of how many more voxels are background
_PALLIDUM_VOXELS = 100.0  # of one pallidum
_DICE_SMOOTH_VOXELS = 10.0
_PRESENT = 0.15  # probability gathered around a place (of 2 in all), below which nothing is there
_SIDEWAYS = (
    0.7  # of the distance, how much must lie along the patient's x axis: heads tilted by up to 45 degrees
)
_MOST_PEAKS = 6
_RADIUS = 4  # voxels: 10 mm
_APART_MM = (22.0, 60.0)  # between the two centres; both pallida together span 51-61 mm


def heat_target(centres: NDArray[np.float64]) -> Tensor:
    """Centres in voxels (2, 3), NaN where outside -> target (2, z * y * x + 1), last entry "not inside"."""
    voxels = int(np.prod(LOCALISER_SHAPE))
    target = torch.zeros(2, voxels + 1)
    axes = [torch.arange(n, dtype=torch.float32) for n in LOCALISER_SHAPE]
    for side, centre in enumerate(centres):
        if np.isnan(centre).any():
            target[side, -1] = 1
            continue
        parts = [
            torch.exp(-0.5 * ((axis - float(c)) / _HEAT_SD_VOXELS) ** 2)
            for axis, c in zip(axes, centre, strict=True)
        ]
        heat = torch.einsum("z,y,x->zyx", *parts).flatten()
        target[side, :voxels] = heat / heat.sum()
    return target


def side_logits(output: Tensor) -> Tensor:
    """Network output (batch, 4, z, y, x) -> logits (batch, 2, z * y * x + 1).

    The one vote weighs as much as all voxels together, so that an untrained network is undecided.
    """
    flat = output.float().flatten(2)
    vote = flat[:, 2:].mean(2, keepdim=True) + float(np.log(flat.shape[2]))
    return torch.cat([flat[:, :2], vote], dim=2)


def pallidum_logits(output: Tensor) -> Tensor:
    """Network output (B, 3, z, y, x) -> logits of background, left and right pallidum.

    Background starts ahead by the pallidum's rarity, so that an untrained network already expects few of it.
    """
    ahead = torch.tensor([_BACKGROUND_AHEAD, 0.0, 0.0], device=output.device)
    return output.float() + ahead[:, None, None, None]


def localiser_loss(scales: list[Tensor], target: Tensor) -> Tensor:
    """Cross-entropy of the three classes, and 1 - Dice of either pallidum, whichever side.

    ``target``: (B, 2, z, y, x), share of each voxel that is left and right pallidum. Which of two is left is
    asked by the cross-entropy alone: the anatomy is nearly symmetric, and finding comes before naming.
    """
    log = pallidum_logits(scales[0]).log_softmax(1)
    truth = torch.cat([1 - target.sum(1, keepdim=True), target], dim=1)
    entropy = -(truth * log).sum((1, 2, 3, 4)) / _PALLIDUM_VOXELS
    found, there = 1 - log[:, 0].exp(), target.sum(1)  # (B, z, y, x)
    axes = (1, 2, 3)
    both = 2 * (found * there).sum(axes) + _DICE_SMOOTH_VOXELS
    dice = both / ((found.square() + there.square()).sum(axes) + _DICE_SMOOTH_VOXELS)
    return (entropy + 1 - dice).mean()


@dataclass(frozen=True, kw_only=True)
class _Peak:
    """A place where a pallidum may be. ``weight``: probability gathered around it, both channels together."""

    weight: float
    centre_mm: NDArray[np.float64]  # LPS


@torch.inference_mode()
def find_centres(image: sitk.Image, network: GPNet, device: torch.device) -> dict[str, NDArray[np.float64]]:
    """Centre of each side's pallidum, LPS mm.

    The anatomy is nearly symmetric, so the channels may take one side for the other. Both heat maps together
    say where a pallidum is; which one is left is decided in patient space (LPS: x grows to the left).

    Raises NoPallidumError when there are not two of them, side by side, inside the image.
    """
    coarse = _coarse(image)
    best: tuple[float, dict[str, NDArray[np.float64]]] = (0.0, {})
    for middle in _window_centres(image):
        grid = lps_grid(middle, LOCALISER_SPACING_MM, LOCALISER_SHAPE)
        window = sitk.GetArrayFromImage(sitk.Resample(coarse, grid, sitk.Transform(), sitk.sitkLinear, 0.0))
        if not window.any():
            continue
        output = network(normalise(torch.from_numpy(window))[None, None].to(device))
        heat = side_logits(output)[0].softmax(1)[:, :-1].sum(0).reshape(LOCALISER_SHAPE).cpu().numpy()
        for one, other in itertools.combinations(_peaks(heat, grid), 2):
            score = min(one.weight, other.weight)
            if score > best[0] and _fit(one.centre_mm, other.centre_mm):
                left, right = sorted((one.centre_mm, other.centre_mm), key=lambda c: -c[0])
                best = score, {"left": left, "right": right}
    if best[0] < _PRESENT:
        raise NoPallidumError("the globus pallidus was not found on both sides of the volume")
    return best[1]


def _fit(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two places can be the pallida of one head: the right distance, mostly side by side."""
    apart = np.abs(one - other)
    return bool(
        _APART_MM[0] <= np.linalg.norm(apart) <= _APART_MM[1]
        and apart[0] >= _SIDEWAYS * np.linalg.norm(apart)
    )


def _peaks(heat: NDArray[np.float32], grid: sitk.Image) -> list[_Peak]:
    """Strongest places first, each at least 10 mm from a stronger one."""
    left: NDArray[np.float32] = sitk.GetArrayFromImage(
        sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(heat), 1.0)
    )
    peaks = []
    for _ in range(_MOST_PEAKS):
        top = [int(t) for t in np.unravel_index(int(left.argmax()), left.shape)]
        start = [max(0, t - _RADIUS) for t in top]
        near = tuple(slice(a, t + _RADIUS + 1) for a, t in zip(start, top, strict=True))
        part = heat[near].astype(float)
        weight = float(part.sum())
        if weight <= 0:
            break
        sums = [part.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        index = [a + float(np.arange(len(m)) @ m) / weight for a, m in zip(start, sums, strict=True)]
        centre = np.array(grid.TransformContinuousIndexToPhysicalPoint(index[::-1]))
        peaks.append(_Peak(weight=weight, centre_mm=centre))
        left[near] = 0
    return peaks


def _coarse(image: sitk.Image) -> sitk.Image:
    """Averaged down towards the localiser's grid, so that resampling does not alias."""
    factors = [max(1, int(LOCALISER_SPACING_MM / spacing)) for spacing in image.GetSpacing()]
    return sitk.BinShrink(image, factors)


def _window_centres(image: sitk.Image) -> list[tuple[float, ...]]:
    """Middles of windows, LPS mm, that together cover the image; one when it is no larger than the grid."""
    corners = np.array(
        [
            image.TransformContinuousIndexToPhysicalPoint([float(v) for v in corner])
            for corner in itertools.product(*((0, n - 1) for n in image.GetSize()))
        ]
    )
    low, high = corners.min(0), corners.max(0)
    window = np.array(LOCALISER_SHAPE[::-1]) * LOCALISER_SPACING_MM
    counts = [
        1 + int(np.ceil(max(0.0, e - 1.2 * w) / (0.5 * w))) for e, w in zip(high - low, window, strict=True)
    ]
    middles = [
        [(a + b) / 2] if n == 1 else list(np.linspace(a + w / 2, b - w / 2, n))
        for a, b, w, n in zip(low, high, window, counts, strict=True)
    ]
    return [tuple(float(v) for v in point) for point in itertools.product(*middles)]
