import tracemalloc
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from gpnet_node.errors import NotAVolumeError, UnreadableInstanceError
from gpnet_node.imaging.series import Limits, choose, read_headers, split
from gpnet_node.imaging.volume import LabelMap, Volume, assemble
from tests.factories import CORONAL, enhanced_mr, mr_series, ramp


def volume_from(paths: list[Path], limits: Limits | None = None) -> Volume:
    return assemble(choose(split(read_headers(paths))), limits=limits)


@pytest.mark.parametrize("enhanced", [False, True])
def test_voxels_and_frames_stand_in_slice_order(tmp_path: Path, enhanced: bool) -> None:
    order = [4, 2, 0, 1, 3]
    if enhanced:
        paths = [enhanced_mr(tmp_path, slices=5, order=order)]
    else:
        written = mr_series(tmp_path, slices=5)
        paths = [written[index] for index in order]

    volume = volume_from(paths)

    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.voxels, ramp(5, 16, 12))
    places = [frame.frame_number or frame.path.name for frame in volume.frames]
    assert places == ([3, 4, 2, 5, 1] if enhanced else [path.name for path in sorted(written)])


def test_the_affine_takes_slice_row_column_to_patient_millimetres(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, orientation=CORONAL, spacing_mm=(2.0, 0.5, 0.25), origin_mm=(-10, 20, 30))

    volume = volume_from(paths)

    # Coronal: columns run left, rows run down, the normal points to the back.
    expected: list[list[float]] = [[0, 0, 0.25, -10], [2, 0, 0, 20], [0, -0.5, 0, 30], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.affine, expected, atol=1e-9)
    assert volume.geometry.spatial_shape == (10, 16, 12)
    assert volume.geometry.frame_of_reference_uid == dcmread(paths[0]).FrameOfReferenceUID


@pytest.mark.parametrize("enhanced", [False, True])
def test_rescale_is_applied_slice_by_slice(tmp_path: Path, enhanced: bool) -> None:
    scaled: dict[str, Any] = {"RescaleSlope": lambda index: index + 1.0, "RescaleIntercept": -100.0}
    stored = ramp(4, 16, 12)
    paths = (
        [enhanced_mr(tmp_path, slices=4, **scaled)] if enhanced else mr_series(tmp_path, slices=4, **scaled)
    )

    volume = volume_from(paths)

    assert np.allclose(volume.voxels, stored * np.arange(1, 5).reshape(4, 1, 1) - 100.0)


def test_negative_stored_values_stay_negative(tmp_path: Path) -> None:
    stored = np.arange(-60, 60, dtype=np.int16).reshape(2, 6, 10)

    assert np.array_equal(volume_from(mr_series(tmp_path, voxels=stored)).voxels, stored)


def test_stored_values_of_monochrome1_are_not_inverted(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, PhotometricInterpretation="MONOCHROME1")

    assert np.array_equal(volume_from(paths).voxels, ramp(10, 16, 12))


def test_a_rescale_slope_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAVolumeError, match="RescaleSlope 0"):
        volume_from(mr_series(tmp_path, RescaleSlope=0, RescaleIntercept=0))


def test_a_volume_beyond_the_limit_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    paths = mr_series(tmp_path)

    with pytest.raises(NotAVolumeError, match="has 10 x 16 x 12 voxels; the limit is 1000"):
        volume_from(paths, Limits(voxels=1000))


def test_a_two_gigabyte_multi_frame_is_refused_with_its_size_and_without_its_memory(tmp_path: Path) -> None:
    path = enhanced_mr(tmp_path, voxels=np.zeros((1100, 1, 1), dtype=np.uint16))
    dataset = dcmread(path)
    dataset.Rows = dataset.Columns = 1024
    del dataset.PixelData
    dataset.save_as(path)
    with path.open("r+b") as file:  # a sparse file: two gigabytes that need no disk
        end = file.seek(0, 2)
        size = 1100 * 1024 * 1024 * 2
        file.write(b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little"))
        file.truncate(end + 12 + size)

    tracemalloc.start()
    with pytest.raises(NotAVolumeError, match="has 1100 x 1024 x 1024 voxels; the limit is 268435456"):
        volume_from([path])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 100 * 2**20


def test_memory_is_bounded_by_the_volume_that_was_chosen(tmp_path: Path) -> None:
    voxels = np.zeros((64, 256, 256), dtype=np.uint16)  # four echoes of 16 slices, 8 MiB as they lie
    path = enhanced_mr(
        tmp_path,
        voxels=voxels[:16],
        order=[*range(16)] * 4,
        EffectiveEchoTime=lambda frame: 20.0 * (frame // 16 + 1),
    )
    stack = choose(split(read_headers([path])))
    del voxels

    tracemalloc.start()
    volume = assemble(stack)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert volume.voxels.nbytes == 16 * 256 * 256 * 4
    assert peak < volume.voxels.nbytes + 2 * 2**20


def test_a_file_that_shrank_after_its_header_was_read_is_unreadable(tmp_path: Path) -> None:
    paths = mr_series(tmp_path)
    stack = choose(split(read_headers(paths)))
    paths[3].write_bytes(paths[3].read_bytes()[:-20])

    with pytest.raises(UnreadableInstanceError, match="became shorter"):
        assemble(stack)


def test_parts_of_a_volume_that_do_not_fit_are_our_mistake(tmp_path: Path) -> None:
    volume = volume_from(mr_series(tmp_path))

    with pytest.raises(ValueError, match="grid"):
        Volume(voxels=volume.voxels[:-1], geometry=volume.geometry, frames=volume.frames)
    with pytest.raises(ValueError, match="grid"):
        LabelMap(labels=np.zeros((1, 2, 3), dtype=np.uint8), geometry=volume.geometry)


def test_the_geometry_is_one_that_highdicom_works_with(tmp_path: Path) -> None:
    volume = volume_from(mr_series(tmp_path))

    positions = volume.geometry.get_plane_positions()

    assert isinstance(volume.geometry, hd.VolumeGeometry)
    written = [dcmread(frame.path).ImagePositionPatient for frame in volume.frames]
    found = [position[0].ImagePositionPatient for position in positions]
    assert np.allclose(np.array(found, dtype=float), np.array(written, dtype=float))
