import time

import pytest
import torch
from torch import Tensor

from gpnet_node.model.training.loss import (
    UNDIVIDED,
    UNKNOWN,
    BoundaryRamp,
    LossSettings,
    boundary_loss,
    class_entropy,
    class_overlap,
    lesion_dice_loss,
    lesion_entropy,
    segmentation_loss,
    tversky_loss,
)

SETTINGS = LossSettings()


def two_cubes() -> Tensor:
    """Labels (1, 16, 16, 16): GPe beside GPi."""
    labels = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    labels[:, 2:8, 4:12, 4:12], labels[:, 8:14, 4:12, 4:12] = 1, 2
    return labels


def sure_of(labels: Tensor, sureness: float = 20.0) -> Tensor:
    """Logits (B, 4, z, y, x) that claim these labels and no lesion."""
    logits = sureness * torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    logits[:, UNDIVIDED] = -sureness
    return logits


def target(labels: Tensor, lesion: Tensor | None = None) -> Tensor:
    return torch.stack([labels, torch.zeros_like(labels) if lesion is None else lesion], dim=1)


def total(logits: Tensor, truth: Tensor, progress: float = 1.0) -> float:
    return float(torch.stack(list(segmentation_loss([logits], truth, progress, SETTINGS).values())).sum())


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_a_lot() -> None:
    labels = two_cubes()

    assert total(sure_of(labels), target(labels)) == pytest.approx(0, abs=1e-3)
    assert total(sure_of(torch.zeros_like(labels)), target(labels)) > 1


def test_a_missed_gpi_costs_more_than_one_claimed_too_much() -> None:
    labels = two_cubes()
    less, more = labels.clone(), labels.clone()
    less[:, 12:14][less[:, 12:14] == 2] = 0
    more[:, 14:16, 4:12, 4:12] = 2

    missed, claimed = (tversky_loss(sure_of(x)[:, :3].softmax(1), labels, SETTINGS) for x in (less, more))

    assert float(missed) > float(claimed)


def test_tversky_with_equal_weights_is_the_dice_loss_of_each_class() -> None:
    labels, halves = two_cubes(), (0.5, 0.5, 0.5)
    claimed = torch.roll(labels, 1, 2)
    equal = LossSettings(tversky_alpha=halves, tversky_beta=halves)

    loss = float(tversky_loss(sure_of(claimed, 50.0)[:, :3].softmax(1), labels, equal))

    both = [
        2 * float(((claimed == c) & (labels == c)).sum()) / float((claimed == c).sum() + (labels == c).sum())
        for c in range(3)
    ]
    assert loss == pytest.approx(1 - sum(both) / 3, abs=1e-4)


@pytest.mark.parametrize("split", ["as_it_is", "swapped", "all_gpe"])
def test_an_undivided_pallidum_is_right_however_it_is_split(split: str) -> None:
    labels = two_cubes()
    claimed = {"as_it_is": labels, "swapped": (3 - labels) * (labels > 0), "all_gpe": (labels > 0).long()}
    undivided = (labels > 0).long() * UNDIVIDED

    assert total(sure_of(claimed[split]), target(undivided)) == pytest.approx(0, abs=1e-3)


def test_an_undivided_pallidum_that_is_missed_costs() -> None:
    undivided = (two_cubes() > 0).long() * UNDIVIDED

    assert total(sure_of(torch.zeros_like(undivided)), target(undivided)) > 1


def test_divided_images_of_a_batch_are_scored_as_without_the_undivided_one() -> None:
    labels = two_cubes()
    undivided = (labels > 0).long() * UNDIVIDED
    logits = torch.randn(2, 4, 16, 16, 16, generator=torch.Generator().manual_seed(1))

    together = total(logits, target(torch.cat([labels, undivided])))

    one, other = total(logits[:1], target(labels)), total(logits[1:], target(undivided))
    assert together == pytest.approx((one + other) / 2, rel=1e-5)


def test_both_segments_claimed_at_once_overlap_and_each_alone_do_not() -> None:
    labels = two_cubes()
    torn = torch.zeros(1, 3, 16, 16, 16)
    torn[:, 1:] = 0.5

    assert float(class_overlap(torn)) == pytest.approx(0.5, abs=1e-4)
    assert float(class_overlap(sure_of(labels)[:, :3].softmax(1))) == pytest.approx(0, abs=1e-4)


