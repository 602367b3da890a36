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
from torch.nn import functional

from gpnet_node.errors import ConfigurationError, NoPallidumError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.checkpoint import load_weights, part
from gpnet_node.model.intensity import normalise
from gpnet_node.model.localise import find_centres
from gpnet_node.model.network import GPNet, GPNetConfig
from gpnet_node.model.patient_grid import as_image, covered, inside, lps_grid, on_grid, sample
from gpnet_node.model.quality import assess, outside_share
from gpnet_node.model.segmentation import Quality, Segmentation, SideProbability

__all__ = ["GPNetSegmenter", "Quality", "Segmentation", "SideProbability", "classes_on"]

RECENTRE_MM = 1.5  # a box further off its pallidum than this is moved and segmented again
RECENTRE_TIMES = 3
MOST_OUTSIDE = 0.5  # a pallidum of which more lies beyond the volume is not there
# Of the moved boxes (x, y, z), in voxels: no multiple of the network's pooling, half a voxel off its grid.
_SHIFTS = ((2.5, -1.5, 1.5), (-1.5, 2.5, -2.5), (-2.5, -2.5, 2.5))


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

    def segment(self, volume: Volume) -> Segmentation:
        """Label map with the card's structure numbers, probabilities and quality.

        Raises NoPallidumError when a side is not inside, or for the most part beyond the volume, and
        MemoryError.
        """
        try:
            return self._segmented(volume)
        except torch.OutOfMemoryError as exc:
            raise MemoryError("too little of the device's memory is free") from exc

    def _segmented(self, volume: Volume) -> Segmentation:
        image = as_image(volume)
        centres_mm = find_centres(image, self._localiser, self._device)
        labels = np.zeros(volume.voxels.shape, np.uint8)
        sides = {}
        for name, centre_mm in centres_mm.items():
            side = self._side_probability(image, centre_mm, name)
            _refuse_absent(side, volume)
            window = covered(image, _box_of(side))
            if window is None:
                raise NoPallidumError(f"the {name} pallidum lies outside the volume")
            classes = classes_on(side, image[tuple(slice(a, b) for a, b in window)])
            if not classes.any():
                raise NoPallidumError(f"no pallidum was segmented on the {name} side")
            part_of = labels[tuple(slice(a, b) for a, b in reversed(window))]
            for structure in self.card.structures:
                if structure.side == name:
                    part_of[classes == structure.channel] = structure.number
            sides[name] = side
        label_map = LabelMap(labels=labels, geometry=volume.geometry)
        return Segmentation(labels=label_map, sides=sides, quality=assess(label_map, sides, self.card))

    def _side_probability(
        self, image: sitk.Image, centre_mm: NDArray[np.float64], side: str
    ) -> SideProbability:
        """Probabilities in a box centred on the pallidum found."""
        for _ in range(RECENTRE_TIMES + 1):
            located_mm = centre_mm
            grid = lps_grid(centre_mm, self.card.spacing_mm, self.card.box_voxels)
            channels = self._predict(image, grid, side)
            moved_mm = _centre_of_mass(channels[1:3].sum(0), grid)
            if moved_mm is None or np.linalg.norm(moved_mm - centre_mm) <= RECENTRE_MM:
                break
            centre_mm = moved_mm
        x, y, z = (float(v) for v in located_mm)
        channels, agreement = self._averaged(image, grid, channels, located_mm, side)
        return SideProbability(
            side=side,
            probability=channels[:3],
            lesion=channels[3],
            spacing_mm=self.card.spacing_mm,
            origin_mm=grid.GetOrigin(),
            located_mm=(x, y, z),
            agreement=agreement,
        )

    def _averaged(
        self,
        image: sitk.Image,
        grid: sitk.Image,
        first: NDArray[np.float32],
        centre_mm: NDArray[np.float64],
        side: str,
    ) -> tuple[NDArray[np.float32], tuple[float, float] | None]:
        """Mean of the first box and the card's number of moved ones, and how well they agree with it."""
        every = [first]
        for shift in _SHIFTS[: self.card.test_time_shifts]:
            there = centre_mm + np.array(shift) * self.card.spacing_mm
            moved = lps_grid(there, self.card.spacing_mm, self.card.box_voxels)
            channels = on_grid(self._predict(image, moved, side), self.card.spacing_mm, moved.GetOrigin())
            back = np.moveaxis(_resampled(channels, grid), -1, 0)
            every.append(np.where(back[:3].sum(0) > 0.5, back, first))  # beyond the moved box: the first
        if len(every) == 1:
            return first, None
        mean: NDArray[np.float32] = np.stack(every).mean(axis=0)
        together, apart = mean[:3].argmax(0), [channels[:3].argmax(0) for channels in every]
        gpe, gpi = (float(np.mean([_dice(one == c, together == c) for one in apart])) for c in (1, 2))
        return mean, (gpe, gpi)

    @torch.inference_mode()
    def _predict(self, image: sitk.Image, grid: sitk.Image, side: str) -> NDArray[np.float32]:
        """Background, GPe, GPi and lesion, (4, z, y, x), of one side's box as it lies in the patient."""
        box = sample(image, grid)
        if side == "right":
            box = box[:, :, ::-1]
        shown = normalise(torch.from_numpy(np.ascontiguousarray(box)))[None, None].to(self._device)
        further = self._network.config.in_channels - 1  # trained to do without: a series is one contrast
        logits = self._network(functional.pad(shown, (0,) * 7 + (further,)))[0].float()
        lesion = logits[3:4].sigmoid() if len(logits) > 3 else torch.zeros_like(logits[:1])
        channels: NDArray[np.float32] = torch.cat([logits[:3].softmax(0), lesion]).cpu().numpy()
        return np.ascontiguousarray(channels[..., ::-1]) if side == "right" else channels


