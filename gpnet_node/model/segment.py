"""Volume in, label map on the same grid out: localise, segment each side, bring the labels back.

The right side is mirrored, so one network of left pallida serves both; sides are told apart in patient space
(PS3.3 C.7.6.2.1.1: x grows to the patient's left), never by the order of rows or columns.
"""

from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from gpnet_node.errors import ConfigurationError, NoPallidumError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.checkpoint import load_weights, part
from gpnet_node.model.localise import find_centres
from gpnet_node.model.network import GPNet, GPNetConfig
from gpnet_node.model.patient_grid import as_image, lps_grid
from gpnet_node.model.synthesise import normalise

RECENTRE_MM = 3.0  # a box further off its pallidum than this is moved and segmented again
RECENTRE_TIMES = 2


class GPNetSegmenter:
    """GP-net with one set of weights. ``device``: ``cpu``, ``cuda:0``; ``auto`` takes a GPU if there is one.

    Raises ConfigurationError for a card that does not fit, WeightsMismatchError for another weights file.
    """

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        self.card: ModelCard = read_card(folder)
        tensors = load_weights(folder, self.card)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigurationError(f"device {device!r} is asked for, but PyTorch finds no GPU here")
        self._device = torch.device(device)
        try:
            self._network = _network(self.card.network)
            self._network.load_state_dict(part(tensors, "segmenter"))
            self._localiser = _network(self.card.localiser)
            self._localiser.load_state_dict(part(tensors, "localiser"))
        except (TypeError, ValueError, RuntimeError) as exc:
            raise ConfigurationError(f"{folder}: the card's network does not fit the weights: {exc}") from exc
        self._network.to(self._device).eval()
        self._localiser.to(self._device).eval()

    def segment(self, volume: Volume) -> LabelMap:
        """Label map with the card's structure numbers. Raises NoPallidumError when a side is not inside."""
        image = as_image(volume)
        centres_mm = find_centres(image, self._localiser, self._device)
        labels = np.zeros(volume.voxels.shape, np.uint8)
        for side, centre_mm in centres_mm.items():
            probability = self._side_probability(image, centre_mm, mirrored=side == "right")
            window, classes = _native_classes(probability, image)
            classes = _one_component(classes)
            if not classes.any():
                raise NoPallidumError(f"no pallidum was segmented on the {side} side")
            for structure in self.card.structures:
                if structure.side == side:
                    labels[window][classes == structure.channel] = structure.number
        return LabelMap(labels=labels, geometry=volume.geometry)

    def _side_probability(
        self, image: sitk.Image, centre_mm: NDArray[np.float64], *, mirrored: bool
    ) -> sitk.Image:
        """Class probabilities (vector image, LPS axes) in a box centred on the pallidum found."""
        for _ in range(RECENTRE_TIMES + 1):
            grid = lps_grid(centre_mm, self.card.spacing_mm, self.card.box_voxels)
            box = sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear))
            probability = self._predict(box[:, :, ::-1] if mirrored else box)  # (channel, z, y, x)
            if mirrored:
                probability = probability[..., ::-1]
            found = sitk.GetImageFromArray(
                np.ascontiguousarray(np.moveaxis(probability, 0, -1)), isVector=True
            )
            found.CopyInformation(grid)
            weight = probability[1:].sum(0)
            if weight.sum() < 1:
                break
            index = [
                float((weight.sum(axis=rest) @ np.arange(n)) / weight.sum())
                for n, rest in _axes(weight.shape)
            ]
            moved_mm = np.array(grid.TransformContinuousIndexToPhysicalPoint(index[::-1]))
            if np.linalg.norm(moved_mm - centre_mm) <= RECENTRE_MM:
                break
            centre_mm = moved_mm
        return found

    @torch.inference_mode()
    def _predict(self, box: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax of one left-sided box, (channel, z, y, x)."""
        image = normalise(torch.from_numpy(np.ascontiguousarray(box)))[None, None].to(self._device)
        output: NDArray[np.float32] = self._network(image)[0].softmax(0).cpu().numpy()
        return output


def _network(settings: dict[str, object]) -> GPNet:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    return GPNet(GPNetConfig(**values))  # type: ignore[arg-type]


def _axes(shape: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """Each axis's length with the axes to sum over."""
    return [(n, tuple(a for a in range(len(shape)) if a != axis)) for axis, n in enumerate(shape)]


def _native_classes(
    probability: sitk.Image, image: sitk.Image
) -> tuple[tuple[slice, slice, slice], NDArray[np.uint8]]:
    """The part of the volume that the box covers, and its classes: argmax after resampling."""
    size = probability.GetSize()
    corners = [
        image.TransformPhysicalPointToContinuousIndex(
            probability.TransformContinuousIndexToPhysicalPoint((x, y, z))
        )
        for x in (0.0, size[0] - 1.0)
        for y in (0.0, size[1] - 1.0)
        for z in (0.0, size[2] - 1.0)
    ]
    low = np.floor(np.min(corners, axis=0)).clip(0).astype(int)
    high = np.minimum(np.ceil(np.max(corners, axis=0)).astype(int) + 1, image.GetSize())
    if (high <= low).any():
        raise NoPallidumError("the pallidum lies outside the volume")
    region = image[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
    native = sitk.GetArrayFromImage(
        sitk.Resample(probability, region, sitk.Transform(), sitk.sitkLinear, 0.0)
    )
    native[..., 0] += 1 - native.sum(-1)  # beyond the box all is background
    window = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
    return (window[0], window[1], window[2]), native.argmax(-1).astype(np.uint8)


def _one_component(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep the largest 26-connected component of GPe and GPi together, by voxel count (Solomon 2021)."""
    components, count = cc3d.connected_components(classes > 0, connectivity=26, return_N=True)
    if count == 0:
        return classes
    largest = 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
    kept: NDArray[np.uint8] = np.where(components == largest, classes, 0).astype(np.uint8)
    return kept
