"""Find the centre of each pallidum in a whole head or a slab, or say that it is not there.

The network is GP-net without gates on a 2.5 mm grid in patient axes. Its four channels are, for left and
right, a heat map and a vote for "not inside"; one softmax over all voxels and the mean vote makes both one
probability.
"""

import itertools

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpnet_node.errors import NoPallidumError
from gpnet_node.model.network import GPNet
from gpnet_node.model.patient_grid import lps_grid
from gpnet_node.model.synthesise import normalise

LOCALISER_SHAPE = (80, 80, 80)  # (z, y, x): 200 mm
LOCALISER_SPACING_MM = 2.5
SIDES = ("left", "right")
_HEAT_SD_VOXELS = 1.2
_PRESENT = 0.5  # probability that a side is inside, below which it is not segmented
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


def localiser_loss(scales: list[Tensor], target: Tensor) -> Tensor:
    """Cross-entropy between the target and the softmax over voxels and "not inside"."""
    return -(target * functional.log_softmax(side_logits(scales[0]), dim=2)).sum(2).mean()


@torch.inference_mode()
def find_centres(image: sitk.Image, network: GPNet, device: torch.device) -> dict[str, NDArray[np.float64]]:
    """Centre of each side's pallidum, LPS mm.

    Raises NoPallidumError, naming the side, when one is not inside the image or the two contradict.
    """
    best: dict[str, tuple[float, NDArray[np.float64]]] = {}
    coarse = _coarse(image)
    for middle in _window_centres(image):
        grid = lps_grid(middle, LOCALISER_SPACING_MM, LOCALISER_SHAPE)
        window = sitk.GetArrayFromImage(sitk.Resample(coarse, grid, sitk.Transform(), sitk.sitkLinear, 0.0))
        if not window.any():
            continue
        output = network(normalise(torch.from_numpy(window))[None, None].to(device))
        for side, logits in zip(SIDES, side_logits(output)[0].cpu(), strict=True):
            heat = logits.softmax(0)[:-1].reshape(LOCALISER_SHAPE).numpy()
            present = float(heat.sum())
            if side not in best or present > best[side][0]:
                best[side] = present, _peak(heat, grid)
    for side in SIDES:
        if side not in best or best[side][0] < _PRESENT:
            raise NoPallidumError(f"no globus pallidus was found on the {side} side of the volume")
    left, right = best["left"][1], best["right"][1]
    if left[0] <= right[0] or not _APART_MM[0] <= float(np.linalg.norm(left - right)) <= _APART_MM[1]:
        raise NoPallidumError(
            f"the two sides do not fit: left at {left.round(1)} mm, right at {right.round(1)} mm"
        )
    return {"left": left, "right": right}


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


def _peak(heat: NDArray[np.float32], grid: sitk.Image) -> NDArray[np.float64]:
    """Weighted centre of the heat within three voxels of its maximum, LPS mm."""
    top = np.unravel_index(int(heat.argmax()), heat.shape)
    ranges: list[NDArray[np.int64]] = [
        np.arange(max(0, t - 3), min(n, t + 4)) for t, n in zip(top, heat.shape, strict=True)
    ]
    near = heat[np.ix_(*ranges)].astype(float)
    index = [
        float((near.sum(axis=tuple(a for a in range(3) if a != axis)) @ ranges[axis]) / near.sum())
        for axis in range(3)
    ]
    return np.array(grid.TransformContinuousIndexToPhysicalPoint(index[::-1]))
