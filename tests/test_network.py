import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tomlkit
import torch
from torch import Tensor, nn

from gpnet_node.model.network import DeformableConv, GPNet, GPNetConfig
from gpnet_node.model.segment import GPNetSegmenter

SMALL = GPNetConfig(stem=1, filters=(4, 6, 8, 10), gated_levels=(1, 2), supervised_levels=(0, 1, 2))
MODELS = sorted(
    weights.parent
    for weights in (Path(__file__).resolve().parents[1] / "model_weights").glob("*/weights.safetensors")
)


@pytest.fixture(scope="module")
def published() -> GPNet:
    """The network of the paper after one backward pass, which takes seconds."""
    torch.manual_seed(1)
    network = GPNet(GPNetConfig.paper())
    _backward(network, torch.randn(1, 1, 32, 32, 32))
    return network


def test_logits_have_the_size_of_the_image_and_one_channel_a_class() -> None:
    network = GPNet(replace(SMALL, in_channels=2, out_channels=4))

    logits = network(torch.zeros(2, 2, 16, 24, 32))

    assert logits.shape == (2, 4, 16, 24, 32)


def test_every_supervised_level_gives_a_head_at_full_size_after_the_joined_output() -> None:
    scales = GPNet(SMALL).scales(torch.zeros(1, 1, 16, 16, 16))

    assert [tuple(scale.shape) for scale in scales] == [(1, 3, 16, 16, 16)] * 4


@pytest.mark.parametrize(
    "config", [SMALL, replace(SMALL, gated_levels=(), supervised_levels=(0,))], ids=["segmenter", "localiser"]
)
def test_every_parameter_that_is_trained_gets_a_gradient(config: GPNetConfig) -> None:
    network = GPNet(config)

    _backward(network, torch.randn(1, 1, 16, 16, 16))

    assert _without_gradient(network) == []


def test_behind_a_stem_every_voxel_of_a_block_has_logits_of_its_own() -> None:
    torch.manual_seed(1)
    network = GPNet(replace(SMALL, filters=(4, 6), stem=2, gated_levels=(), supervised_levels=(0,))).eval()
    network.load_state_dict(
        network.state_dict()
        | {
            "heads.0.weight": torch.zeros(24, 4, 1, 1, 1),
            "heads.0.bias": torch.arange(24.0),  # three classes of eight voxels each
            "join.weight": torch.eye(3)[..., None, None, None],
            "join.bias": torch.zeros(3),
        }
    )
    with torch.inference_mode():
        logits = network(torch.randn(1, 1, 8, 8, 8))

    assert logits[0, 1, :2, :2, :2].flatten().tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
    assert torch.equal(logits[0, 1, 2:4, 4:6, :2], logits[0, 1, :2, :2, :2])


def test_a_stem_loses_no_voxel_of_the_image() -> None:
    torch.manual_seed(1)
    network = GPNet(replace(SMALL, filters=(4, 6), stem=2, gated_levels=(0,), supervised_levels=(0,))).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    before = network(image)

    for place in ((0, 0, 0), (7, 8, 9), (15, 15, 15)):
        changed = image.clone()
        changed[0, 0][place] += 5

        assert not torch.allclose(network(changed), before)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, gate_blocks=2, gate_signal="coarser")])
def test_a_gate_changes_what_passes_the_skip_connection(config: GPNetConfig) -> None:
    torch.manual_seed(1)
    image = torch.randn(1, 1, 16, 16, 16)
    network = GPNet(config).eval()
    before = network(image)

    with torch.no_grad():
        for name, values in network.named_parameters():
            if name.startswith("gates.1.") and name.endswith("psi.bias"):
                values.fill_(-20.0)  # the gate closes

    assert not torch.allclose(before, network(image))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": (4, 8), "gated_levels": (1,)}, "gated and supervised levels"),
        ({"filters": (4,), "gated_levels": (), "supervised_levels": ()}, "two levels"),
        ({"supervised_levels": ()}, "must be supervised"),
        ({"stem": 0}, "stem must be 1 or more"),
        ({"encoder_kernels": (3, 3)}, "encoder_kernels must hold 1 or 3 values, not 2"),
        ({"decoder_kernels": (3, 3, 3, 3)}, "decoder_kernels must hold 1 or 2 values, not 4"),
        ({"decoder_kernels": (4,)}, "odd"),
        ({"deformable_encoder": (4,)}, "deformable_encoder must lie in"),
        ({"deformable_decoder": (3,)}, "deformable_decoder must lie in"),
        ({"deformable_encoder": (1,), "encoder_dilations": (2,)}, "cannot be dilated"),
        ({"norm": "layer"}, "norm must be one of"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"gate_blocks": 3}, "gate_blocks"),
        ({"gate_reduction": 0}, "gate_reduction"),
        ({"gate_signal": "finer"}, "gate_signal must be one of"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPNetConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [SMALL, GPNetConfig.paper()], ids=["compact", "paper"])
def test_settings_come_back_from_a_card_as_they_were(config: GPNetConfig) -> None:
    values = tomllib.loads(tomlkit.dumps(asdict(config)))

    listed = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    assert GPNetConfig(**listed) == config  # type: ignore[arg-type]


def test_the_compact_network_has_the_size_that_its_settings_state() -> None:
    stated = "1,467,794 parameters"
    assert GPNetConfig.__doc__ is not None

    assert stated in GPNetConfig.__doc__
    assert f"{_parameters(GPNet(GPNetConfig())):,} parameters" == stated


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_the_weights_beside_a_card_fit_the_networks_that_it_describes(folder: Path) -> None:
    assert GPNetSegmenter(folder).card.name == folder.name


