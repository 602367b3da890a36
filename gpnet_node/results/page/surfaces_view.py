"""The structures in three dimensions: their surfaces, lit and looked at along a direction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import ModelCard
from gpnet_node.results.page.planes import Plane, cut_structure
from gpnet_node.results.page.sheet import rgb

STEP_MM = 0.35
# Around each structure, so that nothing that is smoothed reaches the edge.
_MARGIN_MM = 3.0
# The outer of two structures lets the inner be seen.
_OUTER_ALPHA, _INNER_ALPHA = 0.62, 1.0
# Towards the light: from the left of the viewer, above and behind. (right, down, away)
_LIGHT = np.array([-0.45, -0.55, -0.70]) / np.linalg.norm([0.45, 0.55, 0.70])
_AMBIENT, _DIFFUSE, _SHINE = 0.30, 0.75, 0.30


@dataclass(frozen=True, kw_only=True, eq=False)
class _Surface:
    """What one structure shows to the viewer, on the whole view's pixels."""

    depth_mm: NDArray[np.float64]  # (rows, columns); infinite where there is none
    light: NDArray[np.float64]  # (rows, columns), how much of it is reflected
    colour: tuple[float, float, float]
    alpha: float


def look_at(
    labels: LabelMap, card: ModelCard, affine: NDArray[np.float64], plane: Plane
) -> NDArray[np.float64]:
    """The structures as seen along the normal of ``plane``, (rows, columns, RGBA), 0 to 1, STEP_MM apart.

    Parallel rays, so that lengths across the view are true. A surface is where the structure's share,
    smoothed by about half a voxel, is one half; light comes from the upper left. Of two structures of a side
    the larger one is translucent.
    """
    shape = plane.points(STEP_MM).shape[:2]
    largest = {
        side: max(
            (it for it in card.structures if it.side == side), key=lambda it: sum(it.volume_range_mm3)
        ).number
        for side in {it.side for it in card.structures}
    }
    image = np.zeros((*shape, 4))
    surfaces = [
        _surface(labels, structure.number, affine, plane, shape, rgb(structure), alpha)
        for structure in card.structures
        for alpha in [_OUTER_ALPHA if structure.number in largest.values() else _INNER_ALPHA]
        if (labels.labels == structure.number).any()
    ]
    if not surfaces:
        return image
    order = np.argsort([-surface.depth_mm for surface in surfaces], axis=0)
    for rank in range(len(surfaces)):  # from the farthest to the nearest
        for number, surface in enumerate(surfaces):
            _lay_over(image, surface, (order[rank] == number) & np.isfinite(surface.depth_mm))
    return image


def _surface(
    labels: LabelMap,
    number: int,
    affine: NDArray[np.float64],
    plane: Plane,
    shape: tuple[int, ...],
    colour: tuple[float, float, float],
    alpha: float,
) -> _Surface:
    away = np.cross(plane.right, plane.down)
    axes = np.stack([plane.right, plane.down, away])
    voxels = np.argwhere(labels.labels == number) @ affine[:3, :3].T + affine[:3, 3]
    seen = (voxels - plane.centre_mm) @ axes.T
    # Steps from the view's centre, as the pixels of the view are.
    low = np.floor((seen.min(axis=0) - _MARGIN_MM) / STEP_MM).astype(int)
    high = np.ceil((seen.max(axis=0) + _MARGIN_MM) / STEP_MM).astype(int)
    across, down, deep = (np.arange(a, b + 1) * STEP_MM for a, b in zip(low, high, strict=True))
    points = (
        plane.centre_mm
        + down[:, None, None, None] * plane.down
        + across[None, :, None, None] * plane.right
        + deep[None, None, :, None] * away
    )
    share = cut_structure(labels.labels, number, affine, points)
    field = _smooth(share, 0.45 * float(np.linalg.norm(affine[:3, :3], axis=0).max()) / STEP_MM)
    depth, light = _first_hit(field, deep)
    whole = _Surface(depth_mm=np.full(shape, np.inf), light=np.zeros(shape), colour=colour, alpha=alpha)
    _place(whole.depth_mm, depth, low, shape)
    _place(whole.light, light, low, shape)
    return whole


def _first_hit(
    field: NDArray[np.float64], deep: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depth of the surface that each ray meets first, infinite where it meets none, and its light."""
    inside = field > 0.5
    index = inside.argmax(axis=2)
    hit = inside.any(axis=2)
    rows, columns = np.nonzero(hit)
    at = np.maximum(index[hit], 1)
    before, after = field[rows, columns, at - 1], field[rows, columns, at]
    part = np.clip((0.5 - before) / np.maximum(after - before, 1e-9), 0, 1)
    depth, light = np.full(hit.shape, np.inf), np.zeros(hit.shape)
    depth[hit] = deep[at - 1] + part * STEP_MM
    down, right, away = (gradient[rows, columns, at] for gradient in np.gradient(field))
    normal = -np.stack([right, down, away], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    towards = np.array([0.0, 0.0, -1.0])
    half = (_LIGHT + towards) / np.linalg.norm(_LIGHT + towards)
    shine = np.clip(normal @ half, 0, 1) ** 24
    light[hit] = _AMBIENT + _DIFFUSE * np.clip(normal @ _LIGHT, 0, 1) + _SHINE * shine
    return depth, light


def _smooth(field: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian of ``sigma`` steps along each axis."""
    reach = int(np.ceil(2.5 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in range(3):
        total = np.zeros_like(field)
        for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
            total += weight * np.roll(field, offset, axis=axis)
        field = total
    return field


def _place(
    whole: NDArray[np.float64], part: NDArray[np.float64], low: NDArray[np.intp], shape: tuple[int, ...]
) -> None:
    """Lay a structure's pixels where they belong in the view; what is beyond its edge is left out."""
    top, left = shape[0] // 2 + low[1], shape[1] // 2 + low[0]
    rows = slice(max(0, top), min(shape[0], top + part.shape[0]))
    columns = slice(max(0, left), min(shape[1], left + part.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        whole[rows, columns] = part[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]


def _lay_over(image: NDArray[np.float64], surface: _Surface, where: NDArray[np.bool_]) -> None:
    colour = np.clip(surface.light[where, None] * np.array(surface.colour), 0, 1)
    below, alpha = image[where], surface.alpha
    covered = alpha + below[:, 3:] * (1 - alpha)
    mixed = (colour * alpha + below[:, :3] * below[:, 3:] * (1 - alpha)) / covered
    image[where] = np.concatenate([mixed, covered], axis=1)
