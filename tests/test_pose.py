from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    split,
    values,
)
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.scene import Contrast, DrawSettings, Scene, Visibility
from gpnet_node.model.drawing.synthesise import GPE, GPI
from gpnet_node.model.drawing.tissue import Tissue
from tests import anatomies
from tests.anatomies import PALLIDUM_MM3, SIDEWAYS_MM

CLEAR = Scene(contrast=Contrast.T2, visibility=Visibility.CLEAR)
AS_IT_LIES = DrawSettings(
    rotation_sd_degrees=0, elastic_mm=0, pallidum_mm3=(PALLIDUM_MM3, PALLIDUM_MM3)
)  # not scaled, turned or bent


@pytest.fixture(scope="module")
def head() -> Head:
    return anatomies.head()


@pytest.fixture(scope="module")
def plain(head: Head) -> PosedHead:
    return pose(head, CLEAR, Seeds.all(1), AS_IT_LIES)


def grid(half_mm: float, step_mm: float, middle_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Places around a middle, LPS mm, (..., 3) x y z."""
    run = np.arange(-half_mm, half_mm + step_mm / 2, step_mm)
    z, y, x = np.meshgrid(run, run, run, indexing="ij")
    places: NDArray[np.float64] = np.stack([x, y, z], axis=-1) + np.array(middle_mm)
    return places


def of_kind(posed: PosedHead, kind: Tissue, places: NDArray[np.float64]) -> Tensor:
    """How much of each place is of a tissue of the whole head, 0-1."""
    mask = torch.from_numpy(posed.head.tissue == kind).float()[None]
    return values(mask, posed.look_up(places).reshape(1, -1, 3))


def found(posed: PosedHead, side: str, moved: Tensor) -> tuple[Tensor, Tensor]:
    return shares(posed, side, segment_masks(posed.sides[side]), moved)


def pallidum_mm3(posed: PosedHead, side: str) -> float:
    step_mm = 0.6
    middle = (SIDEWAYS_MM if side == "left" else -SIDEWAYS_MM, 0.0, 0.0)
    return (
        float(torch.stack(found(posed, side, posed.look_up(grid(18.0, step_mm, middle)))).sum()) * step_mm**3
    )


def test_a_head_that_is_not_moved_lies_with_its_origin_between_the_pallida(plain: PosedHead) -> None:
    places = np.array([[SIDEWAYS_MM, 0, 0], [-SIDEWAYS_MM, 0, 0], [10.0, 5.0, -3.0]])

    looked_up = plain.look_up(places)

    expected = torch.tensor([[0, 0, SIDEWAYS_MM], [0, 0, -SIDEWAYS_MM], [-3.0, 5.0, 10.0]])
    assert torch.allclose(looked_up, expected, atol=0.05)  # the scale follows the voxels of the pallida


def test_each_box_holds_its_own_side_and_the_right_one_is_mirrored(plain: PosedHead) -> None:
    lateral_to_left, lateral_to_right = torch.tensor([[0.0, 0, 23], [0, 0, -23]])
    both = torch.stack([lateral_to_left, lateral_to_right])

    left, in_left = plain.in_box("left", both)
    right, in_right = plain.in_box("right", both)

    assert in_left.tolist() == [True, False]
    assert in_right.tolist() == [False, True]
    assert left[0].tolist() == pytest.approx([0, 0, 3 / BOX_SPACING_MM], abs=1e-4)
    assert right[1].tolist() == pytest.approx([0, 0, 3 / BOX_SPACING_MM], abs=1e-4)


def test_no_place_belongs_to_both_sides(plain: PosedHead) -> None:
    places = torch.from_numpy(grid(24.0, 2.0, (0.0, 0.0, 0.0)).astype(np.float32)).flip(-1)

    left, right = (plain.in_box(side, places)[1] for side in ("left", "right"))

    assert left.any()
    assert right.any()
    assert not (left & right).any()


@pytest.mark.parametrize("asked_mm3", [1300.0, 2200.0])
def test_pallida_are_scaled_to_the_volume_that_was_drawn(head: Head, asked_mm3: float) -> None:
    posed = pose(head, CLEAR, Seeds.all(1), replace(AS_IT_LIES, pallidum_mm3=(asked_mm3, asked_mm3)))

    for side in ("left", "right"):
        assert pallidum_mm3(posed, side) == pytest.approx(asked_mm3, rel=0.02)


def test_each_pallidum_of_an_uneven_head_gets_a_volume_of_its_own(head: Head) -> None:
    left = head.sides["left"]
    tissue = left.tissue.copy()
    outer = np.argwhere(tissue == Tissue.GPE)
    tissue[tuple(outer[np.abs(outer[:, 1] - tissue.shape[1] / 2) > 11].T)] = Tissue.WHITE_MATTER
    uneven = replace(head, sides={**head.sides, "left": replace(left, tissue=tissue)})
    asked = replace(AS_IT_LIES, pallidum_mm3=(1700.0, 1700.0))

    posed = pose(uneven, CLEAR, Seeds.all(1), asked)

    assert (tissue == Tissue.GPE).sum() < 0.85 * (left.tissue == Tissue.GPE).sum()
    for side in ("left", "right"):
        assert pallidum_mm3(posed, side) == pytest.approx(1700.0, rel=0.04)


def test_a_head_is_not_scaled_further_than_a_skull_can_follow(head: Head) -> None:
    posed = pose(head, CLEAR, Seeds.all(1), replace(AS_IT_LIES, pallidum_mm3=(9000.0, 9000.0)))

    assert np.linalg.det(posed.inverse) == pytest.approx(1.22**-3)


def test_the_same_seeds_pose_alike_and_each_seed_has_its_part(head: Head) -> None:
    settings = DrawSettings()
    first, again = (pose(head, CLEAR, Seeds.all(1), settings) for _ in range(2))
    bordered = pose(head, CLEAR, Seeds(shape=1, border=2, image=1), settings)
    shaped = pose(head, CLEAR, Seeds(shape=2, border=1, image=1), settings)
    imaged = pose(head, CLEAR, Seeds(shape=1, border=1, image=2), settings)

    def same(a: PosedHead, b: PosedHead) -> tuple[bool, bool]:
        shape = bool(np.array_equal(a.inverse, b.inverse) and torch.equal(a.bend_mm, b.bend_mm))
        return shape, all(torch.equal(a.sides[s].labels, b.sides[s].labels) for s in a.sides)

    assert same(first, again) == (True, True)
    assert same(first, bordered) == (True, False)
    assert same(first, shaped) == (False, True)
    assert same(first, imaged) == (True, True)


def test_another_border_leaves_the_outline_as_it_is(head: Head) -> None:
    first, other = (
        pose(head, CLEAR, Seeds(shape=1, border=border, image=1), DrawSettings()) for border in (1, 2)
    )

    for side in ("left", "right"):
        assert torch.equal(first.sides[side].labels > 0, other.sides[side].labels > 0)
        assert int((first.sides[side].labels != other.sides[side].labels).sum()) > 100


def test_the_two_sides_have_borders_of_their_own(head: Head) -> None:
    posed = pose(head, CLEAR, Seeds.all(1), DrawSettings())

    assert not torch.equal(posed.sides["left"].labels, posed.sides["right"].labels)


def test_an_atlas_that_is_named_gives_its_border_as_it_is(head: Head) -> None:
    first, other = (
        pose(head, CLEAR, Seeds(shape=1, border=border, image=1), DrawSettings(), border="cit168")
        for border in (1, 2)
    )

    for side, anatomy in head.sides.items():
        inside = anatomy.tissue == Tissue.GPE
        expected = np.where(inside, np.where(anatomy.border["cit168"] > 0, GPI, GPE), 0)
        assert np.array_equal(first.sides[side].labels.numpy(), expected)
        assert torch.equal(first.sides[side].labels, other.sides[side].labels)


def test_wider_ventricles_hold_more_fluid_and_leave_the_pallida_their_size(head: Head) -> None:
    narrow, wide = (
        pose(head, replace(CLEAR, ventricle_mm=amount), Seeds.all(1), AS_IT_LIES) for amount in (0.0, 3.0)
    )
    places = grid(26.0, 1.0, (0.0, 0.0, 0.0))
    fluid = [float(of_kind(posed, Tissue.CSF, places).sum()) for posed in (narrow, wide)]
    pallida = [pallidum_mm3(posed, "left") for posed in (narrow, wide)]

    assert fluid[1] > 1.15 * fluid[0]
    assert pallida[1] == pytest.approx(pallida[0], rel=0.06)


def test_a_bend_moves_places_by_about_as_much_as_was_asked(head: Head) -> None:
    posed = pose(head, CLEAR, Seeds.all(3), replace(AS_IT_LIES, elastic_mm=2.0))
    places = grid(24.0, 3.0, (0.0, 0.0, 0.0))

    moved = (posed.look_up(places) - torch.from_numpy(places[..., ::-1].astype(np.float32))).norm(dim=-1)

    assert 0.1 < float(moved.mean()) < 3.0


def test_a_plane_is_looked_up_as_its_places_are_one_by_one(head: Head) -> None:
    posed = pose(head, replace(CLEAR, ventricle_mm=2.0), Seeds.all(3), DrawSettings())
    affine = _axial((5, 60, 70), (2.0, 0.8, 0.8)).affine
    places = plane(affine, 2.5, np.arange(60), np.arange(70))

    difference = (look_up_plane(posed, places) - posed.look_up(places)).norm(dim=-1)

    assert float(difference.mean()) < 0.1
    assert float(difference.max()) < 0.5


def test_a_plane_between_slices_lies_between_them() -> None:
    affine = _axial((5, 4, 6), (2.0, 0.5, 0.5)).affine

    here, between, there = (plane(affine, k, np.arange(4), np.arange(6)) for k in (1, 1.5, 2))

    assert here.shape == (4, 6, 3)
    assert np.allclose(between, (here + there) / 2)
    assert np.allclose(there - here, [0, 0, 2.0])
    assert np.allclose(here[0, 1] - here[0, 0], [0.5, 0, 0])  # along a row x grows


@pytest.mark.parametrize(("subslices", "expected"), [(1, 1.0), (2, 0.5), (4, 0.5)])
def test_a_slice_is_the_mean_over_its_thickness(subslices: int, expected: float) -> None:
    geometry = _axial((3, 4, 5), (2.0, 1.0, 1.0))
    surface_mm = 1e-3  # just above the middle slice's middle: half of the slice is below

    voxels = over_slices(
        geometry, subslices, lambda lps_mm: torch.from_numpy(lps_mm[..., 2] < surface_mm).float()
    )

    assert voxels.dtype == np.float32
    assert voxels[:, 0, 0].tolist() == [1.0, expected, 0.0]


def test_shares_of_a_place_are_those_of_its_side(plain: PosedHead) -> None:
    lateral, medial, outside = (torch.tensor([[0.0, 0.0, x]]) for x in (22.5, 15.5, 30.0))

    assert found(plain, "left", lateral)[0] == pytest.approx(1, abs=1e-4)
    assert found(plain, "left", medial)[1] == pytest.approx(1, abs=1e-4)
    assert found(plain, "right", -medial)[1] == pytest.approx(1, abs=1e-4)
    for side, place in (("left", outside), ("left", -medial), ("right", medial)):
        assert not torch.stack(found(plain, side, place)).any()


def test_a_split_pallidum_is_gpi_where_the_border_is_positive() -> None:
    tissue = torch.full((4, 4, 4), int(Tissue.GPE), dtype=torch.uint8)
    tissue[0] = Tissue.PUTAMEN
    border = torch.arange(4.0).expand(4, 4, 4) - 1.5

    divided = split(tissue, border)

    assert divided.labels[1, 1].tolist() == [GPE, GPE, GPI, GPI]
    assert divided.tissue[1, 1].tolist() == [Tissue.GPE, Tissue.GPE, Tissue.GPI, Tissue.GPI]
    assert not divided.labels[0].any()
    assert not divided.lamina[0].any()
    assert divided.lamina[1, 1].argsort(descending=True)[:2].sort().values.tolist() == [1, 2]


def _axial(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> hd.VolumeGeometry:
    """Slices up, rows back, columns to the left, around the origin."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing_mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[3, 3] = 1
    return hd.VolumeGeometry(affine=affine, spatial_shape=shape, coordinate_system="PATIENT")
