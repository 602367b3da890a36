from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gpnet_node.model.drawing.phantom import phantom, shapes_of_chance
from gpnet_node.model.drawing.synthesise import sampling_grid

WHERE = sampling_grid((24, 24, 24), np.eye(3) * 9.0, np.zeros(3))


@pytest.mark.parametrize("draw", [phantom, shapes_of_chance])
def test_each_seed_draws_a_body_of_its_own_in_air(
    draw: Callable[[Tensor, np.random.Generator], Tensor],
) -> None:
    first, again, other = (draw(WHERE, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for image in (first, other):
        assert image.shape == (24, 24, 24)
        assert float(image[0, 0, 0]) <= 0.1  # air in the corner
        assert float(image.max()) > 0.3
