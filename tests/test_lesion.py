import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from gpnet_node.model.drawing import lesion
from gpnet_node.model.drawing.pose import split
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.scene import Lesion
from gpnet_node.model.drawing.tissue import TISSUES, Tissue
from tests.anatomies import anatomy

SEEDS = range(6)
FLUID = 3.0
MARKED = [kind for kind in Lesion if kind is not Lesion.PERIVASCULAR_SPACES]
Painted = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def tissue() -> Tensor:
    made = anatomy()
    return split(torch.from_numpy(made.tissue), torch.from_numpy(made.border["allen"]).float()).tissue


@pytest.fixture(scope="module")
def painted(tissue: Tensor) -> dict[Lesion, list[Painted]]:
    """Each kind of lesion some times, on an image that is 1 everywhere."""
    return {kind: [paint(tissue, kind, seed) for seed in SEEDS] for kind in Lesion}


def paint(tissue: Tensor, kind: Lesion, seed: int) -> Painted:
    means = np.ones(TISSUES, np.float32)
    means[Tissue.CSF] = FLUID
    image = torch.ones(tissue.shape)
    return lesion.paint(image, kind, tissue, means, BOX_SPACING_MM, np.random.default_rng(seed))


def inwards_mm(mask: Tensor) -> NDArray[np.float64]:
    """Distance of each voxel of a mask to what lies outside of it; 0 outside."""
    depth: NDArray[np.float64] = distance_transform_edt(mask.numpy()) * BOX_SPACING_MM
    return depth


def width_mm(mask: Tensor) -> float:
    """Of the largest ball that fits."""
    return 2 * float(inwards_mm(mask).max())


def centre_mm(mask: Tensor) -> NDArray[np.float64]:
    """From the box's middle, (z, y, x)."""
    middle = (np.array(mask.shape) - 1) / 2
    centre: NDArray[np.float64] = (np.argwhere(mask.numpy()).mean(0) - middle) * BOX_SPACING_MM
    return centre


@pytest.mark.parametrize("kind", Lesion)
def test_the_same_seed_paints_the_same_lesion(tissue: Tensor, kind: Lesion) -> None:
    first, again, other = (paint(tissue, kind, seed) for seed in (1, 1, 2))

    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("kind", MARKED)
def test_what_is_marked_is_what_changed(painted: dict[Lesion, list[Painted]], kind: Lesion) -> None:
    for image, marked in painted[kind]:
        outside = inwards_mm(~marked)

        assert marked.any()
        assert float((image - 1).abs()[outside > 2.0].max()) < 0.01


@pytest.mark.parametrize("kind", [Lesion.CALCIFICATION, Lesion.LEAD])
def test_deposits_and_leads_are_voids(painted: dict[Lesion, list[Painted]], kind: Lesion) -> None:
    for image, marked in painted[kind]:
        assert float(image.min()) < 0.3
        assert float(image[marked].max()) <= 0.65  # half way to the void at the edge
        assert float(image.max()) <= 1.0


def test_a_lacune_is_as_bright_as_fluid(painted: dict[Lesion, list[Painted]]) -> None:
    for image, marked in painted[Lesion.LACUNE]:
        assert float(image.max()) == pytest.approx(FLUID, rel=0.02)
        assert float(image[marked].min()) > 1.5


@pytest.mark.parametrize("kind", [Lesion.HAEMORRHAGE, Lesion.PALLIDOTOMY])
def test_a_bleeding_and_a_pallidotomy_have_a_dark_rim(
    painted: dict[Lesion, list[Painted]], kind: Lesion
) -> None:
    for image, marked in painted[kind]:
        depth = inwards_mm(marked)

        assert float(image[marked].min()) < 0.8  # a thin rim, between a bright core and a surround of 1
        assert float(np.median(image.numpy()[(depth > 0) & (depth < 0.7)])) < 1.0


def test_a_pallidotomy_is_filled_with_fluid(painted: dict[Lesion, list[Painted]]) -> None:
    assert all(float(image.max()) > 2.0 for image, _ in painted[Lesion.PALLIDOTOMY])


def test_the_core_of_a_bleeding_is_dark_or_bright_by_its_age(painted: dict[Lesion, list[Painted]]) -> None:
    brightest = [float(image.max()) for image, _ in painted[Lesion.HAEMORRHAGE]]

    assert max(brightest) > 1.5
    assert min(brightest) < 1.1


def test_perivascular_spaces_are_bright_thin_and_unmarked(painted: dict[Lesion, list[Painted]]) -> None:
    for image, marked in painted[Lesion.PERIVASCULAR_SPACES]:
        assert float(image.max()) > 1.5
        assert width_mm(image > 2.0) < 3.0
        assert not marked.any()


def test_a_lead_is_3_to_6_mm_wide(painted: dict[Lesion, list[Painted]]) -> None:
    widths = [width_mm(marked) for _, marked in painted[Lesion.LEAD]]

    assert min(widths) > 3.0 - BOX_SPACING_MM
    assert max(widths) < 6.0 + 2 * BOX_SPACING_MM
    assert max(widths) - min(widths) > 1.0


def test_a_lead_comes_from_above_and_ends_in_or_below_the_gpi(
    tissue: Tensor, painted: dict[Lesion, list[Painted]]
) -> None:
    for _, marked in painted[Lesion.LEAD]:
        assert marked[-1].any()  # z grows upwards
        assert not marked[0].any()
        assert (marked & (tissue == Tissue.GPI)).any()


def test_a_lead_leans_forwards_and_to_the_side_on_its_way_up(painted: dict[Lesion, list[Painted]]) -> None:
    ways = []
    for _, marked in painted[Lesion.LEAD]:
        levels = np.flatnonzero(marked.numpy().any((1, 2)))
        low, high = levels[len(levels) // 4], levels[len(levels) // 2]
        ways.append(
            np.argwhere(marked[high].numpy()).mean(0) - np.argwhere(marked[low].numpy()).mean(0)  # (y, x)
        )

    backwards, sideways = np.mean(ways, axis=0)
    assert backwards < 0
    assert sideways > 0  # x grows to the side in a left box


@pytest.mark.parametrize("kind", [Lesion.CALCIFICATION, Lesion.PALLIDOTOMY])
def test_a_deposit_and_a_pallidotomy_lie_in_or_by_the_pallidum(
    painted: dict[Lesion, list[Painted]], kind: Lesion
) -> None:
    for _, marked in painted[kind]:
        z, y, x = centre_mm(marked)
        assert abs(z) < 10
        assert abs(y) < 15
        assert abs(x) < 10


def test_a_pallidotomy_lies_in_the_gpi(tissue: Tensor, painted: dict[Lesion, list[Painted]]) -> None:
    for _, marked in painted[Lesion.PALLIDOTOMY]:
        assert (marked & (tissue == Tissue.GPI)).any()


@pytest.mark.parametrize("kind", Lesion)
def test_a_box_without_a_pallidum_comes_back_as_it_is(tissue: Tensor, kind: Lesion) -> None:
    bare = tissue.clone()
    bare[(bare == Tissue.GPE) | (bare == Tissue.GPI)] = Tissue.WHITE_MATTER

    image, marked = paint(bare, kind, 1)

    assert torch.equal(image, torch.ones(bare.shape))
    assert not marked.any()
