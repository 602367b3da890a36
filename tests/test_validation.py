import pytest
import torch
from torch import Tensor

from gpnet_node.model.network import GPNet, GPNetConfig
from gpnet_node.model.training.loss import UNDIVIDED, UNKNOWN
from gpnet_node.model.training.validation import mean_dice

CPU = torch.device("cpu")
SHAPE = (8, 8, 8)


def claiming(*channels: float) -> GPNet:
    """A network that answers with the same logits everywhere."""
    network = GPNet(GPNetConfig(out_channels=4, filters=(2, 4), gated_levels=(), supervised_levels=(0,)))
    torch.nn.init.zeros_(network.join.weight)
    assert network.join.bias is not None
    network.join.bias.data = torch.tensor(channels, dtype=torch.float32)
    return network


def a_sample(classes: Tensor, lesion: int = 0) -> tuple[Tensor, Tensor]:
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    return image, torch.stack([classes, torch.full_like(classes, lesion)])


def test_dice_is_that_of_what_the_network_claims() -> None:
    classes = torch.zeros(SHAPE, dtype=torch.long)
    classes[:4], classes[4:6] = 1, 2

    figures = mean_dice(claiming(0, 5, 0, -5), [a_sample(classes)], CPU)  # all is GPe

    assert figures == pytest.approx({"Dice GPe": 2 * 4 / (8 + 4), "Dice GPi": 0, "Dice GP": 2 * 6 / (8 + 6)})


def test_what_a_box_does_not_have_is_not_averaged() -> None:
    classes = torch.zeros(SHAPE, dtype=torch.long)
    classes[:4] = 1
    undivided = (classes > 0).long() * UNDIVIDED

    figures = mean_dice(
        claiming(0, 5, 0, 5), [a_sample(classes, lesion=1), a_sample(undivided, lesion=UNKNOWN)], CPU
    )

    assert figures == pytest.approx({"Dice GPe": 2 / 3, "Dice GP": 2 / 3, "Dice lesion": 1.0})