def classes_on(side: SideProbability, grid: sitk.Image) -> NDArray[np.uint8]:
    """Background 0, GPe 1, GPi 2 of one side on any grid, (z, y, x): argmax after resampling.

    One 26-connected component of GPe and GPi together, the largest by voxel count (Solomon 2021); its holes
    are filled by the more probable of the two.
    """
    probability = _resampled(on_grid(side.probability, side.spacing_mm, side.origin_mm), grid)
    probability[..., 0] += 1 - probability.sum(-1)  # beyond the box all is background
    classes: NDArray[np.uint8] = probability.argmax(-1).astype(np.uint8)
    components, count = cc3d.connected_components(classes > 0, connectivity=26, return_N=True)
    if count == 0:
        return classes
    largest = 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
    whole = sitk.GetImageFromArray((components == largest).astype(np.uint8))
    filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(whole, fullyConnected=False)) > 0
    kept: NDArray[np.uint8] = np.where(filled, 1 + probability[..., 1:].argmax(-1), 0).astype(np.uint8)
    return kept


def _resampled(channels: sitk.Image, grid: sitk.Image) -> NDArray[np.float32]:
    """Vector image on another grid, (z, y, x, c); 0 beyond it."""
    values: NDArray[np.float32] = sitk.GetArrayFromImage(
        sitk.Resample(channels, grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    )
    return values


def _refuse_absent(side: SideProbability, volume: Volume) -> None:
    labelled = side.probability.argmax(0) > 0
    within = inside(volume.geometry, side.spacing_mm, side.origin_mm, labelled.shape)
    share = outside_share(labelled, within)
    if share > MOST_OUTSIDE:
        raise NoPallidumError(f"{100 * share:.0f} % of the {side.side} pallidum lies beyond the volume")


def _network(settings: dict[str, object]) -> GPNet:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    return GPNet(GPNetConfig(**values))  # type: ignore[arg-type]


def _box_of(side: SideProbability) -> sitk.Image:
    """Grid of a side's box, empty."""
    grid = sitk.Image([int(n) for n in side.lesion.shape[::-1]], sitk.sitkUInt8)
    grid.SetSpacing([side.spacing_mm] * 3)
    grid.SetOrigin(side.origin_mm)
    return grid


def _centre_of_mass(weight: NDArray[np.float32], grid: sitk.Image) -> NDArray[np.float64] | None:
    """LPS mm; None where there is next to nothing."""
    total = float(weight.sum())
    if total < 1:
        return None
    index = [
        float(weight.sum(axis=tuple(a for a in range(3) if a != axis)) @ np.arange(n)) / total
        for axis, n in enumerate(weight.shape)
    ]
    return np.array(grid.TransformContinuousIndexToPhysicalPoint(index[::-1]))


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
