"""GP-net: attention-gated 3D U-Net with deep supervision, after Solomon et al. 2021 (doi:10.1002/hbm.25409).

One network, spanned by :class:`GPNetConfig`. The segmenter sees one side's box; the localiser is the same
network without gates on a coarse grid. Arrays are (batch, channel, z, y, x).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class GPNetConfig:
    """Sizes of the network. Level 0 has the input's resolution; the last level is the centre.

    ``filters``: channels of each level. ``gated_levels``: skip connections that pass an attention gate.
    ``supervised_levels``: decoder levels whose heads are joined in the output, finest first.
    """

    in_channels: int = 1
    out_channels: int = 3  # background, GPe, GPi
    filters: tuple[int, ...] = (16, 32, 64, 128)
    gated_levels: tuple[int, ...] = (1, 2)
    supervised_levels: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        inner = range(len(self.filters) - 1)
        if not set(self.gated_levels) | set(self.supervised_levels) <= set(inner):
            raise ValueError(f"gated and supervised levels must lie in {list(inner)}")


class ConvBlock(nn.Sequential):
    """Convolutions 3x3x3, each with InstanceNorm and leaky ReLU. (B, in, z, y, x) -> (B, out, z, y, x)."""

    def __init__(self, channels_in: int, channels_out: int, *, depth: int = 2) -> None:
        layers: list[nn.Module] = []
        for step in range(depth):
            layers += [
                nn.Conv3d(channels_in if step == 0 else channels_out, channels_out, 3, padding=1, bias=False),
                nn.InstanceNorm3d(channels_out, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        super().__init__(*layers)


class AttentionGate(nn.Module):
    """Grid attention (Oktay 2018, arXiv:1804.03999): the centre's signal weighs each place of a skip.

    ``skip`` (B, C, z, y, x) and ``gate`` (B, G, z', y', x') of a coarser level -> (B, C, z, y, x).
    """

    def __init__(self, skip_channels: int, gate_channels: int) -> None:
        super().__init__()
        inner = skip_channels // 2
        self.theta = nn.Conv3d(skip_channels, inner, 2, stride=2, bias=False)
        self.phi = nn.Conv3d(gate_channels, inner, 1)
        self.psi = nn.Conv3d(inner, 1, 1)
        self.merge = nn.Sequential(
            nn.Conv3d(skip_channels, skip_channels, 1, bias=False),
            nn.InstanceNorm3d(skip_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Skip features scaled by an attention map in 0-1."""
        theta = self.theta(skip)
        phi = functional.interpolate(
            self.phi(gate), size=theta.shape[2:], mode="trilinear", align_corners=False
        )
        weight = torch.sigmoid(self.psi(functional.relu(theta + phi)))
        weight = functional.interpolate(weight, size=skip.shape[2:], mode="trilinear", align_corners=False)
        merged: Tensor = self.merge(skip * weight)
        return merged


class GPNet(nn.Module):
    """Image (B, in, z, y, x) -> logits (B, out, z, y, x); z, y, x divisible by 2 ** (levels - 1)."""

    def __init__(self, config: GPNetConfig) -> None:
        super().__init__()
        self.config = config
        filters = config.filters
        inputs = (config.in_channels, *filters[:-1])
        self.encoder = nn.ModuleList(ConvBlock(i, o) for i, o in zip(inputs, filters, strict=True))
        self.gating = nn.Conv3d(filters[-1], filters[-1], 1)
        self.gates = nn.ModuleDict(
            {str(level): AttentionGate(filters[level], filters[-1]) for level in config.gated_levels}
        )
        self.decoder = nn.ModuleList(
            ConvBlock(filters[level] + filters[level + 1], filters[level])
            for level in range(len(filters) - 1)
        )
        self.heads = nn.ModuleList(
            nn.Conv3d(filters[level], config.out_channels, 1) for level in config.supervised_levels
        )
        self.join = nn.Conv3d(config.out_channels * len(config.supervised_levels), config.out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the joined heads."""
        return self.scales(image)[0]

    def scales(self, image: Tensor) -> list[Tensor]:
        """Joined logits, then each head's own logits at full size, finest first (deep supervision)."""
        skips = []
        features = image
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else functional.max_pool3d(features, 2))
            skips.append(features)
        gate = functional.leaky_relu(self.gating(features), 0.01)
        decoded: dict[int, Tensor] = {}
        for level in reversed(range(len(self.decoder))):
            skip = skips[level]
            if str(level) in self.gates:
                skip = self.gates[str(level)](skip, gate)
            up = functional.interpolate(features, size=skip.shape[2:], mode="trilinear", align_corners=False)
            features = self.decoder[level](torch.cat([skip, up], dim=1))  # (B, filters[level], z, y, x)
            decoded[level] = features
        sides = [
            functional.interpolate(
                head(decoded[level]), size=image.shape[2:], mode="trilinear", align_corners=False
            )
            for level, head in zip(self.config.supervised_levels, self.heads, strict=True)
        ]
        return [self.join(torch.cat(sides, dim=1)), *sides]