def test_the_boundary_term_grows_with_the_distance_of_what_is_wrong() -> None:
    labels = two_cubes()

    def with_island(row: int) -> float:
        claimed = labels.clone()
        claimed[:, 4:8, row : row + 2, 4:8] = 1
        return float(boundary_loss(sure_of(claimed)[:, :3].softmax(1), labels))

    assert with_island(12) < with_island(14)
    assert float(boundary_loss(sure_of(labels)[:, :3].softmax(1), labels)) == pytest.approx(0, abs=1e-3)


def test_the_boundary_term_asks_for_the_outline_only() -> None:
    labels = two_cubes()
    swapped = (3 - labels) * (labels > 0)

    assert float(boundary_loss(sure_of(swapped)[:, :3].softmax(1), labels)) == pytest.approx(0, abs=1e-3)


def test_the_boundary_weight_is_zero_then_rises_in_a_straight_line() -> None:
    ramp = BoundaryRamp(from_share=0.4, first=0.01, last=0.1)

    assert [ramp.weight(p) for p in (0.0, 0.39, 0.4, 0.7, 1.0)] == pytest.approx([0, 0, 0.01, 0.055, 0.1])
    assert "boundary" not in segmentation_loss(
        [sure_of(two_cubes())], target(two_cubes()), 0.39, LossSettings(boundary=ramp)
    )


def test_what_is_not_known_about_lesions_is_not_scored() -> None:
    logits = torch.zeros(1, 4, 16, 16, 16)
    lesion = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    half_known = lesion.clone()
    half_known[:, 8:] = UNKNOWN
    logits[:, UNDIVIDED, :8], logits[:, UNDIVIDED, 8:] = -20, 20

    assert float(lesion_entropy(logits, half_known, 4.0)) == pytest.approx(0, abs=1e-6)
    assert float(lesion_entropy(logits, lesion, 4.0)) > 5
    assert float(lesion_entropy(logits, torch.full_like(lesion, UNKNOWN), 4.0)) == 0


def test_a_faint_suspicion_everywhere_does_not_pay_where_there_is_a_lesion() -> None:
    faint = torch.full((2, 4, 16, 16, 16), -4.0)
    lesion = torch.zeros(2, 16, 16, 16, dtype=torch.long)
    lesion[0, 4:6, 4:6, 4:6] = 1
    found = faint.clone()
    found[:, UNDIVIDED] = 40 * lesion - 20

    assert float(lesion_dice_loss(faint, lesion)) > 0.45  # of one image in two
    assert float(lesion_dice_loss(found, lesion)) == pytest.approx(0, abs=1e-3)
    assert float(lesion_dice_loss(faint[1:], lesion[1:])) == 0
    assert float(lesion_dice_loss(faint, torch.full_like(lesion, UNKNOWN))) == 0


def test_the_lesion_channel_takes_no_part_in_the_classes() -> None:
    labels = two_cubes()
    logits = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(2))
    other = logits.clone()
    other[:, UNDIVIDED] += 5

    assert torch.equal(class_entropy(logits, labels), class_entropy(other, labels))


def test_each_coarser_head_weighs_half() -> None:
    labels = two_cubes()
    logits = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(3))

    terms = segmentation_loss([logits] * 4, target(labels), 0.0, SETTINGS)

    heads = [float(terms[f"head_{level}"]) for level in range(3)]
    assert heads[1:] == pytest.approx([heads[0] / 2, heads[0] / 4])


def test_every_term_has_a_gradient_that_is_a_number() -> None:
    labels = two_cubes()
    logits = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(4)).requires_grad_()

    terms = segmentation_loss([logits, logits], target(labels), 1.0, SETTINGS)

    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, logits, retain_graph=True)
        assert bool(torch.isfinite(gradient).all()), name
        assert float(gradient.abs().max()) > 0, name


def test_the_boundary_term_costs_a_small_part_of_a_step() -> None:
    labels = torch.zeros(1, 56, 72, 56, dtype=torch.long)
    labels[:, 16:40, 20:50, 18:38] = 1
    probability = sure_of(torch.roll(labels, 2, 2))[:, :3].softmax(1)

    began = time.process_time()
    boundary_loss(probability, labels)

    assert (
        time.process_time() - began < 0.5
    )  # forward and backward of the compact network: 1 to 2 s on one core
