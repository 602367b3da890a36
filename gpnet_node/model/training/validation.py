"""How good the averaged weights are on a few samples of people who are not trained on."""

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics.meandice import compute_dice
from torch import Tensor

from gpnet_node.model.drawing.synthesise import GPE, GPI
from gpnet_node.model.localise import localiser_loss
from gpnet_node.model.network import GPNet
from gpnet_node.model.training.loss import UNDIVIDED
from gpnet_node.model.training.samples import Sample


@torch.inference_mode()
def mean_dice(network: GPNet, samples: Sequence[Sample], device: torch.device) -> dict[str, float]:
    """Mean Dice over boxes that have the structure; an undivided pallidum counts for the whole only."""
    network.eval()
    found = []
    for image, target in samples:
        logits = network(image[None].to(device))[0].float().cpu()
        claimed = torch.stack([logits[:UNDIVIDED].argmax(0), (logits[UNDIVIDED] > 0).long()])
        found.append(compute_dice(_masks(claimed), _masks(target))[0])
    means = torch.stack(found).nanmean(0).tolist()  # NaN: nothing of it in that box
    names = ("Dice GPe", "Dice GPi", "Dice GP", "Dice lesion")
    return {name: mean for name, mean in zip(names, means, strict=True) if not np.isnan(mean)}


def _masks(target: Tensor) -> Tensor:
    """Classes and lesion (2, z, y, x) -> one mask for each structure (1, 4, z, y, x)."""
    classes, lesion = target
    return torch.stack([classes == GPE, classes == GPI, classes > 0, lesion == 1])[None].float()


@torch.inference_mode()
def mean_loss(network: GPNet, samples: Sequence[Sample], device: torch.device) -> dict[str, float]:
    """Mean loss of the localiser over slabs."""
    network.eval()
    losses = []
    for image, target in samples:
        losses.append(localiser_loss([network(image[None].to(device))], target[None].to(device)))
    return {"validation loss": float(torch.stack(losses).mean())}
