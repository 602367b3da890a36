"""Find the centre of each pallidum in a whole head or a slab, or say that it is not there.

The network is GP-net without gates on a 2.5 mm grid in patient axes. Its four channels are, for left and right, a
heat map and a vote for "not inside"; one softmax over all voxels and the mean vote makes both one probability.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

LOCALISER_SHAPE = (80, 80, 80)  # (z, y, x): 200 mm
LOCALISER_SPACING_MM = 2.5
_HEAT_SD_VOXELS = 1.2


def heat_target(centres: NDArray[np.float64]) -> Tensor:
    """Centres in voxels (2, 3), NaN where outside -> target (2, z * y * x + 1); the last entry is "not inside"."""
    voxels = int(np.prod(LOCALISER_SHAPE))
    target = torch.zeros(2, voxels + 1)
    axes = [torch.arange(n, dtype=torch.float32) for n in LOCALISER_SHAPE]
    for side, centre in enumerate(centres):
        if np.isnan(centre).any():
            target[side, -1] = 1
            continue
        parts = [
            torch.exp(-0.5 * ((axis - float(c)) / _HEAT_SD_VOXELS) ** 2) for axis, c in zip(axes, centre, strict=True)
        ]
        heat = torch.einsum("z,y,x->zyx", *parts).flatten()
        target[side, :voxels] = heat / heat.sum()
    return target


def side_logits(output: Tensor) -> Tensor:
    """Network output (batch, 4, z, y, x) -> logits (batch, 2, z * y * x + 1)."""
    flat = output.float().flatten(2)
    return torch.cat([flat[:, :2], flat[:, 2:].mean(2, keepdim=True)], dim=2)


def localiser_loss(scales: list[Tensor], target: Tensor) -> Tensor:
    """Cross-entropy between the target and the softmax over voxels and "not inside"."""
    return -(target * functional.log_softmax(side_logits(scales[0]), dim=2)).sum(2).mean()
