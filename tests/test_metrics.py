import numpy as np
import pytest
from numpy.typing import NDArray

from gpnet_node.model.drawing.synthesise import GPE, GPI
from gpnet_node.model.evaluation.metrics import compare, dice, interface_distance_mm

FINE = (0.390625,) * 3
SIZE = 48


def _cube(*, sideways: int = 0, down: int = 0, border: int = 24) -> NDArray[np.uint8]:
    """A block of 24 voxels: GPi below ``border`` along x, GPe from there on."""
    labels = np.zeros((SIZE, SIZE, SIZE), np.uint8)
    labels[12 + down : 36 + down, 12:36, 12 + sideways : border] = GPI
    labels[12 + down : 36 + down, 12:36, border : 36 + sideways] = GPE
    return labels


def _ball(radius_mm: float, spacing_mm: tuple[float, ...] = FINE) -> NDArray[np.uint8]:
    """A ball of GPe with a core of GPi, 4 mm smaller."""
    axes = [(np.arange(round(40 / s)) - 20 / s) * s for s in spacing_mm]
    from_centre = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    labels = np.where(from_centre <= radius_mm, GPE, 0).astype(np.uint8)
    labels[from_centre <= radius_mm - 4] = GPI
    return labels


def test_what_agrees_is_perfect() -> None:
    for metrics in compare(_cube(), _cube(), FINE).values():
        assert (metrics.dice, metrics.precision, metrics.recall) == (1.0, 1.0, 1.0)
        assert (metrics.hd95_mm, metrics.surface_mm, metrics.interface_mm, metrics.centre_mm) == (0, 0, 0, 0)
        assert metrics.volume_error_mm3 == 0


def test_a_shift_of_one_millimetre_is_told_as_one_millimetre() -> None:
    moved = np.roll(_cube(), 2, axis=2)  # voxels of 0.5 mm

    metrics = compare(moved, _cube(), (0.5, 0.5, 0.5))["GPe"]

    assert metrics.centre_mm == pytest.approx(1.0)
    assert (metrics.centre_x_mm, metrics.centre_y_mm, metrics.centre_z_mm) == pytest.approx((1.0, 0.0, 0.0))
    assert metrics.hd95_mm == pytest.approx(1.0)
    assert metrics.dice == pytest.approx(10 / 12)
    assert metrics.interface_mm == pytest.approx(1.0, abs=0.02)
    assert 0 < metrics.surface_mm < 1.0  # four of six faces slide along themselves


def test_spacing_is_taken_axis_by_axis() -> None:
    moved = np.roll(_cube(), 1, axis=0)

    metrics = compare(moved, _cube(), (2.0, 0.4, 0.4))["GPi"]

    assert (metrics.centre_x_mm, metrics.centre_y_mm, metrics.centre_z_mm) == pytest.approx((0, 0, 2.0))
    assert metrics.hd95_mm == pytest.approx(2.0)
    assert metrics.volume_mm3 == pytest.approx(12 * 24 * 24 * 2.0 * 0.16)


def test_centre_parts_are_those_of_the_patient_where_the_grid_is_turned() -> None:
    moved = np.roll(_cube(), 2, axis=0)
    sagittal = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])  # slices run to the left

    metrics = compare(moved, _cube(), (0.5, 0.5, 0.5), sagittal)["GPe"]

    assert (metrics.centre_x_mm, metrics.centre_y_mm, metrics.centre_z_mm) == pytest.approx((1.0, 0, 0))


def test_balls_are_as_far_apart_as_their_radii() -> None:
    metrics = compare(_ball(11.0), _ball(10.0), FINE)["GPi"]  # cores of 7 and of 6 mm

    assert metrics.surface_mm == pytest.approx(1.0, abs=0.1)
    assert metrics.hd95_mm == pytest.approx(1.0, abs=0.4)  # a voxel
    assert metrics.interface_mm == pytest.approx(1.0, abs=0.1)
    assert metrics.volume_mm3 == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.01)
    assert metrics.dice == pytest.approx(2 * 6**3 / (6**3 + 7**3), abs=0.01)
    assert metrics.recall == 1.0
    assert metrics.precision == pytest.approx((6 / 7) ** 3, abs=0.01)


def test_a_moved_interface_shows_though_the_outline_agrees() -> None:
    found, truth = _cube(border=26), _cube(border=24)

    assert interface_distance_mm(found, truth, (0.5, 0.5, 0.5)) == pytest.approx(1.0)
    assert dice((found > 0).astype(np.uint8), (truth > 0).astype(np.uint8), 1) == 1.0


def test_what_was_not_found_has_no_overlap_and_is_infinitely_far() -> None:
    for metrics in compare(np.zeros_like(_cube()), _cube(), FINE).values():
        assert (metrics.dice, metrics.precision, metrics.recall) == (0.0, 0.0, 0.0)
        assert np.isinf([metrics.hd95_mm, metrics.surface_mm, metrics.interface_mm, metrics.centre_mm]).all()
        assert metrics.volume_error_percent == -100


def test_a_truth_without_a_structure_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks a structure"):
        compare(_cube(), np.minimum(_cube(), GPE), FINE)
