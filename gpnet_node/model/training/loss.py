"""What the segmenter is asked to be right about: the loss of Solomon et al. 2021, each term with its weight.

Every term is the mean over the images of a batch of one number per image, so a batch that is divided among
several devices has the same loss. Logits are (B, 4, z, y, x): background, GPe, GPi, "lesion or lead here".
Targets are int64 (B, 2, z, y, x): classes (:data:`UNDIVIDED`: pallidum, not known which part), and lesion
0 / 1 / :data:`UNKNOWN`.
"""

import torch
from monai.losses.dice import DiceLoss
from monai.losses.hausdorff_loss import HausdorffDTLoss
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional

from gpnet_node.model.drawing.synthesise import GPE, GPI

UNDIVIDED = 3  # beside synthesise.GPE and GPI
UNKNOWN = -1
Terms = dict[str, Tensor]


class BoundaryRamp(BaseModel):
    """Weight of the boundary term: zero for a share of the steps, then straight from first to last."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    from_share: float = 0.4
    first: float = 0.01
    last: float = 0.1

    def weight(self, progress: float) -> float:
        """``progress``: share of all steps that is done, 0-1."""
        if progress < self.from_share:
            return 0.0
        return self.first + (self.last - self.first) * (progress - self.from_share) / (1 - self.from_share)


class LossSettings(BaseModel):
    """Weights of the terms.

    ``tversky_alpha`` (false positives) and ``tversky_beta`` (false negatives) are for background, GPe and
    GPi. ``lesion``: cross-entropy, where a lesion's voxel counts ``lesion_positive``-fold; ``lesion_dice``:
    1 - Dice where there is a lesion. ``head``: cross-entropy of the finest head beside the joined output,
    halved for each coarser one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    cross_entropy: float = 1.0
    tversky: float = 1.0
    tversky_alpha: tuple[float, float, float] = (0.7, 0.4, 0.4)
    tversky_beta: tuple[float, float, float] = (0.3, 0.6, 0.6)
    overlap: float = 0.01
    boundary: BoundaryRamp = BoundaryRamp()
    lesion: float = 0.5
    lesion_positive: float = 4.0
    lesion_dice: float = 0.0
    head: float = 0.5


def segmentation_loss(scales: list[Tensor], target: Tensor, progress: float, settings: LossSettings) -> Terms:
    """The weighted terms, by name; their sum is the loss.

    ``scales``: the joined logits, then each head's, finest first (deep supervision, Solomon 2021).
    """
    joined, labels, lesion = scales[0].float(), target[:, 0], target[:, 1]
    probability = joined[:, :UNDIVIDED].softmax(1)
    terms = {
        "cross_entropy": settings.cross_entropy * class_entropy(joined, labels),
        "tversky": settings.tversky * tversky_loss(probability, labels, settings),
        "overlap": settings.overlap * class_overlap(probability),
        "lesion": settings.lesion * lesion_entropy(joined, lesion, settings.lesion_positive),
    }
    if settings.lesion_dice:
        terms["lesion_dice"] = settings.lesion_dice * lesion_dice_loss(joined, lesion)
    if weight := settings.boundary.weight(progress):
        terms["boundary"] = weight * boundary_loss(probability, labels)
    for level, head in enumerate(scales[1:]):
        logits, weight = head.float(), settings.head * 0.5**level
        terms[f"head_{level}"] = weight * (
            settings.cross_entropy * class_entropy(logits, labels)
            + settings.lesion * lesion_entropy(logits, lesion, settings.lesion_positive)
        )
    return terms


