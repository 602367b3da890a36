import numpy as np

from tests.drawn import drawn_head


def test_truth_lies_on_the_grid_with_each_side_on_its_side() -> None:
    head = drawn_head()
    affine = np.asarray(head.geometry.affine)

    for number, sign in ((1, 1), (2, 1), (3, -1), (4, -1)):
        centre = affine[:3, :3] @ np.argwhere(head.labels == number).mean(0) + affine[:3, 3]
        assert 8 < sign * centre[0] < 35  # mm; LPS: left is positive


def test_gpi_lies_medial_and_behind_gpe() -> None:
    head = drawn_head()
    affine = np.asarray(head.geometry.affine)

    for gpe, gpi in ((1, 2), (3, 4)):
        a, b = (affine[:3, :3] @ np.argwhere(head.labels == n).mean(0) + affine[:3, 3] for n in (gpe, gpi))
        assert abs(b[0]) < abs(a[0])
        assert b[2] < a[2]


def test_the_pallidum_is_dark_on_t2() -> None:
    head = drawn_head()

    pallidum = head.voxels[head.labels > 0]
    near = head.voxels[:, 60:160, 60:160]

    assert pallidum.mean() < 0.75 * near[near > 0].mean()


def test_volumes_are_those_of_a_pallidum() -> None:
    head = drawn_head()
    voxel_mm3 = float(np.prod(head.geometry.spacing))

    for sides in ((1, 2), (3, 4)):
        assert 1100 < np.isin(head.labels, sides).sum() * voxel_mm3 < 2600


def test_signal_fits_twelve_bits() -> None:
    head = drawn_head()

    assert float(head.voxels.min()) >= 0
    assert float(head.voxels.max()) <= 4095
