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
from torch import Tensor
from torch.utils.data import Dataset

from gpnet_node.model import atlas
from gpnet_node.model.scene import DrawSettings
from gpnet_node.model.slab import draw_slab
from gpnet_node.model.synthesise import draw_box, normalise

Sample = tuple[Tensor, Tensor]  # image (C, z, y, x), target
_TRAINING, _LOCALISER, _VALIDATION = 0, 1, 2  # each its own row of random numbers


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
