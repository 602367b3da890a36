"""A second renderer, for test images only: signal equations from relaxation times, sampled in k-space.

It shares the posed geometry and the shapes of lesions with the first (``head.render``), and nothing of how an
image comes about: no tissue means, no drawn contrast. Whoever trains on it gives up what it is for. Tissues
and their sources are in ``composition``, the receiver is in ``kspace``; the protocols are estimates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import highdicom as hd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpnet_node.model.drawing import kspace, lesion
from gpnet_node.model.drawing.composition import Matter, draw_matter
from gpnet_node.model.drawing.fields import Transmit, Waves, received
from gpnet_node.model.drawing.kspace import EchoTrain
from gpnet_node.model.drawing.pose import PosedHead, plane, values
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.scene import BLOOMING_MM, Contrast, Scene, Visibility
from gpnet_node.model.drawing.synthesise import Divided
from gpnet_node.model.drawing.tissue import HEAD_TISSUE_OFFSET, Tissue

_FINE = 2  # samples a voxel along rows and along columns, of which k-space is made
_HEAD_MM = 0.8  # the 1 mm head is looked up no closer than at this, unless the samples lie further apart
_NODE_MM = 1.6  # at most between the places where smooth maps are computed
_PROFILE = ((-0.35, 0.28), (0.0, 0.44), (0.35, 0.28))  # of a slice: where in its thickness, and how much
_SHOWN = {Visibility.CLEAR: 1.0, Visibility.PARTIAL: 1.0, Visibility.FAINT: 0.3, Visibility.ABSENT: 0.0}

# -- what a sequence makes of them ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """T2: turbo spin echo. T2*: spoiled gradient echo. T1: inversion recovery with a gradient-echo readout.

    The last stands for MP2RAGE, whose second image and ratio are left out.
    """

    contrast: Contrast
    te_ms: float
    tr_ms: float
    excitation_degrees: float
    ti_ms: float = 0.0
    refocusing_degrees: float = 180.0
    train: EchoTrain = kspace.NO_TRAIN


def draw_protocol(rng: np.random.Generator, contrast: Contrast) -> Protocol:
    """A protocol as sites vary it; a random contrast has no equation and is drawn as T2."""
    if contrast is Contrast.T2STAR:
        te_ms, tr_ms = rng.uniform(15, 20), rng.uniform(500, 750)
        return Protocol(
            contrast=contrast, te_ms=te_ms, tr_ms=tr_ms, excitation_degrees=float(rng.uniform(30, 40))
        )
    if contrast is Contrast.T1:
        ti_ms, tr_ms = rng.uniform(1200, 1350), rng.uniform(2500, 3000)
        return Protocol(contrast=contrast, te_ms=2.5, tr_ms=tr_ms, ti_ms=ti_ms, excitation_degrees=7.0)
    te_ms, tr_ms = rng.uniform(54, 62), rng.uniform(6000, 7000)
    return Protocol(
        contrast=Contrast.T2,
        te_ms=te_ms,
        tr_ms=tr_ms,
        excitation_degrees=90.0,
        refocusing_degrees=float(rng.uniform(120, 150)),
        train=EchoTrain(echoes=9, spacing_ms=te_ms / 5),
    )


def signal(matter: Matter, protocol: Protocol, b1: float = 1.0) -> NDArray[np.float32]:
    """Transverse magnetisation of each tissue at the echo time; ``b1``: reached share of the flip angles."""
    tip = np.deg2rad(protocol.excitation_degrees * b1)
    left = np.exp(-protocol.tr_ms / matter.t1_ms)
    if protocol.contrast is Contrast.T1:
        ready = 1 - 2 * np.exp(-protocol.ti_ms / matter.t1_ms) / (1 + left)
    else:
        ready = (1 - left) / (1 - np.cos(tip) * left)
    rate, refocused = matter.r2star_per_s, 1.0
    if protocol.contrast is Contrast.T2:
        rate, refocused = train_rate(matter, protocol, b1), _turned(protocol, b1)
    found = matter.water * ready * np.sin(tip) * refocused * np.exp(-protocol.te_ms / 1000 * rate)
    signals: NDArray[np.float32] = found.astype(np.float32)
    return signals


def train_rate(matter: Matter, protocol: Protocol, b1: float = 1.0) -> NDArray[np.float64]:
    """Decay along an echo train, 1/s: angles below 180 degrees keep a part along z, where T1 rules."""
    share = _turned(protocol, b1)
    return matter.r2_per_s * share + 1000 / matter.t1_ms * (1 - share)


def _turned(protocol: Protocol, b1: float) -> float:
    return float(np.sin(np.deg2rad(protocol.refocusing_degrees * b1) / 2) ** 2)


# -- the image -----------------------------------------------------------------------------------------------


def render(posed: PosedHead, scene: Scene, geometry: hd.VolumeGeometry, seed: int) -> NDArray[np.float32]:
    """Voxels (slice, row, column), scaled to 0-4000 for 12 stored bits; a ``head.Renderer``.

    The slices are sampled one by one in k-space. ``scene.snr`` holds between the pallida; ``scene.bias`` says
    how much of the coils' brightness is left and how far the transmit field falls.
    """
    rng = np.random.default_rng([seed, 11])
    protocol = draw_protocol(rng, scene.contrast)
    matter = draw_matter(rng, scene)
    scanned = _Scan.draw(rng, scene, geometry, protocol, matter)
    tables = np.stack([signal(matter, protocol, b1) for b1 in scanned.transmit.span])
    tables /= float(signal(matter, protocol)[Tissue.WHITE_MATTER])
    body = _Body.paint(posed, scene, tables, rng)
    brain = posed.head.tissue[(posed.head.tissue > 0) & (posed.head.tissue < HEAD_TISSUE_OFFSET)]
    noise = float(tables[1][brain].mean()) / scene.snr
    voxels = np.stack([scanned.slice_(body, k, noise, rng) for k in range(geometry.spatial_shape[0])])
    scaled: NDArray[np.float32] = (voxels * (4000 / np.percentile(voxels[::2, ::2, ::2], 99.95))).clip(
        0, 4095
    )
    return scaled.astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Body:
    """Painted signals at the lowest and the highest share of the flip angles, (2, z, y, x).

    The boxes have a third channel: where they hold brain.
    """

    posed: PosedHead
    whole: Tensor
    boxes: Mapping[str, Tensor]

    @classmethod
    def paint(
        cls, posed: PosedHead, scene: Scene, tables: NDArray[np.float32], rng: np.random.Generator
    ) -> "_Body":
        boxes = {}
        for side, divided in posed.sides.items():
            hurt = scene.lesions if side in scene.lesion_sides else ()
            lamina = _lamina(divided, scene.visibility, Waves.draw(rng, (8.0, 20.0)))
            seed = int(rng.integers(2**32))
            channels = []
            for table in tables:
                painted = torch.from_numpy(table)[divided.tissue.long()]
                painted = painted + lamina * (float(table[Tissue.LAMINA]) - painted)
                again = np.random.default_rng(seed)  # the same lesion in both channels
                for kind in hurt:
                    painted, _ = lesion.paint(
                        painted,
                        kind,
                        divided.tissue,
                        table,
                        BOX_SPACING_MM,
                        again,
                        BLOOMING_MM[scene.contrast],
                    )
                channels.append(painted)
            boxes[side] = torch.stack([*channels, (divided.tissue != Tissue.BACKGROUND).float()])
        whole = torch.stack([torch.from_numpy(table[posed.head.tissue]) for table in tables])
        return cls(posed=posed, whole=whole, boxes=boxes)

    def head(self, nodes: Tensor, step: int) -> Tensor:
        """Signals of the head on one plane, (2, row, column), ``step`` samples between nodes.

        ``nodes``: head coordinates (row, column, 3).
        """
        return values(self.whole, _between(nodes, step)[None])[:, 0]

    def near(self, nodes: Tensor, step: int) -> Iterator[tuple[slice, slice, Tensor]]:
        """Where boxes lie in a plane: rows, columns, and (3, row, column): signals, and where they count."""
        for side, box in self.boxes.items():
            _, inside = self.posed.in_box(side, nodes)
            if not bool(inside.any()):
                continue
            places = torch.argwhere(inside)
            first, last = (places.amin(0) - 1).clamp(min=0), places.amax(0) + 2
            part = _between(nodes[first[0] : last[0], first[1] : last[1]], step)
            voxel, inside = self.posed.in_box(side, part)
            found = values(box, voxel[None])[:, 0]
            counts = inside & (found[2] > 0.99)
            found[2] = 1
            row, column = (first * step).tolist()
            rows, columns = slice(row, row + counts.shape[0]), slice(column, column + counts.shape[1])
            yield rows, columns, found * counts


def _lamina(divided: Divided, visibility: Visibility, patches: Waves) -> Tensor:
    """Weight of the medial lamina; in part of it only, where it is seen in places."""
    weight = divided.lamina * _SHOWN[visibility]
    if visibility is Visibility.PARTIAL:
        axes = [np.arange(n) * BOX_SPACING_MM for n in weight.shape]
        weight = weight * torch.from_numpy(patches.at(np.stack(np.meshgrid(*axes, indexing="ij"), -1)) > 0)
    return weight


def _between(nodes: Tensor, step: int) -> Tensor:
    """Linear interpolation of nodes (row, column, channel) that lie ``step`` apart."""
    size = [(n - 1) * step + 1 for n in nodes.shape[:2]]
    return functional.interpolate(
        nodes.permute(2, 0, 1)[None], size=size, mode="bilinear", align_corners=True
    )[0].permute(1, 2, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scan:
    """Everything about one series but the head: its grid, its fields and its lines of k-space."""

    affine: NDArray[np.float64]
    shape: tuple[int, int]
    step: int  # samples between nodes
    head_step: int  # samples between those that are taken of the head
    transmit: Transmit
    texture: Waves
    phase: Waves
    factors: Tensor
    bias: float

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        scene: Scene,
        geometry: hd.VolumeGeometry,
        protocol: Protocol,
        matter: Matter,
    ) -> "_Scan":
        affine = np.asarray(geometry.affine, float)
        _, rows, columns = geometry.spatial_shape
        in_plane_mm = geometry.spacing[1:]
        centre = affine @ [*(rng.uniform(0.1, 0.9, 3) * geometry.spatial_shape), 1]
        transmit = Transmit(
            centre_mm=rng.normal(0, 10, 3),
            fall=1.2 * scene.bias,
            drop_mm=centre[:3],
            drop_width_mm=rng.uniform(20, 45, 3),
            depth=scene.drop_out,
        )
        rate = float(train_rate(matter, protocol)[[Tissue.WHITE_MATTER, Tissue.CORTEX]].mean())
        return cls(
            affine=affine,
            shape=(rows, columns),
            step=4 * max(1, int(_NODE_MM / 2 / max(in_plane_mm))),
            head_step=next(n for n in (4, 2, 1) if n == 1 or n * max(in_plane_mm) / _FINE <= _HEAD_MM),
            transmit=transmit,
            texture=Waves.draw(rng, (7.0, 40.0)),
            phase=Waves.draw(rng, (150.0, 400.0)),
            factors=kspace.line_factors(
                rng, (rows, columns), in_plane_mm, protocol.train, rate, scene.artefact
            ),
            bias=scene.bias,
        )

    def slice_(self, body: _Body, k: int, noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """One slice as the receiver combines it, (row, column)."""
        lps = self._nodes(k)
        lines = kspace.sample(self._object(body, k, lps), self.shape)
        taken = kspace.image(lines * self.factors[k % 2])
        bright = torch.from_numpy(received(lps)[..., None].astype(np.float32))
        bright = _between(bright, self.step // _FINE)[: self.shape[0], : self.shape[1], 0]
        voxels: NDArray[np.float32] = kspace.combine(rng, taken, bright, noise, self.bias).numpy()
        return voxels

    def _object(self, body: _Body, k: int, lps: NDArray[np.float64]) -> Tensor:
        """Complex magnetisation of the slice, ``_FINE`` samples a voxel."""
        size = [(n - 1) * self.step + 1 for n in lps.shape[:2]]
        head, boxes = torch.zeros(()), torch.zeros(3, *size)
        for offset, weight in _PROFILE:
            nodes = body.posed.look_up(self._nodes(k + offset))
            head = head + body.head(nodes, self.step // self.head_step) * weight
            for rows, columns, found in body.near(nodes, self.step):
                boxes[:, rows, columns] += found * weight
        low, high = _between(head.movedim(0, -1), self.head_step).movedim(-1, 0) * (1 - boxes[2]) + boxes[:2]
        least, most = self.transmit.span
        reached = ((self.transmit.at(lps) - least) / (most - least)).clip(0, 1)
        turned = (1 + 0.04 * self.texture.at(lps)) * np.exp(1j * self.phase.at(lps))
        maps = torch.from_numpy(np.stack([reached, turned.real, turned.imag], -1).astype(np.float32))
        share, real, imaginary = _between(maps, self.step).unbind(-1)
        strength = torch.lerp(low, high, share)
        whole = torch.complex(strength * real, strength * imaginary)
        return whole[: self.shape[0] * _FINE, : self.shape[1] * _FINE]

    def _nodes(self, k: float) -> NDArray[np.float64]:
        """LPS mm of the nodes of a plane, which cover its voxels and reach beyond; (row, column, 3)."""
        apart = self.step // _FINE
        rows, columns = (np.arange(-(-n // apart) + 1) * apart for n in self.shape)
        return plane(self.affine, k, rows, columns)