def class_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over background, GPe, GPi; an undivided voxel wants GPe or GPi, whichever."""
    log = logits[:, :UNDIVIDED].log_softmax(1)
    log = torch.cat(
        [log, log[:, GPE:].logsumexp(1, keepdim=True)], dim=1
    )  # (B, 4, z, y, x): UNDIVIDED is last
    return functional.nll_loss(log, labels)


def tversky_loss(probability: Tensor, labels: Tensor, settings: LossSettings) -> Tensor:
    """1 - mean Tversky index over classes (Salehi 2017), weighed as in Solomon 2021.

    MONAI's TverskyLoss takes one alpha and beta for all classes. An image with an undivided pallidum is
    scored by two classes, background and globus pallidus.
    """
    alpha, beta = settings.tversky_alpha, settings.tversky_beta
    losses = []
    for one, truth in zip(probability, labels, strict=True):
        if bool((truth == UNDIVIDED).any()):
            merged = torch.stack([one[0], one[GPE:].sum(0)])
            losses.append(_tversky(merged, (truth > 0).long(), alpha[:2], beta[:2]))
        else:
            losses.append(_tversky(one, truth, alpha, beta))
    return torch.stack(losses).mean()


def _tversky(
    probability: Tensor, labels: Tensor, alpha: tuple[float, ...], beta: tuple[float, ...]
) -> Tensor:
    """Of one image: probability (C, z, y, x), labels (z, y, x)."""
    probability = probability.flatten(1)
    truth = functional.one_hot(labels.flatten(), len(probability)).T.to(probability.dtype)
    hit = (probability * truth).sum(1)
    false_positive = probability.sum(1) - hit
    false_negative = truth.sum(1) - hit
    weighed = probability.new_tensor(alpha) * false_positive + probability.new_tensor(beta) * false_negative
    return (
        1 - ((hit + 1e-5) / (hit + weighed + 1e-5)).mean()
    )  # a class that is nowhere, and not claimed, is right


def class_overlap(probability: Tensor) -> Tensor:
    """Where GPe and GPi are both claimed: product of their probabilities, as a soft Dice (Solomon 2021)."""
    gpe, gpi = probability[:, GPE].flatten(1), probability[:, GPI].flatten(1)
    return (2 * (gpe * gpi).sum(1) / ((gpe + gpi).sum(1) + 1e-5)).mean()


def boundary_loss(probability: Tensor, labels: Tensor) -> Tensor:
    """Hausdorff distance by distance transforms (Karimi 2019) of the whole pallidum; voxels squared.

    On half the grid, where the transforms take a tenth of the time: the term is there for what lies far out,
    what happens within a voxel of the border is the other terms' to judge.
    """
    claimed = functional.avg_pool3d(probability[:, GPE:].sum(1, keepdim=True), 2)
    truth = functional.avg_pool3d((labels[:, None] > 0).to(probability.dtype), 2)
    distance: Tensor = HausdorffDTLoss(include_background=True)(claimed, truth)
    return 4 * distance  # distances doubled, then squared: voxels of the full grid


def lesion_entropy(logits: Tensor, lesion: Tensor, positive: float) -> Tensor:
    """Binary cross-entropy of the last channel where it is known whether there is a lesion or a lead."""
    known = (lesion != UNKNOWN).float().flatten(1)
    truth = (lesion == 1).float().flatten(1)
    costs = functional.binary_cross_entropy_with_logits(
        logits[:, UNDIVIDED].flatten(1), truth, reduction="none", pos_weight=logits.new_tensor(positive)
    )
    return ((costs * known).sum(1) / known.sum(1).clamp(min=1)).mean()


def lesion_dice_loss(logits: Tensor, lesion: Tensor) -> Tensor:
    """1 - Dice of the last channel; images without a lesion, or not known to have one, count as right.

    Lesions fill a thousandth of the boxes: cross-entropy alone is content with a faint suspicion everywhere.
    """
    claimed, truth = logits[:, UNDIVIDED:].float(), (lesion == 1).float()[:, None]
    there = truth.flatten(1).any(1).float()
    costs: Tensor = DiceLoss(sigmoid=True, reduction="none")(claimed, truth)
    return (costs.flatten(1).mean(1) * there).mean()
