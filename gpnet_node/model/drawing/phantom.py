"""Images that show no head: phantoms, and shapes of chance. ``where``: mm from the middle, (z, y, x, 3)."""

import numpy as np
import torch
from torch import Tensor

from gpnet_node.model.drawing.scanner import smooth_field


def phantom(where: Tensor, rng: np.random.Generator) -> Tensor:
    """A sphere, an ellipsoid, a cylinder or a box of fluid; with balls, rods or a grid in it or without."""
    size = torch.from_numpy(rng.uniform(50, 100, 3).astype(np.float32))
    if rng.random() < 0.4:
        size[:] = size[0]
    parts = where / size
    kind = int(rng.integers(3))
    if kind == 0:
        body = parts.square().sum(-1) < 1
    elif kind == 1:
        body = (parts[..., 1:].square().sum(-1) < 1) & (parts[..., 0].abs() < 1)
    else:
        body = (parts.abs() < 1).all(-1)
    image = body.float() * rng.uniform(0.5, 2.0) + rng.uniform(0, 0.1)
    if rng.random() < 0.4:
        pitch, wall = rng.uniform(10, 30), rng.uniform(2, 6)
        lines = torch.remainder(where[..., int(rng.integers(0, 2)) :], pitch) < wall
        image = torch.where(
            body & lines.any(-1), torch.tensor(rng.uniform(0, 2.5), dtype=torch.float32), image
        )
    for _ in range(int(rng.integers(0, 9)) if rng.random() < 0.6 else 0):
        away = where - torch.from_numpy(rng.normal(0, 25, 3).astype(np.float32))
        if rng.random() < 0.4:
            away = away[..., 1:]  # a rod
        ball = away.square().sum(-1) < rng.uniform(3, 15) ** 2
        image = torch.where(body & ball, torch.tensor(rng.uniform(0, 2.5), dtype=torch.float32), image)
    return image


def shapes_of_chance(where: Tensor, rng: np.random.Generator) -> Tensor:
    """Shapes of chance (Hoffmann 2022): the strongest of several smooth fields paints each voxel."""
    count = int(rng.integers(4, 12))
    fields = smooth_field(rng, int(rng.integers(4, 14)), where.shape[:3], channels=count)
    means = torch.from_numpy(rng.uniform(0, 2.0, count).astype(np.float32))
    image = means[fields.argmax(0)]
    size = torch.from_numpy(rng.uniform(50, 110, 3).astype(np.float32))
    return image * ((where / size).square().sum(-1) < 1)
