import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import LegacyConvertedEnhancedMRImageStorage

from gpnet_node.errors import (
    MissingSlicesError,
    NotAVolumeError,
)
from gpnet_node.imaging.frames import Frame
from gpnet_node.imaging.grid import grid_numbers, same_grid
from gpnet_node.imaging.series import (
    SortedStack,
    Stack,
    read_headers,
    sort,
    split,
)
from gpnet_node.imaging.volume import assemble
from tests.factories import AXIAL, CORONAL, SAGITTAL, enhanced_mr, mr_series, rewrite, slice_position, uid_of

PATIENT_POSITIONS = ("HFS", "HFP", "HFDL", "HFDR", "FFS", "FFP", "FFDL", "FFDR")


def only_stack(paths: list[Path]) -> Stack:
    (stack,) = split(read_headers(paths))
    return stack


def sorted_from(paths: list[Path]) -> SortedStack:
    return sort(only_stack(paths))


def moved(path: Path, by_mm: tuple[float, float, float]) -> Path:
    position = [float(x) + d for x, d in zip(dcmread(path).ImagePositionPatient, by_mm, strict=True)]
    return rewrite(path, ImagePositionPatient=position)


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    """Row and column of a random rotation, by a unit quaternion."""
    parts = [draw(st.floats(-1, 1, allow_nan=False)) for _ in range(4)]
    length = math.sqrt(sum(x * x for x in parts))
    w, x, y, z = (q / length for q in parts) if length > 0.1 else (1.0, 0.0, 0.0, 0.0)
    row = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    column = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    return tuple(round(value, 9) for value in (*row, *column))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 7), st.integers(-9, 9), st.sampled_from([0.25, 0.999, 1.0, 1.001, 1.7])),
        max_size=30,
    )
)
def test_each_frame_lies_on_the_first_grid_that_it_could_share_a_volume_with(
    one_frame: Frame, steps: list[tuple[int, int, float]]
) -> None:
    frames = [_nudged(one_frame, *step) for step in steps]

    firsts: list[Frame] = []
    expected = []
    for frame in frames:
        number = next((n for n, first in enumerate(firsts) if same_grid(first, frame)), len(firsts))
        firsts += [frame] if number == len(firsts) else []
        expected.append(number)
    assert grid_numbers(frames) == expected


@pytest.fixture(scope="module")
def one_frame(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    (frame,) = read_headers(mr_series(tmp_path_factory.mktemp("frame"), slices=1))
    return frame


def _nudged(frame: Frame, measure: int, times: int, tolerances: float) -> Frame:
    """Another cosine or pixel spacing, by so many times so many tolerances."""
    by = times * tolerances * 1e-4
    if measure < 6:
        cosines = list(frame.orientation)
        cosines[measure] += by
        a, b, c, d, e, f = cosines
        return replace(frame, orientation=(a, b, c, d, e, f))
    rows, columns = frame.spacing_mm
    return replace(
        frame, spacing_mm=(rows * (1 + by), columns) if measure == 6 else (rows, columns * (1 + by))
    )


spacings = st.tuples(st.floats(0.3, 5), st.floats(0.2, 2), st.floats(0.2, 2)).map(
    lambda spacing: (round(spacing[0], 3), round(spacing[1], 3), round(spacing[2], 3))
)
origins = st.tuples(*[st.floats(-300, 300).map(lambda mm: round(mm, 3))] * 3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    orientation=orientations(),
    spacing_mm=spacings,
    origin_mm=origins,
    position=st.sampled_from(PATIENT_POSITIONS),
    seed=st.integers(0, 1000),
    enhanced=st.booleans(),
)
def test_a_point_of_the_patient_is_found_in_the_voxel_where_it_was_put(
    tmp_path: Path,
    orientation: tuple[float, ...],
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float],
    position: str,
    seed: int,
    enhanced: bool,
) -> None:
    chance = random.Random(seed)
    place = (chance.randrange(5), chance.randrange(7), chance.randrange(6))
    voxels = np.zeros((5, 7, 6), dtype=np.uint16)
    voxels[place] = 1000
    form: dict[str, Any] = {"spacing_mm": spacing_mm, "orientation": orientation, "origin_mm": origin_mm}
    form |= {"voxels": voxels, "PatientPosition": position, "series": str(chance.random())}
    order = chance.sample(range(5), 5)
    if enhanced:
        files = [enhanced_mr(tmp_path, order=order, **form)]
    else:
        written = mr_series(tmp_path, **form)
        files = [written[index] for index in order]
    # PS3.3 C.7.6.2.1.1: first voxel of its slice, then along the row by columns, along the column by rows.
    start = slice_position(place[0], orientation=orientation, origin_mm=origin_mm, spacing_mm=spacing_mm)
    expected = (
        np.array(start)
        + np.array(orientation[:3]) * spacing_mm[2] * place[2]
        + np.array(orientation[3:]) * spacing_mm[1] * place[1]
    )

    volume = assemble(only_stack(files))

    brightest = np.unravel_index(int(volume.voxels.argmax()), volume.voxels.shape)
    found = volume.geometry.affine @ [*brightest, 1]
    assert np.allclose(found[:3], expected, atol=1e-4)
    assert [int(index) for index in brightest] == list(place)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orientation=orientations(), spacing_mm=spacings, origin_mm=origins, lost=st.integers(1, 8))
