import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gpnet_node.results.mesh import Mesh, enclose, volume_and_centre

AFFINE = np.array([[0, 0, 0.5, -9], [0, 0.4, 0, 3], [1.5, 0, 0, 40], [0, 0, 0, 1.0]])
MIRRORED = AFFINE @ np.diag([1, 1, -1, 1])


def edges(mesh: Mesh) -> NDArray[np.intp]:
    return np.concatenate([mesh.triangles[:, [one, (one + 1) % 3]] for one in range(3)])


def area(mesh: Mesh) -> float:
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


@settings(max_examples=40, deadline=None)
@given(
    mask=arrays(bool, st.tuples(*[st.integers(1, 6)] * 3), fill=st.nothing()),
    affine=st.sampled_from([AFFINE, MIRRORED]),
)
def test_the_mesh_of_any_mask_is_closed_and_has_its_volume_and_centre(
    mask: NDArray[np.bool_], affine: NDArray[np.float64]
) -> None:
    mesh = enclose(mask, affine)

    there = {tuple(edge) for edge in edges(mesh).tolist()}
    assert len(there) == len(edges(mesh))
    assert there == {(end, start) for start, end in there}
    assert len(np.unique(mesh.vertices.astype(np.float32), axis=0)) == len(mesh.vertices)
    if mask.any():
        volume, centre = volume_and_centre(mesh.vertices, mesh.triangles)
        assert volume == pytest.approx(mask.sum() * 0.3, rel=1e-6)
        assert centre == pytest.approx((affine @ [*np.argwhere(mask).mean(axis=0), 1])[:3], abs=1e-6)


def test_a_mesh_is_smooth_across_thick_slices() -> None:
    radii = np.array([6.0, 8.0, 11.0])  # mm, along slices, rows and columns
    index = np.moveaxis(np.indices((12, 50, 60)), 0, -1)
    spacing = np.array([1.5, 0.4, 0.5])
    mask = (((index * spacing - [8.3, 10.1, 14.9]) / radii) ** 2).sum(axis=-1) < 1

    mesh = enclose(mask, AFFINE)

    p = 1.6075  # Thomsen's formula, good to 1.1 %
    x, y, z = radii.tolist()
    ellipsoid = 4 * np.pi * (((x * y) ** p + (x * z) ** p + (y * z) ** p) / 3) ** (1 / p)
    assert area(mesh) == pytest.approx(ellipsoid, rel=0.02)  # the voxels' faces have half as much again
    place = (mesh.vertices - AFFINE[:3, 3])[:, ::-1] - [8.3, 10.1, 14.9]
    off_mm = np.abs(np.linalg.norm(place / radii, axis=1) - 1) * radii.min()
    assert off_mm.mean() < 0.15


def test_parts_far_apart_keep_their_own_volume_and_place() -> None:
    mask = np.zeros((6, 40, 40), dtype=bool)
    mask[1:5, 2:12, 2:12] = True
    mask[3, 35, 36] = True

    mesh = enclose(mask, np.eye(4))

    far = mesh.vertices[mesh.triangles][:, 0, 1] > 20
    volume, centre = volume_and_centre(*_apart(mesh, far))
    assert volume == pytest.approx(1)
    assert centre == pytest.approx([3, 35, 36])


def _apart(mesh: Mesh, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    numbers, triangles = np.unique(mesh.triangles[chosen], return_inverse=True)
    return mesh.vertices[numbers], triangles.reshape(-1, 3)


def test_a_cavity_is_left_out() -> None:
    mask = np.ones((7, 7, 7), dtype=bool)
    mask[3, 3, 3] = False

    mesh = enclose(mask, np.eye(4))

    assert volume_and_centre(mesh.vertices, mesh.triangles)[0] == pytest.approx(342)
    assert np.linalg.norm(mesh.vertices - 3, axis=1).min() < 1


def test_an_empty_mask_has_no_triangles() -> None:
    mesh = enclose(np.zeros((3, 3, 3), dtype=bool), np.eye(4))

    assert mesh.triangles.shape == (0, 3)
    assert mesh.vertices.shape == (0, 3)
