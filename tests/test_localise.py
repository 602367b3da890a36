import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpnet_node.errors import NoPallidumError
from gpnet_node.model.localise import (
    LOCALISER_SHAPE,
    LOCALISER_SPACING_MM,
    find_centres,
    localiser_loss,
    pallidum_logits,
)

BLOCK_MM = (36.0, 30.0, 20.0)  # (z, y, x); two of them are more than the half per cent that is clipped
NEAR_MM = 2.5  # less than one voxel of the localiser


class Bright(nn.Module):
    """Stands for a trained network: what is bright is pallidum."""

    def forward(self, image: Tensor) -> Tensor:
        return (image > 2).float() * 12


def head(
    *pallida_mm: tuple[float, float, float],
    size_mm: float = 190.0,
    block_mm: tuple[float, float, float] = BLOCK_MM,
) -> sitk.Image:
    """A dark cube with bright blocks centred on places (x, y, z)."""
    spacing = 1.5
    edge = round(size_mm / spacing)
    voxels = np.zeros((edge, edge, edge), np.float32)
    first = -spacing * (edge - 1) / 2
    for x, y, z in pallida_mm:
        low = [round((c - m / 2 - first) / spacing) for c, m in zip((z, y, x), block_mm, strict=True)]
        voxels[tuple(slice(a, a + round(m / spacing)) for a, m in zip(low, block_mm, strict=True))] = 100
    voxels[0, 0, 0] = 1  # a window that is all zero is not looked at
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing([spacing] * 3)
    image.SetOrigin([first] * 3)
    return image


def found(image: sitk.Image) -> dict[str, NDArray[np.float64]]:
    return find_centres(image, Bright(), torch.device("cpu"))  # type: ignore[arg-type]


def test_both_pallida_are_found_and_left_is_where_x_grows() -> None:
    centres = found(head((20.0, 4.0, 6.0), (-19.0, 3.0, 5.0)))

    assert centres["left"] == pytest.approx([20, 4, 6], abs=NEAR_MM)
    assert centres["right"] == pytest.approx([-19, 3, 5], abs=NEAR_MM)


@pytest.mark.parametrize(
    "axes", [(-1, -1, 1), (1, -1, -1), (-1, 1, -1)], ids=["prone", "feet first", "turned"]
)
def test_left_is_left_whichever_way_the_voxels_run(axes: tuple[int, int, int]) -> None:
    image = head((22.0, 4.0, 6.0), (-17.0, 3.0, 5.0))
    other_way = sitk.Flip(image, [axis < 0 for axis in axes])  # ITK turns the direction with the voxels

    centres = found(other_way)

    assert other_way.GetDirection() != image.GetDirection()
    assert centres["left"] == pytest.approx([22, 4, 6], abs=NEAR_MM)
    assert centres["right"] == pytest.approx([-17, 3, 5], abs=NEAR_MM)


def test_one_alone_is_refused_and_said_to_be_one() -> None:
    with pytest.raises(NoPallidumError, match="only one was found"):
        found(head((20.0, 0.0, 0.0), block_mm=(40.0, 40.0, 40.0)))


@pytest.mark.parametrize(
    "other", [(10.0, 0.0, 0.0), (20.0, 0.0, 40.0), (-70.0, 0.0, 0.0)], ids=["near", "above", "far"]
)
def test_two_places_that_cannot_be_one_heads_pallida_are_no_pair(other: tuple[float, float, float]) -> None:
    with pytest.raises(NoPallidumError, match=r"no pair|only one"):  # near ones run together
        found(head((25.0, 0.0, 0.0), other))


def test_nothing_is_guessed_where_nothing_is() -> None:
    with pytest.raises(NoPallidumError, match="none was found"):
        found(head())


def test_a_volume_larger_than_the_window_is_looked_through() -> None:
    centres = found(head((80.0, 56.0, -64.0), (42.0, 56.0, -64.0), size_mm=290.0))

    assert centres["left"] == pytest.approx([80, 56, -64], abs=NEAR_MM)
    assert max(LOCALISER_SHAPE) * LOCALISER_SPACING_MM < 250


def test_an_untrained_network_expects_few_voxels_of_pallidum() -> None:
    assert float(pallidum_logits(torch.zeros(1, 1, 4, 4, 4)).sigmoid().max()) < 0.05


def test_the_loss_falls_as_the_share_comes_nearer_and_asks_for_no_side() -> None:
    target = torch.zeros(1, 2, 16, 16, 16)
    target[0, 0, 4:8, 4:8, 4:8], target[0, 1, 4:8, 4:8, 10:14] = 1, 1
    right = (target.sum(1, keepdim=True) * 2 - 1) * 10 + 6
    swapped = target.flip(1)

    wrong, near, exact = (
        float(localiser_loss([scale], target)) for scale in (-right + 12, right.roll(1, 2), right)
    )

    assert exact < 0.1 < near < wrong
    assert float(localiser_loss([right], swapped)) == exact
