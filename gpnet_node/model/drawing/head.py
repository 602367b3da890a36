"""Draws a whole series: one head's image on a scanner's grid, with the truth that it was drawn from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import highdicom as hd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnet_node.model.card import ModelCard
from gpnet_node.model.drawing.pose import (
    Head,
    PosedHead,
    Seeds,
    look_up_plane,
    over_slices,
    plane,
    pose,
    segment_masks,
    shares,
    values,
)
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.scanner import expose
from gpnet_node.model.drawing.scene import DrawSettings, Scene, signals
from gpnet_node.model.drawing.synthesise import GPE, GPI, paint, textured
from gpnet_node.model.drawing.tissue import Tissue

TRUTH_SPACING_MM = 0.390625  # the grid of Solomon 2021
_TRUTH_SHAPE = (104, 120, 104)  # (z, y, x)
_SUBSLICES = 2  # each slice is the mean of this many planes through its thickness


@dataclass(frozen=True, kw_only=True, eq=False)
class FineTruth:
    """One side's truth: ``labels`` uint8 (z, y, x) 0 / GPE / GPI as it lies in the patient (LPS axes).

    Voxels of 0.390625 mm; ``origin_mm`` (x, y, z) is the middle of the first.
    """

    labels: NDArray[np.uint8]
    origin_mm: NDArray[np.float64]

    @property
    def places_mm(self) -> NDArray[np.float64]:
        """LPS mm of the labelled voxels, (voxels, 3)."""
        return np.asarray(np.argwhere(self.labels > 0)[:, ::-1] * TRUTH_SPACING_MM + self.origin_mm)


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnHead:
    """``voxels`` float32 and ``labels`` uint8 (card's numbers), both (slice, row, column) of ``geometry``."""

    voxels: NDArray[np.float32]
    labels: NDArray[np.uint8]
    geometry: hd.VolumeGeometry
    truth: Mapping[str, FineTruth]


Renderer = Callable[[PosedHead, Scene, hd.VolumeGeometry, int], NDArray[np.float32]]


def draw_series(
    head: Head,
    scene: Scene,
    geometry: hd.VolumeGeometry,
    card: ModelCard,
    seeds: Seeds,
    settings: DrawSettings,
    *,
    border: str | None = None,
    renderer: Renderer | None = None,
) -> DrawnHead:
    """Draw the head on a grid whose patient origin lies between the two pallida.

    ``geometry``: (slice, row, column) -> LPS mm. ``renderer``: what turns the posed head into voxels; by
    default tissue means, fields and noise.
    """
    posed = pose(head, scene, seeds, settings, border)
    voxels = (renderer or render)(posed, scene, geometry, seeds.image)
    truth = {side: _fine_truth(posed, side) for side in posed.sides}
    return DrawnHead(
        voxels=voxels,
        labels=_native_labels(posed, geometry, card, truth),
        geometry=geometry,
        truth=truth,
    )


def render(posed: PosedHead, scene: Scene, geometry: hd.VolumeGeometry, seed: int) -> NDArray[np.float32]:
    """Voxels (slice, row, column), scaled to 0-4000 for 12 stored bits."""
    rng = np.random.default_rng([seed, 3])
    means = signals(rng, scene)
    boxes = {}
    for side, divided in posed.sides.items():
        shown = scene if side in scene.lesion_sides else _unhurt(scene)
        signal, _ = paint(divided, shown, means, rng, BOX_SPACING_MM, grain=False)
        brain = (divided.tissue != Tissue.BACKGROUND).float()
        boxes[side] = torch.stack([signal, brain])
    whole = textured(torch.from_numpy(posed.head.tissue), None, means, rng, 1.0, grain=False)[None]
    image = torch.from_numpy(
        over_slices(geometry, _SUBSLICES, lambda plane: _cut(posed, whole, boxes, plane))
    )
    image = expose(rng, image, scene, spacing_mm=geometry.spacing, slice_axis=0)
    scale = 4000 / float(np.percentile(image[::2, ::2, ::2].numpy(), 99.95))
    scaled: NDArray[np.float32] = (image * scale).clamp(0, 4095).numpy()
    return scaled


def nothing(posed: PosedHead, scene: Scene, geometry: hd.VolumeGeometry, seed: int) -> NDArray[np.float32]:
    """A renderer that leaves the image empty: for who asks for the truth alone."""
    return np.zeros(geometry.spatial_shape, np.float32)


def _unhurt(scene: Scene) -> Scene:
    return replace(scene, lesions=())


def _cut(posed: PosedHead, whole: Tensor, boxes: Mapping[str, Tensor], lps_mm: NDArray[np.float64]) -> Tensor:
    """Signal of one plane, (row, column): of the head, and of the finer boxes where they hold brain."""
    moved = look_up_plane(posed, lps_mm)
    cut = values(whole, moved[None])[0, 0]
    for side, box in boxes.items():
        voxel, inside = posed.in_box(side, moved)
        if bool(inside.any()):
            signal, brain = values(box, voxel[inside][None, None])[:, 0, 0]
            cut[inside] = torch.where(brain > 0.99, signal, cut[inside])
    return cut


def _native_labels(
    posed: PosedHead, geometry: hd.VolumeGeometry, card: ModelCard, truth: Mapping[str, FineTruth]
) -> NDArray[np.uint8]:
    """Structure numbers where a pallidum fills more than half of a voxel's thickness."""
    affine = np.asarray(geometry.affine, float)
    labels = np.zeros(geometry.spatial_shape, np.uint8)
    number = {(str(s.side), s.channel): s.number for s in card.structures}
    offsets = (np.arange(_SUBSLICES) + 0.5) / _SUBSLICES - 0.5
    masks = {side: segment_masks(divided) for side, divided in posed.sides.items()}
    slices, rows, columns = _indices_around(truth, geometry)
    for k in slices:
        planes = [look_up_plane(posed, plane(affine, k + o, rows, columns)) for o in offsets]
        part = labels[k, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for side in posed.sides:
            filled = [shares(posed, side, masks[side], moved) for moved in planes]
            gpe, gpi = (torch.stack(parts).mean(0).numpy() for parts in zip(*filled, strict=True))
            inside = gpe + gpi > 0.5
            part[inside & (gpi <= gpe)] = number[side, GPE]
            part[inside & (gpi > gpe)] = number[side, GPI]
    return labels


def _indices_around(truth: Mapping[str, FineTruth], geometry: hd.VolumeGeometry) -> list[NDArray[np.int64]]:
    """The slices, rows and columns of a grid in which pallida lie; one of each at least."""
    places = np.concatenate([side.places_mm for side in truth.values()])
    inverse = np.linalg.inv(np.asarray(geometry.affine, float))
    index = places @ inverse[:3, :3].T + inverse[:3, 3]
    last = np.array(geometry.spatial_shape) - 1
    low = np.clip(np.floor(index.min(0)) - 2, 0, last).astype(int)
    high = np.clip(np.ceil(index.max(0)) + 2, 0, last).astype(int)
    return [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]


def _fine_truth(posed: PosedHead, side: str) -> FineTruth:
    head = posed.head
    centre = head.centres[0 if side == "left" else 1] - head.centres.mean(0)  # (z, y, x), head mm
    lps = (np.linalg.inv(posed.inverse) @ centre)[::-1]
    size = np.array(_TRUTH_SHAPE[::-1])
    origin = np.round(lps / TRUTH_SPACING_MM) * TRUTH_SPACING_MM - TRUTH_SPACING_MM * (size // 2)
    axes = [origin[a] + TRUTH_SPACING_MM * np.arange(size[a]) for a in (2, 1, 0)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    gpe, gpi = shares(posed, side, segment_masks(posed.sides[side]), posed.look_up(np.stack([x, y, z], -1)))
    labels = np.where((gpe + gpi).numpy() > 0.5, np.where((gpi > gpe).numpy(), GPI, GPE), 0).astype(np.uint8)
    return FineTruth(labels=labels, origin_mm=origin)
