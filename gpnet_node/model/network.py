"""GP-net: attention-gated 3D U-Net with deep supervision, after Solomon et al. 2021 (doi:10.1002/hbm.25409).

One network, spanned by :class:`GPNetConfig`: its defaults are a compact network for processors without a
GPU, :meth:`GPNetConfig.paper` the published one. The segmenter sees one side's box; the localiser is the
same network without gates on a coarse grid. Arrays are (batch, channel, z, y, x).
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LEAKY_SLOPE = 0.01
NORMALISATIONS = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}
ACTIVATIONS = ("leaky_relu", "relu")
GATE_SIGNALS = ("centre", "coarser")


@dataclass(frozen=True, kw_only=True)
class GPNetConfig:
    """Settings of the network. Level 0 has the input's resolution over ``stem``; the last is the centre.

    The defaults are the compact network: 1,467,794 parameters. Kernels and dilations hold one value for each
    level from level 0 on, or a single one for all. Raises ValueError where settings contradict each other.
    """

    in_channels: int = 1
    out_channels: int = 3  # background, GPe, GPi
    stem: int = 2  # level 0 sees blocks of so many voxels along each axis as channels (Shi 2016)
    filters: tuple[int, ...] = (32, 64, 128)  # channels of each level
    gated_levels: tuple[int, ...] = (0, 1)  # skip connections that pass an attention gate
    supervised_levels: tuple[int, ...] = (0, 1)  # with a head that is joined in the output, finest first
    encoder_kernels: tuple[int, ...] = (3,)  # edge of the cube, voxels of the level
    encoder_dilations: tuple[int, ...] = (1,)
    decoder_kernels: tuple[int, ...] = (3,)
    deformable_encoder: tuple[int, ...] = ()  # levels whose first convolution is deformable
    deformable_decoder: tuple[int, ...] = ()
    norm: str = "instance"  # or "batch"
    activation: str = "leaky_relu"  # or "relu"
    kaiming_normal: bool = False  # He 2015 (arXiv:1502.01852), normal, instead of PyTorch's uniform start
    gate_blocks: int = 1  # grid-attention blocks of a gate: 1 or 2
    gate_reduction: int = 2  # a block compares in so many times fewer channels than the skip's
    gate_signal: str = "centre"  # what opens the gates: centre, or the decoder's level below (coarser)
    gate_signal_norm: bool = False  # normalise the signal that the centre gives

    @classmethod
    def paper(cls) -> "GPNetConfig":
        """Settings of Solomon et al. 2021, 12.4 M parameters; 96 x 192 x 112 voxels of 0.39 mm in the paper.

        Four choices are readings of the description. The parameter count settles two: offsets come from a
        convolution as large as the one that they deform (3^3 ones would make 11.2 M), and of a level's two
        convolutions the first is deformable (the second: 13.5 M). It leaves two more open (12.2-12.4 M),
        which follow the authors' released code (KrakenLeaf/Attention-Gated-Networks): gates compare in as
        many channels as the skip has, and a gate above the lowest is opened by the decoder level below it.

        Two things differ from that code: what a BatchNorm behind it would cancel is left out (biases, and
        scale and shift between the two merges of a paired gate), and offsets start at zero, as in Dai 2017.
        """
        return cls(
            stem=1,
            filters=(16, 32, 64, 128, 256),
            gated_levels=(1, 2, 3),
            supervised_levels=(0, 1, 2, 3),
            encoder_kernels=(11, 9, 5, 3, 3),
            encoder_dilations=(3, 2, 1, 1, 1),
            decoder_kernels=(7, 5, 3, 3),
            deformable_encoder=(2, 3, 4),
            deformable_decoder=(2, 3),
            norm="batch",
            activation="relu",
            kaiming_normal=True,
            gate_blocks=2,
            gate_reduction=1,
            gate_signal="coarser",
            gate_signal_norm=True,
        )

    def __post_init__(self) -> None:
        levels = len(self.filters)
        inner, outer = range(levels), range(levels - 1)
        for name, values, count in (
            ("encoder_kernels", self.encoder_kernels, levels),
            ("encoder_dilations", self.encoder_dilations, levels),
            ("decoder_kernels", self.decoder_kernels, levels - 1),
        ):
            _require(len(values) in (1, count), f"{name} must hold 1 or {count} values, not {len(values)}")
        gated, supervised = set(self.gated_levels), set(self.supervised_levels)
        _require(levels >= 2, "filters must name two levels or more")
        _require(self.stem >= 1, "stem must be 1 or more")
        _require(gated | supervised <= set(outer), f"gated and supervised levels must lie in {list(outer)}")
        _require(len(supervised) > 0, "one level at least must be supervised")
        _require(set(self.deformable_encoder) <= set(inner), f"deformable_encoder must lie in {list(inner)}")
        _require(set(self.deformable_decoder) <= set(outer), f"deformable_decoder must lie in {list(outer)}")
        odd = all(kernel % 2 == 1 for kernel in (*self.encoder_kernels, *self.decoder_kernels))
        _require(odd, "kernels must be odd: an even one has no middle")
        dilations = _each(self.encoder_dilations, levels)
        straight = all(dilations[level] == 1 for level in self.deformable_encoder)
        _require(straight, "a deformable convolution cannot be dilated: its offsets are what spreads it")
        _require(self.norm in NORMALISATIONS, f"norm must be one of {list(NORMALISATIONS)}")
        _require(self.activation in ACTIVATIONS, f"activation must be one of {list(ACTIVATIONS)}")
        _require(self.gate_blocks in (1, 2), "gate_blocks must be 1 or 2")
        _require(self.gate_reduction >= 1, "gate_reduction must be 1 or more")
        _require(self.gate_signal in GATE_SIGNALS, f"gate_signal must be one of {list(GATE_SIGNALS)}")


class DeformableConv(nn.Module):
    """Deformable convolution (Dai 2017, arXiv:1703.06211) in 3D. (B, in, z, y, x) -> (B, out, z, y, x).

    ``offsets`` gives, for each voxel, where each tap of the kernel looks: (B, tap * 3, z, y, x) voxels along
    (z, y, x), away from the tap's regular place. They start at zero, as an ordinary convolution ``conv``.
    Outside the image lie zeros. Taps are sampled one at a time, and again in the backward pass, so that no
    copy of the features is kept for each of them.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.radius = kernel // 2
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, bias=False)
        self.offsets = nn.Conv3d(channels_in, 3 * kernel**3, kernel, padding=self.radius)
        self.straighten()

    def straighten(self) -> None:
        """Set all offsets to zero."""
        nn.init.zeros_(self.offsets.weight)
        if self.offsets.bias is not None:
            nn.init.zeros_(self.offsets.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Sum of the taps, each sampled where its offset points."""
        offsets = self.offsets(features).float().unflatten(1, (-1, 3))  # (B, tap, 3, z, y, x)
        axes = [torch.arange(n, device=features.device, dtype=torch.float32) for n in features.shape[2:]]
        here = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (3, z, y, x)
        weights = self.conv.weight.flatten(2)  # (out, in, tap), x runs fastest
        reach = range(-self.radius, self.radius + 1)
        total = features.new_zeros(())
        for tap, step in enumerate(itertools.product(reach, repeat=3)):
            sample = (features, here, step, offsets[:, tap], weights[:, :, tap])
            found = checkpoint(_tap, *sample, use_reentrant=False, preserve_rng_state=False)
            total = total + found.float()  # 125 terms are too many for bfloat16
        return total


def _tap(
    features: Tensor, here: Tensor, step: tuple[int, int, int], offset: Tensor, weight: Tensor
) -> Tensor:
    """Features at ``here + step + offset`` (B, 3, z, y, x) voxels, weighed (out, in): (B, out, z, y, x)."""
    size = here.new_tensor(features.shape[2:]).view(3, 1, 1, 1)
    place = here + here.new_tensor(step).view(3, 1, 1, 1) + offset
    grid = (2 * place + 1) / size - 1  # -1 and 1 are the outer faces of the image
    grid = grid.movedim(1, -1).flip(-1)  # grid_sample wants (B, z, y, x, 3) with x first
    sampled = functional.grid_sample(features.float(), grid, padding_mode="zeros", align_corners=False)
    return functional.conv3d(sampled, weight[:, :, None, None, None])


class ConvBlock(nn.Sequential):
    """Two convolutions, each normalised and activated. (B, in, z, y, x) -> (B, out, z, y, x)."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        config: GPNetConfig,
        *,
        kernel: int,
        dilation: int = 1,
        deformable: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        for step, inputs in enumerate((channels_in, channels_out)):
            if deformable and step == 0:
                conv: nn.Module = DeformableConv(inputs, channels_out, kernel)
            else:
                reach = dilation * (kernel // 2)
                conv = nn.Conv3d(inputs, channels_out, kernel, padding=reach, dilation=dilation, bias=False)
            layers += [conv, _norm(channels_out, config), _activation(config)]
        super().__init__(*layers)


class AttentionGate(nn.Module):
    """Grid attention (Oktay 2018, arXiv:1804.03999): a coarser signal weighs each place of a skip.

    ``skip`` (B, C, z, y, x) and ``signal`` (B, G, z', y', x') of a coarser level -> (B, C, z, y, x).
    ``last``: what follows is not another block that merges it.
    """

    def __init__(self, skip: int, signal: int, config: GPNetConfig, *, last: bool = True) -> None:
        super().__init__()
        inner = max(1, skip // config.gate_reduction)
        self.theta = nn.Conv3d(skip, inner, 2, stride=2, bias=False)
        self.phi = nn.Conv3d(signal, inner, 1)
        self.psi = nn.Conv3d(inner, 1, 1)
        self.merge = _merge(skip, skip, config, last=last)

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Skip features scaled by an attention map in 0-1."""
        theta = self.theta(skip)
        weight = torch.sigmoid(self.psi(functional.relu(theta + _resized(self.phi(signal), theta))))
        merged: Tensor = self.merge(skip * _resized(weight, skip))
        return merged


class PairedGate(nn.Module):
    """Two grid-attention blocks on one skip, merged by 1x1x1 (Solomon 2021). Shapes of AttentionGate."""

    def __init__(self, skip: int, signal: int, config: GPNetConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AttentionGate(skip, signal, config, last=False) for _ in range(2))
        self.merge = _merge(2 * skip, skip, config)

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Skip features as both blocks see them, merged."""
        merged: Tensor = self.merge(torch.cat([block(skip, signal) for block in self.blocks], dim=1))
        return merged


class GPNet(nn.Module):
    """Image (B, in, z, y, x) -> logits (B, out, z, y, x); z, y, x divisible by stem * 2 ** (levels - 1).

    With a stem, level 0 sees blocks of voxels as channels and its head gives one logit to each voxel of a
    block (sub-pixel convolution; Shi 2016, arXiv:1609.05158): no convolution runs at the full resolution,
    which on a processor takes two thirds of the time.
    """

    def __init__(self, config: GPNetConfig) -> None:
        super().__init__()
        self.config = config
        filters = config.filters
        levels = len(filters)
        kernels, dilations = _each(config.encoder_kernels, levels), _each(config.encoder_dilations, levels)
        block = config.stem**3
        sizes = zip((config.in_channels * block, *filters), filters, kernels, dilations, strict=False)
        self.encoder = nn.ModuleList(
            ConvBlock(i, o, config, kernel=k, dilation=d, deformable=level in config.deformable_encoder)
            for level, (i, o, k, d) in enumerate(sizes)
        )
        self.gating = nn.Conv3d(filters[-1], filters[-1], 1, bias=not config.gate_signal_norm)
        self.gating.requires_grad_(bool(config.gated_levels))  # kept without gates: weights name it
        self.gating_norm = _norm(filters[-1], config) if config.gate_signal_norm else nn.Identity()
        self.gating_activation = _activation(config)
        signals = filters[1:] if config.gate_signal == "coarser" else filters[-1:] * levels
        gate = AttentionGate if config.gate_blocks == 1 else PairedGate
        self.gates = nn.ModuleDict(
            {str(level): gate(filters[level], signals[level], config) for level in config.gated_levels}
        )
        joins = zip(filters, filters[1:], _each(config.decoder_kernels, levels - 1), strict=False)
        self.decoder = nn.ModuleList(
            ConvBlock(o + below, o, config, kernel=k, deformable=level in config.deformable_decoder)
            for level, (o, below, k) in enumerate(joins)
        )
        self.heads = nn.ModuleList(
            nn.Conv3d(filters[level], config.out_channels * (block if level == 0 else 1), 1)
            for level in config.supervised_levels
        )
        self.join = nn.Conv3d(config.out_channels * len(config.supervised_levels), config.out_channels, 1)
        if config.kaiming_normal:
            self.apply(_start_kaiming)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the joined heads."""
        return self.scales(image)[0]

    def scales(self, image: Tensor) -> list[Tensor]:
        """Joined logits, then each head's own logits at full size, finest first (deep supervision)."""
        skips = []
        features = _blocks_as_channels(image, self.config.stem)
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else functional.max_pool3d(features, 2))
            skips.append(features)
        signal = self.gating_activation(self.gating_norm(self.gating(features)))
        decoded: dict[int, Tensor] = {}
        for level in reversed(range(len(self.decoder))):
            skip = skips[level]
            if str(level) in self.gates:
                skip = self.gates[str(level)](skip, signal)
            features = self.decoder[level](torch.cat([skip, _resized(features, skip)], dim=1))
            decoded[level] = features  # (B, filters[level], z, y, x)
            if self.config.gate_signal == "coarser":
                signal = features
        sides = []
        for level, head in zip(self.config.supervised_levels, self.heads, strict=True):
            logits = head(decoded[level])
            if level == 0:
                logits = _channels_as_blocks(logits, self.config.stem)
            sides.append(_resized(logits, image))
        return [self.join(torch.cat(sides, dim=1)), *sides]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _each(values: tuple[int, ...], levels: int) -> tuple[int, ...]:
    return values * levels if len(values) == 1 else values


def _merge(inputs: int, outputs: int, config: GPNetConfig, *, last: bool = True) -> nn.Sequential:
    """1x1x1, norm, activation. Before another merge only normalised: that one scales it and drops a shift."""
    conv = nn.Conv3d(inputs, outputs, 1, bias=False)
    if last:
        return nn.Sequential(conv, _norm(outputs, config), _activation(config))
    return nn.Sequential(conv, NORMALISATIONS[config.norm](outputs, affine=False))


def _norm(channels: int, config: GPNetConfig) -> nn.Module:
    return NORMALISATIONS[config.norm](channels, affine=True)


def _activation(config: GPNetConfig) -> nn.Module:
    if config.activation == "relu":
        return nn.ReLU(inplace=True)
    return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


def _blocks_as_channels(image: Tensor, edge: int) -> Tensor:
    """(B, C, z, y, x) -> (B, C * edge^3, z / edge, y / edge, x / edge)."""
    if edge == 1:
        return image
    batch, channels, *size = image.shape
    z, y, x = (n // edge for n in size)
    blocks = image.reshape(batch, channels, z, edge, y, edge, x, edge)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * edge**3, z, y, x)


def _channels_as_blocks(features: Tensor, edge: int) -> Tensor:
    """The other way round."""
    if edge == 1:
        return features
    batch, channels, z, y, x = features.shape
    blocks = features.reshape(batch, channels // edge**3, edge, edge, edge, z, y, x)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, -1, z * edge, y * edge, x * edge)


def _resized(features: Tensor, like: Tensor) -> Tensor:
    if features.shape[2:] == like.shape[2:]:
        return features
    return functional.interpolate(features, size=like.shape[2:], mode="trilinear", align_corners=False)


def _start_kaiming(module: nn.Module) -> None:
    """Called for the parts of a module before the module itself."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if isinstance(module, DeformableConv):
        module.straighten()
