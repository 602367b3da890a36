"""The endless rows of samples that the networks are trained on. Sample i follows from (seed, i) alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import (
    RandAdjustContrast,
    RandGaussianSharpen,
    RandGibbsNoise,
    RandKSpaceSpikeNoise,
)
from monai.transforms.spatial.dictionary import RandAffined
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from gpnet_node.errors import InputError
from gpnet_node.model.card import ModelCard
from gpnet_node.model.drawing import atlas
from gpnet_node.model.drawing.scene import DrawSettings
from gpnet_node.model.drawing.slab import draw_slab
from gpnet_node.model.drawing.synthesise import draw_box
from gpnet_node.model.intensity import normalise
from gpnet_node.model.training.bids import SideBox, folds, read_cohort
from gpnet_node.model.training.loss import UNKNOWN
from gpnet_node.model.training.train_settings import CohortSettings, TrainSettings

Sample = tuple[Tensor, Tensor]  # image (C, z, y, x), target
_TRAINING, _LOCALISER, _VALIDATION, _COHORT = 0, 1, 2, 3  # each its own row of random numbers
COHORT_MARGIN = 8  # voxels around the box of a cohort's image, for it to be turned and moved


class BoxSamples(Dataset[Sample]):
    """Boxes of one side: image (1, z, y, x), target int64 (2, z, y, x): classes, lesion.

    ``varied``: intensities pass through MONAI's random transforms; what is validated on does not.
    """

    def __init__(
        self,
        sides: Sequence[atlas.Anatomy],
        shape: tuple[int, int, int],
        settings: DrawSettings,
        seed: int,
        *,
        varied: bool,
    ) -> None:
        self.sides, self.shape, self.settings = sides, shape, settings
        self.seed, self.varied = seed, varied

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index`` of the endless row."""
        rng = np.random.default_rng([self.seed, _TRAINING if self.varied else _VALIDATION, index])
        anatomy = self.sides[int(rng.integers(len(self.sides)))]
        drawn = draw_box(anatomy, rng, self.shape, self.settings)
        image = vary(drawn.image, int(rng.integers(2**31))) if self.varied else drawn.image
        return image[None], torch.stack([drawn.labels.long(), drawn.lesion.long()])


class LocaliserSamples(Dataset[Sample]):
    """Heads and slabs: image (1, z, y, x), target (2, z, y, x): share that is left and right pallidum."""

    def __init__(self, cache: Path, people: tuple[str, ...], seed: int) -> None:
        self.heads = [atlas.load_head(cache, person) for person in people]
        self.seed = seed

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index`` of the endless row."""
        rng = np.random.default_rng([self.seed, _LOCALISER, index])
        slab = draw_slab(*self.heads[int(rng.integers(len(self.heads)))], rng)
        return slab.image[None], slab.pallida


class CohortSamples(Dataset[Sample]):
    """Boxes of a group's own images, turned and varied, among drawn ones; images (C, z, y, x).

    ``boxes``: :data:`COHORT_MARGIN` voxels wider than ``shape`` on each side. A second channel is now and
    then left out, so that it can be missing; drawn images have none.
    """

    def __init__(
        self,
        boxes: Sequence[SideBox],
        drawn: Dataset[Sample] | None,
        shape: tuple[int, int, int],
        settings: CohortSettings,
        seed: int,
    ) -> None:
        self.boxes, self.drawn, self.shape, self.settings, self.seed = boxes, drawn, shape, settings, seed

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index`` of the endless row."""
        rng = np.random.default_rng([self.seed, _COHORT, index])
        if self.drawn is not None and rng.random() < self.settings.drawn_share:
            image, target = self.drawn[index]
            return functional.pad(image, (0,) * 7 + (len(self.boxes[0].image) - 1,)), target
        image, target = self._moved(self.boxes[int(rng.integers(len(self.boxes)))], rng)
        image[0] = vary(image[0], int(rng.integers(2**31)))
        if rng.random() < self.settings.drop_out:
            image[1:] = 0
        return image, target

    def _moved(self, box: SideBox, rng: np.random.Generator) -> Sample:
        """Turned, stretched and moved by MONAI, and cut to its shape."""
        extents = [np.deg2rad(self.settings.rotation_degrees)] * 3
        move = RandAffined(
            keys=("image", "classes"),
            prob=0.9,
            rotate_range=extents,
            scale_range=[self.settings.stretch] * 3,
            translate_range=[self.settings.shift_voxels] * 3,
            spatial_size=self.shape,
            mode=("bilinear", "nearest"),
            padding_mode="border",
        ).set_random_state(seed=int(rng.integers(2**31)))
        moved = move(
            {"image": torch.from_numpy(box.image), "classes": torch.from_numpy(box.target[:1]).float()}
        )
        classes = torch.as_tensor(np.asarray(moved["classes"])).long()
        image = torch.as_tensor(np.asarray(moved["image"]))
        return normalised(image), torch.cat([classes, torch.full_like(classes, UNKNOWN)])


