import numpy as np
import pytest
import torch

from gpnet_node.model.localise import LOCALISER_SHAPE, heat_target, side_logits


def test_a_centre_becomes_a_heat_map_around_it() -> None:
    target = heat_target(np.array([[40.0, 41.5, 30.0], [40.0, 41.0, 52.0]]))

    heat = target[0, :-1].reshape(LOCALISER_SHAPE)
    assert np.unravel_index(int(heat.argmax()), LOCALISER_SHAPE)[0] == 40
    assert target.sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert target[:, -1].tolist() == [0, 0]


def test_a_side_outside_is_voted_absent() -> None:
    target = heat_target(np.array([[np.nan] * 3, [40.0, 41.0, 52.0]]))

    assert target[0, -1] == 1
    assert float(target[0, :-1].sum()) == 0


def test_heat_and_absence_share_one_softmax() -> None:
    output = torch.zeros(1, 4, 4, 4, 4)
    output[0, 2:] = 50.0  # both sides vote for absence

    probability = side_logits(output).softmax(2)

    assert probability.shape == (1, 2, 65)
    assert probability[0, :, -1].tolist() == pytest.approx([1, 1], abs=1e-6)
