"""What patients have in the pallidum, painted into a side's box: deposits, bleeding, fluid, leads, lesions.

Shapes are given in mm around a place in the left-sided box: arrays (z, y, x) in LPS axes, x growing to the
left, so lateral is +x, anterior is -y and superior is +z.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpnet_node.model.drawing.scene import Lesion
from gpnet_node.model.drawing.tissue import Tissue

_EDGE_MM = 0.3  # over which a lesion fades into its surroundings
_ENTRY = (1.0, -0.45, 0.30)  # (z, y, x) of a pallidal trajectory from target to entry: up, forward, lateral

Places = Tensor  # (z, y, x, 3): mm of each voxel in the box


def paint(
    image: Tensor,
    kind: Lesion,
    tissue: Tensor,
    means: NDArray[np.float32],
    spacing_mm: float,
    rng: np.random.Generator,
    blooming_mm: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The image (z, y, x) with a lesion of this kind, and where it lies (bool).

    ``blooming_mm``: how much further than its surface a void reaches.

    Perivascular spaces are painted, but nothing is marked: they are no lesion that would make a result
    doubtful. A box without a pallidum comes back as it is.
    """
    where = _where(kind, tissue, rng)
    if where is None:
        return image, torch.zeros(image.shape, dtype=torch.bool)
    axes = [torch.arange(n, dtype=torch.float32) for n in image.shape]
    offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) - torch.from_numpy(where)
    place = offset * spacing_mm
    fluid, void = float(means[Tissue.CSF]), float(rng.uniform(0.0, 0.25))
    marked = torch.zeros(image.shape, dtype=torch.bool)
    for depth, signal in _layers(kind, place, rng, fluid, void):
        reach = blooming_mm if signal == void else 0.0
        weight = torch.sigmoid((depth + reach) / (_EDGE_MM / 2))
        image = image + weight * (signal - image)
        marked |= weight > 0.5
    if kind is Lesion.PERIVASCULAR_SPACES:
        marked[:] = False
    return image, marked


def _where(kind: Lesion, tissue: Tensor, rng: np.random.Generator) -> NDArray[np.float32] | None:
    """A voxel of the structure that this kind of lesion prefers."""
    home = {
        Lesion.CALCIFICATION: (Tissue.GPE, Tissue.GPI),
        Lesion.HAEMORRHAGE: (Tissue.GPE, Tissue.GPI, Tissue.PUTAMEN),
        Lesion.PERIVASCULAR_SPACES: (Tissue.PUTAMEN, Tissue.GPE),
        Lesion.LACUNE: (Tissue.PUTAMEN, Tissue.GPE, Tissue.GPI, Tissue.THALAMUS, Tissue.INTERNAL_CAPSULE),
        Lesion.LEAD: (Tissue.GPI,),
        Lesion.PALLIDOTOMY: (Tissue.GPI,),
    }[kind]
    places = np.argwhere(np.isin(tissue.numpy(), home))
    if len(places) == 0 or not bool((tissue == Tissue.GPE).any()):
        return None
    place: NDArray[np.float32] = places[rng.integers(len(places))].astype(np.float32)
    return place


def _layers(
    kind: Lesion, place: Places, rng: np.random.Generator, fluid: float, void: float
) -> list[tuple[Tensor, float]]:
    """From the outside in: depth below the surface (mm, negative outside) and signal."""
    if kind is Lesion.CALCIFICATION:
        blobs = [
            _ball(place + _offset(rng, 2.5), rng.uniform(0.8, 3.0), rng) for _ in range(rng.integers(1, 4))
        ]
        return [(torch.stack(blobs).amax(0), void)]
    if kind is Lesion.HAEMORRHAGE:
        ball = _ball(place, rng.uniform(2.0, 6.0), rng)
        return [(ball, void), (ball - rng.uniform(0.6, 1.5), float(rng.uniform(0.2, 2.5)))]
    if kind is Lesion.PERIVASCULAR_SPACES:
        tubes = [
            _tube(place + _offset(rng, 4.0), rng.normal([1, 0, 0], 0.25), rng.uniform(0.4, 1.0), 5.0)
            for _ in range(rng.integers(2, 7))
        ]
        return [(torch.stack(tubes).amax(0), fluid)]
    if kind is Lesion.LACUNE:
        return [(_ball(place, rng.uniform(1.5, 4.0), rng), fluid)]
    if kind is Lesion.LEAD:
        return [(_track(place, rng), void)]
    ball = _ball(place, rng.uniform(2.0, 3.5), rng)
    return [(ball, void), (ball - rng.uniform(0.5, 1.0), fluid)]


def _offset(rng: np.random.Generator, sd_mm: float) -> Tensor:
    return torch.from_numpy(rng.normal(0, sd_mm, 3).astype(np.float32))


def _ball(place: Places, radius_mm: float, rng: np.random.Generator) -> Tensor:
    """An ellipsoid, up to a third longer or shorter along each axis."""
    stretch = torch.from_numpy(np.exp(rng.uniform(-0.3, 0.3, 3)).astype(np.float32))
    depth: Tensor = float(radius_mm) - (place * stretch).norm(dim=-1)
    return depth


def _tube(place: Places, along: NDArray[np.float64], radius_mm: float, half_length_mm: float) -> Tensor:
    axis = torch.from_numpy((along / np.linalg.norm(along)).astype(np.float32))
    run = place @ axis
    away = (place - run[..., None] * axis).norm(dim=-1)
    return torch.minimum(float(radius_mm) - away, half_length_mm - run.abs())


def _track(place: Places, rng: np.random.Generator) -> Tensor:
    """A lead's void of 3-6 mm, from just below its target up and out of the box."""
    along = rng.normal(_ENTRY, (0.0, 0.15, 0.15))
    axis = torch.from_numpy((along / np.linalg.norm(along)).astype(np.float32))
    run = place @ axis
    away = (place - run[..., None] * axis).norm(dim=-1)
    return torch.minimum(float(rng.uniform(1.5, 3.0)) - away, run + float(rng.uniform(0.5, 3.0)))