def held_out_sample(box: SideBox) -> Sample:
    """A cohort's box as it is, without its margin."""
    inner = (slice(None), *(slice(COHORT_MARGIN, -COHORT_MARGIN),) * 3)
    return normalised(torch.from_numpy(box.image[inner].copy())), torch.from_numpy(box.target[inner].copy())


def normalised(channels: Tensor) -> Tensor:
    """Each channel of (C, z, y, x) on its own; one that is not there stays zero."""
    return torch.stack([normalise(c) if bool(c.any()) else torch.zeros_like(c) for c in channels])


def vary(image: Tensor, seed: int) -> Tensor:
    """What scanners and reconstructions do to intensities, by MONAI; (z, y, x) in and out, normalised.

    Nothing is blotted out: a hole in the pallidum is a lesion, and the drawing says where those are.
    """
    transforms = Compose(
        [
            RandAdjustContrast(prob=0.2, gamma=(0.7, 1.5)),
            RandGaussianSharpen(prob=0.1, alpha=(2.0, 8.0)),
            RandGibbsNoise(prob=0.1, alpha=(0.3, 0.6)),
            RandKSpaceSpikeNoise(prob=0.03, intensity_range=(9.5, 11.0)),
        ]
    ).set_random_state(seed=seed)
    return normalise(torch.as_tensor(np.asarray(transforms(image[None]))[0]))


def drawn_boxes(cache: Path, settings: TrainSettings, card: ModelCard) -> tuple[BoxSamples, list[Sample]]:
    """Boxes to train on, and a few of the validation people."""
    groups = [
        [side for person in people for side in atlas.load(cache, person)]
        for people in (settings.train_people, settings.validate_people)
    ]
    rows = [
        BoxSamples(sides, card.box_voxels, settings.draw, settings.seed, varied=varied)
        for sides, varied in zip(groups, (True, False), strict=True)
    ]
    return rows[0], [rows[1][i] for i in range(settings.segmenter.validation_samples)]


def drawn_slabs(cache: Path, settings: TrainSettings) -> tuple[LocaliserSamples, list[Sample]]:
    """Heads and slabs to train on, and a few of the validation people."""
    row = LocaliserSamples(cache, settings.train_people, settings.seed)
    held_out = LocaliserSamples(cache, settings.validate_people, settings.seed)
    return row, [held_out[i] for i in range(settings.localiser.validation_samples)]


def cohort_boxes(
    folder: Path, cache: Path, settings: TrainSettings, card: ModelCard
) -> tuple[CohortSamples, list[Sample]]:
    """Boxes of an own cohort to train on, among drawn ones, and those of the subjects held out."""
    own, share = settings.cohort, settings.cohort.drawn_share
    boxes = read_cohort(
        folder,
        spacing_mm=card.spacing_mm,
        shape=[n + 2 * COHORT_MARGIN for n in card.box_voxels],
        second_channel=own.second_channel,
    )
    trained, held_out = folds(boxes, own.folds, own.fold)
    if not trained or not held_out:
        raise InputError(
            f"{folder}: too few subjects for {own.folds} folds: {len({b.subject for b in boxes})}"
        )
    drawn = drawn_boxes(cache, settings, card)[0] if share > 0 else None
    samples = CohortSamples(trained, drawn, card.box_voxels, own, settings.seed)
    return samples, [held_out_sample(box) for box in held_out]
