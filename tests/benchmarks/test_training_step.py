"""What the stem of the compact network saves: one training step with it and without it, in turns."""

import time

import pytest
import torch

from gpnet_node.model.network import GPNet, GPNetConfig
from gpnet_node.model.training.loss import LossSettings, segmentation_loss
from tests.benchmarks.conftest import CORES, Scale
from tests.benchmarks.figures import Figures, compared, take_turns

pytestmark = pytest.mark.speed
BOX = (48, 64, 48)
WITH = GPNetConfig(out_channels=4)
WITHOUT = GPNetConfig(  # the same scales, the finest of them at the full resolution
    out_channels=4, stem=1, filters=(16, 32, 64, 128), gated_levels=(1, 2), supervised_levels=(0, 1, 2)
)


def test_seconds_of_a_training_step(scale: Scale, figures: Figures) -> None:
    torch.set_num_threads(CORES)
    networks = {"with a stem": GPNet(WITH), "without": GPNet(WITHOUT)}
    for network in networks.values():
        _step(network)  # the first one warms up

    seconds = take_turns(
        {name: lambda network=network: _step(network) for name, network in networks.items()},  # type: ignore[misc]
        repeats=scale.repeats,
    )

    figures.add(
        compared(
            "training step, one box of 48 x 64 x 48 voxels, network with a stem",
            "s",
            seconds["with a stem"],
            "the same without a stem",
            seconds["without"],
            better="less",
            aim="quicker",
        )
    )


def _step(network: GPNet) -> float:
    image, target = torch.randn(1, 1, *BOX), torch.zeros(1, 2, *BOX, dtype=torch.long)
    target[0, 0, 16:32, 20:44, 16:24], target[0, 0, 16:32, 20:44, 24:32] = 2, 1
    began = time.perf_counter()
    terms = segmentation_loss(network.scales(image), target, 0.0, LossSettings())
    network.zero_grad()
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - began