def test_the_published_network_has_the_published_size(published: GPNet) -> None:
    assert _parameters(published) == pytest.approx(12.4e6, rel=0.02)


def test_the_published_network_has_the_published_convolutions(published: GPNet) -> None:
    def shapes(blocks: nn.Module) -> list[list[str]]:
        return [[_shape(layer) for layer in block if _shape(layer)] for block in blocks.children()]  # type: ignore[attr-defined]

    assert shapes(published.encoder) == [
        ["11^3 dilation 3", "11^3 dilation 3"],
        ["9^3 dilation 2", "9^3 dilation 2"],
        ["deformable 5^3", "5^3"],
        ["deformable 3^3", "3^3"],
        ["deformable 3^3", "3^3"],
    ]
    assert shapes(published.decoder) == [
        ["7^3", "7^3"],
        ["5^3", "5^3"],
        ["deformable 3^3", "3^3"],
        ["deformable 3^3", "3^3"],
    ]


def test_every_parameter_of_the_published_network_gets_a_gradient(published: GPNet) -> None:
    assert _without_gradient(published) == []


def test_offsets_of_the_published_network_start_at_zero() -> None:
    narrow = GPNet(replace(GPNetConfig.paper(), filters=(2, 2, 2, 2, 2)))

    offsets = [m.offsets for m in narrow.modules() if isinstance(m, DeformableConv)]

    assert len(offsets) == 5
    assert not any(values.any() for conv in offsets for values in conv.parameters())


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_deformable_convolution_without_offsets_is_a_convolution(kernel: int) -> None:
    torch.manual_seed(1)
    image = torch.randn(2, 3, 6, 9, 7)
    deformable = DeformableConv(3, 4, kernel)
    ordinary = nn.Conv3d(3, 4, kernel, padding=kernel // 2, bias=False)
    ordinary.load_state_dict(deformable.conv.state_dict())

    torch.testing.assert_close(deformable(image), ordinary(image), atol=1e-4, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["z", "y", "x"])
def test_a_constant_offset_of_one_voxel_is_the_convolution_of_the_shifted_image(axis: int) -> None:
    torch.manual_seed(1)
    image = torch.randn(1, 2, 8, 9, 10)
    deformable = DeformableConv(2, 4, 3)
    straight = deformable(image)

    _offset(deformable).view(27, 3)[:, axis] = 1.0

    torch.testing.assert_close(
        deformable(image)[..., 2:-2, 2:-2, 2:-2],
        torch.roll(straight, -1, dims=2 + axis)[..., 2:-2, 2:-2, 2:-2],
        atol=1e-4,
        rtol=0,
    )


def test_each_tap_has_its_own_offset_and_samples_between_voxels() -> None:
    torch.manual_seed(1)
    image = torch.randn(1, 1, 8, 8, 8)
    deformable = DeformableConv(1, 1, 3)
    with torch.no_grad():
        deformable.conv.weight.zero_()
        deformable.conv.weight[0, 0, 1, 0, 2] = 1.0  # looks at y - 1, x + 1
    _offset(deformable).view(3, 3, 3, 3)[1, 0, 2] = torch.tensor([0.5, 1.0, -1.0])

    found = deformable(image)[0, 0]

    expected = (image[0, 0, :-1] + image[0, 0, 1:]) / 2  # half way to the next slice, y and x undone
    torch.testing.assert_close(found[:-1], expected, atol=1e-4, rtol=0)


def test_offsets_learn_from_the_start() -> None:
    torch.manual_seed(1)
    deformable = DeformableConv(2, 2, 3)

    deformable(torch.randn(1, 2, 6, 6, 6)).square().mean().backward()

    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in deformable.parameters())


def test_a_deformable_convolution_runs_in_mixed_precision() -> None:
    torch.manual_seed(1)
    image = torch.randn(1, 4, 6, 6, 6)
    deformable = DeformableConv(4, 4, 3)

    with torch.autocast("cpu", torch.bfloat16):
        coarse = deformable(image)

    torch.testing.assert_close(coarse.float(), deformable(image), atol=0.05, rtol=0.05)


def _offset(deformable: DeformableConv) -> Tensor:
    """The offsets that every voxel has alike, in voxels, (tap * 3)."""
    assert deformable.offsets.bias is not None
    return deformable.offsets.bias.data


def _backward(network: GPNet, image: Tensor) -> None:
    losses = [scale.square().mean() for scale in network.scales(image)]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]


def _without_gradient(network: nn.Module) -> list[str]:
    """Names of trained parameters that no finite gradient reaches; below 1e-6 lies rounding only."""
    return [
        name
        for name, values in network.named_parameters()
        if values.requires_grad
        and (values.grad is None or not values.grad.isfinite().all() or values.grad.abs().max() < 1e-6)
    ]


def _parameters(network: nn.Module) -> int:
    return sum(values.numel() for values in network.parameters())


def _shape(layer: nn.Module) -> str:
    if isinstance(layer, DeformableConv):
        return f"deformable {layer.conv.kernel_size[0]}^3"
    if isinstance(layer, nn.Conv3d):
        dilation = layer.dilation[0]
        return f"{layer.kernel_size[0]}^3" + (f" dilation {dilation}" if dilation > 1 else "")
    return ""
