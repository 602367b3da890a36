"""Find the centre of each pallidum in a whole head or a slab, or say that it is not there.

The network is GP-net without gates on a 4 mm grid in patient axes; its one channel says how much of a voxel
is pallidum, whichever side's. Which one is left is decided in patient space: the anatomy is nearly symmetric,
LPS coordinates are not (x grows to the left).
"""

import itertools
from dataclasses import dataclass

import cc3d
import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpnet_node.errors import NoPallidumError
from gpnet_node.model.intensity import normalise
from gpnet_node.model.network import GPNet
from gpnet_node.model.patient_grid import lps_grid

LOCALISER_SHAPE = (48, 48, 48)  # (z, y, x): 192 mm
LOCALISER_SPACING_MM = 4.0
_BACKGROUND_AHEAD = 3.0  # so that an untrained network claims one voxel in twenty
_PALLIDUM_WEIGHT = 20.0  # of a voxel of pallidum, or else nothing is claimed anywhere for a thousand steps
_PALLIDUM_VOXELS = 50.0  # of both pallida, about
_DICE_SMOOTH_VOXELS = 5.0
_LIKELY = 0.2  # share of a voxel from which on it counts
_LOOKS_MM = (0.0, LOCALISER_SPACING_MM / 2)  # each window is looked at again half a voxel further on
_LEAST_MM3 = 400.0  # of what is found in one place; a whole pallidum has 1300 mm3 or more
_SIDEWAYS = 0.7  # of the distance, how much must lie along the patient's x axis: a head tilted by 45 degrees
_MOST_PLACES = 6
_APART_MM = (22.0, 60.0)  # between the two centres; both pallida together span 51-61 mm


def pallidum_logits(output: Tensor) -> Tensor:
    """Network output (B, 1, z, y, x) -> logits of "pallidum here", (B, z, y, x)."""
    return output[:, 0].float() - _BACKGROUND_AHEAD


def localiser_loss(scales: list[Tensor], target: Tensor) -> Tensor:
    """How much is where (weighed cross-entropy, 1 - Dice), and where it is rather than elsewhere.

    ``target``: (B, 2, z, y, x), share of each voxel that is left and right pallidum. The last term, the
    divergence of one softmax over all voxels, makes places compete: without it a network learns for a
    thousand steps where pallida usually are before it looks at the image.
    """
    logits, there = pallidum_logits(scales[0]), target.sum(1)
    axes = (1, 2, 3)
    entropy = functional.binary_cross_entropy_with_logits(
        logits, there, reduction="none", pos_weight=logits.new_tensor(_PALLIDUM_WEIGHT)
    ).sum(axes) / (_PALLIDUM_WEIGHT * _PALLIDUM_VOXELS)
    found = logits.sigmoid()
    both = 2 * (found * there).sum(axes) + _DICE_SMOOTH_VOXELS
    dice = both / ((found.square() + there.square()).sum(axes) + _DICE_SMOOTH_VOXELS)
    share = there.flatten(1) / there.sum(axes).clamp(min=1)[:, None]
    place = (torch.xlogy(share, share) - share * logits.flatten(1).log_softmax(1)).sum(1)
    return (entropy + 1 - dice + place).mean()


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a pallidum may be: how much of one was found there, and its middle in LPS mm."""

    volume_mm3: float
    centre_mm: NDArray[np.float64]


@torch.inference_mode()
def find_centres(image: sitk.Image, network: GPNet, device: torch.device) -> dict[str, NDArray[np.float64]]:
    """Centre of each side's pallidum, LPS mm.

    Raises NoPallidumError when there are not two of them, side by side, inside the image.
    """
    coarse = _coarse(image)
    best: tuple[float, dict[str, NDArray[np.float64]]] = (0.0, {})
    most = 0
    for middle, look_mm in itertools.product(_window_centres(image), _LOOKS_MM):
        grid = lps_grid(np.array(middle) + look_mm, LOCALISER_SPACING_MM, LOCALISER_SHAPE)
        window = sitk.GetArrayFromImage(sitk.Resample(coarse, grid, sitk.Transform(), sitk.sitkLinear, 0.0))
        if not window.any():
            continue
        places = _places(_shares(normalise(torch.from_numpy(window)).to(device), network), grid)
        most = max(most, len(places))
        for one, other in itertools.combinations(places, 2):
            smaller = min(one.volume_mm3, other.volume_mm3)
            if smaller > best[0] and _fit(one.centre_mm, other.centre_mm):
                left, right = sorted((one.centre_mm, other.centre_mm), key=lambda c: -c[0])
                best = smaller, {"left": left, "right": right}
    if not best[1]:
        found = {0: "none was found", 1: "only one was found"}.get(most, "what was found is no pair of them")
        raise NoPallidumError(f"a globus pallidus on either side is needed inside the volume: {found}")
    return best[1]


def _shares(window: Tensor, network: GPNet) -> NDArray[np.float32]:
    """How much of each voxel is pallidum: the mean of the window and its mirror image, (z, y, x)."""
    both = torch.stack([window, window.flip(2)])[:, None]
    share, mirrored = pallidum_logits(network(both)).sigmoid()
    return np.asarray(((share + mirrored.flip(2)) / 2).cpu().numpy(), np.float32)


def _fit(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two places can be the pallida of one head: the right distance, mostly side by side."""
    apart = np.abs(one - other)
    return bool(
        _APART_MM[0] <= np.linalg.norm(apart) <= _APART_MM[1]
        and apart[0] >= _SIDEWAYS * np.linalg.norm(apart)
    )


def _places(share: NDArray[np.float32], grid: sitk.Image) -> list[_Place]:
    """Where the network sees a pallidum's worth of likely voxels hang together; the largest first."""
    components, count = cc3d.connected_components(share > _LIKELY, connectivity=26, return_N=True)
    places = []
    for number in range(1, count + 1):
        where = np.argwhere(components == number)
        weight = share[tuple(where.T)].astype(float)
        volume_mm3 = float(weight.sum()) * LOCALISER_SPACING_MM**3
        if volume_mm3 >= _LEAST_MM3:
            index = weight @ where / weight.sum()
            centre = np.array(grid.TransformContinuousIndexToPhysicalPoint(index[::-1].tolist()))
            places.append(_Place(volume_mm3=volume_mm3, centre_mm=centre))
    return sorted(places, key=lambda place: -place.volume_mm3)[:_MOST_PLACES]


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
