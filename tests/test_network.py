import pytest
import torch

from gpnet_node.model.network import GPNet, GPNetConfig

SMALL = GPNetConfig(filters=(4, 6, 8, 10), gated_levels=(1, 2), supervised_levels=(0, 1, 2))


def test_logits_have_the_size_of_the_image_and_one_channel_a_class() -> None:
    network = GPNet(SMALL)

    logits = network(torch.zeros(2, 1, 16, 24, 32))

    assert logits.shape == (2, 3, 16, 24, 32)


def test_every_supervised_level_gives_a_head_at_full_size_after_the_joined_output() -> None:
    scales = GPNet(SMALL).scales(torch.zeros(1, 1, 16, 16, 16))

    assert [tuple(scale.shape) for scale in scales] == [(1, 3, 16, 16, 16)] * 4


def test_every_parameter_gets_a_gradient() -> None:
    network = GPNet(SMALL)

    torch.stack(
        [scale.square().mean() for scale in network.scales(torch.randn(1, 1, 16, 16, 16))]
    ).sum().backward()  # type: ignore[no-untyped-call]

    without = [
        name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert without == []


def test_a_gate_changes_what_passes_the_skip_connection() -> None:
    torch.manual_seed(1)
    image = torch.randn(1, 1, 16, 16, 16)
    network = GPNet(SMALL).eval()
    before = network(image)

    with torch.no_grad():
        network.gates["1"].psi.bias.fill_(-20.0)  # type: ignore[union-attr, operator]  # the gate closes

    assert not torch.allclose(before, network(image))


def test_a_level_that_does_not_exist_cannot_be_gated() -> None:
    with pytest.raises(ValueError, match="gated and supervised levels"):
        GPNetConfig(filters=(4, 8), gated_levels=(1,), supervised_levels=(0,))