def test_a_missing_slice_is_named_with_its_position_in_any_orientation(
    tmp_path: Path,
    orientation: tuple[float, ...],
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float],
    lost: int,
) -> None:
    form: dict[str, Any] = {"spacing_mm": spacing_mm, "orientation": orientation, "origin_mm": origin_mm}
    paths = mr_series(tmp_path, rows=2, columns=2, **form)
    normal = np.cross(orientation[:3], orientation[3:])
    expected = float(dcmread(paths[lost]).ImagePositionPatient @ normal)
    left = [path for index, path in enumerate(paths) if index != lost]
    random.Random(lost).shuffle(left)

    with pytest.raises(MissingSlicesError, match=r"misses 1 of 10 slices") as caught:
        sorted_from(left)

    assert caught.value.positions_mm == pytest.approx([expected], abs=0.01)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL])
@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_slices_ascend_along_the_normal_whatever_the_names_and_the_patient_position(
    tmp_path: Path, orientation: tuple[float, ...], position: str
) -> None:
    paths = mr_series(
        tmp_path, orientation=orientation, PatientPosition=position, InstanceNumber=lambda index: 10 - index
    )

    stack = sorted_from([*paths[5:], *paths[:5][::-1]])

    assert [frame.source.path for frame in stack.frames] == paths
    assert np.allclose(stack.normal, np.cross(orientation[:3], orientation[3:]))


def test_spacing_comes_from_all_positions_and_not_from_the_first_two(tmp_path: Path) -> None:
    def rounded(index: int) -> list[float]:
        return [0.0, 0.0, round(index * 1.0333, 2)]

    stack = sorted_from(mr_series(tmp_path, slices=31, rows=2, columns=2, ImagePositionPatient=rounded))

    assert stack.spacing_mm == pytest.approx(1.0333, abs=2e-4)


def test_every_second_slice_missing_is_not_taken_for_thick_steps(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=9)

    with pytest.raises(MissingSlicesError, match="misses 4 of 9 slices") as caught:
        sorted_from(paths[::2])

    assert caught.value.positions_mm == pytest.approx([-4, -2, 0, 2])


def test_a_stated_gap_between_slices_is_not_taken_for_their_distance(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, spacing_mm=(4.0, 1, 1), SliceThickness=3.0, SpacingBetweenSlices=1.0)

    assert sorted_from(paths).spacing_mm == pytest.approx(4)


def test_several_missing_slices_are_all_named(tmp_path: Path) -> None:
    paths = mr_series(tmp_path)

    with pytest.raises(
        MissingSlicesError, match=r"misses 3 of 10 slices, at -3.00, -2.00, 2.00 mm"
    ) as caught:
        sorted_from([path for index, path in enumerate(paths) if index not in (2, 3, 7)])

    assert caught.value.positions_mm == pytest.approx([-3, -2, 2])


def test_uneven_spacing_is_named_with_both_images(tmp_path: Path) -> None:
    paths = mr_series(tmp_path)
    moved(paths[4], (0, 0, 0.4))

    with pytest.raises(NotAVolumeError, match=r"unevenly spaced: (1\.4|0\.6)00 mm") as caught:
        sorted_from(paths)

    assert uid_of(paths[4]) in str(caught.value)


def test_a_duplicate_position_is_named_with_both_images(tmp_path: Path) -> None:
    paths = mr_series(tmp_path)
    moved(paths[4], (0, 0, -1.0))

    with pytest.raises(NotAVolumeError, match=r"two images at -2\.00 mm") as caught:
        sorted_from(paths)

    assert uid_of(paths[4]) in str(caught.value)
    assert uid_of(paths[3]) in str(caught.value)


def test_a_sheared_stack_is_refused_with_its_drift(tmp_path: Path) -> None:
    tilted = mr_series(tmp_path, ImagePositionPatient=lambda index: [0.0, 0.1 * index, float(index)])

    with pytest.raises(NotAVolumeError, match=r"is sheared: .* lies 0\.90 mm beside"):
        sorted_from(tilted)


def test_one_image_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(NotAVolumeError, match="one image only"):
        sorted_from(mr_series(tmp_path, slices=1))


def test_frames_of_a_multi_frame_instance_stand_in_the_order_of_their_positions(tmp_path: Path) -> None:
    order = [3, 0, 4, 1, 2]

    stack = sorted_from([enhanced_mr(tmp_path, slices=5, order=order)])

    assert [frame.source.frame_number for frame in stack.frames] == [2, 4, 5, 1, 3]


def test_a_legacy_converted_series_is_read_with_the_attributes_it_kept_aside(tmp_path: Path) -> None:
    path = enhanced_mr(
        tmp_path, sop_class=LegacyConvertedEnhancedMRImageStorage, EffectiveEchoTime=None, RepetitionTime=None
    )
    dataset = dcmread(path)
    kept = Dataset()
    kept.EchoTime = 77.0
    dataset.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence = [kept]
    dataset.save_as(path)

    stack = sorted_from([path])

    assert stack.frames[0].echo_time_ms == 77.0
