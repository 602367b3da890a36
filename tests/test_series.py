import time
from dataclasses import replace
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from gpnet_node.errors import (
    NotAVolumeError,
)
from gpnet_node.imaging.series import (
    Stack,
    choose,
    read_headers,
    refuse_mixed_patients,
    sort,
    split,
)
from tests.factories import AXIAL, CORONAL, SAGITTAL, enhanced_mr, mr_series, uid_of


def two_series_in_one(folder: Path, **second: Any) -> list[Path]:  # noqa: ANN401
    """Two acquisitions at the same positions under one SeriesInstanceUID."""
    first = mr_series(folder / "a")
    other = mr_series(folder / "b", **second)
    return [path for pair in zip(first, other, strict=True) for path in pair]


def test_interleaved_echoes_are_two_volumes_and_the_longer_echo_is_chosen(tmp_path: Path) -> None:
    stacks = split(read_headers(two_series_in_one(tmp_path, EchoNumbers=2, EchoTime=90.0)))

    assert [len(stack.frames) for stack in stacks] == [10, 10]
    assert choose(stacks).frames[0].echo_time_ms == 90.0


@pytest.mark.parametrize(
    "phase",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
        {"ComplexImageComponent": "PHASE"},
    ],
)
def test_magnitude_is_chosen_beside_phase(tmp_path: Path, phase: dict[str, Any]) -> None:
    stacks = split(read_headers(two_series_in_one(tmp_path, EchoTime=99.0, **phase)))

    assert choose(stacks).frames[0].echo_time_ms == 60.0


def test_magnitude_is_chosen_beside_phase_where_only_the_private_type_of_ge_tells_them_apart(
    tmp_path: Path,
) -> None:
    paths = two_series_in_one(tmp_path)
    for path in paths:
        dataset = dcmread(path)
        dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(
            0x2F, "SS", int(path.parent.name == "b")
        )
        dataset.save_as(path)

    stacks = split(read_headers(paths))

    assert len(stacks) == 2
    assert {frame.source.path.parent.name for frame in choose(stacks).frames} == {"a"}


def test_the_first_of_repeated_acquisitions_is_chosen(tmp_path: Path) -> None:
    stacks = split(read_headers(two_series_in_one(tmp_path, AcquisitionNumber=2)[::-1]))

    assert len(stacks) == 2
    assert choose(stacks).frames[0].number("AcquisitionNumber") == 1


def test_temporal_positions_of_one_instance_are_separate_volumes(tmp_path: Path) -> None:
    order = [0, 1, 2, 3, 0, 1, 2, 3]

    stacks = split(
        read_headers(
            [enhanced_mr(tmp_path, slices=4, order=order, TemporalPositionIndex=lambda f: f // 4 + 1)]
        )
    )

    assert [[f.source.frame_number for f in stack.frames] for stack in stacks] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert choose(stacks) is stacks[0]


def test_the_lowest_b_value_is_chosen(tmp_path: Path) -> None:
    stacks = split(read_headers(two_series_in_one(tmp_path, DiffusionBValue=1000.0)))

    assert choose(stacks).frames[0].number("DiffusionBValue") is None


def test_repeated_positions_that_no_attribute_tells_apart_are_refused(tmp_path: Path) -> None:
    (stack,) = split(read_headers(two_series_in_one(tmp_path)))

    with pytest.raises(NotAVolumeError, match=r"two images at -5\.00 mm: .*, and 9 more"):
        sort(stack)


def test_one_slice_sent_again_with_another_acquisition_number_is_a_duplicate_and_not_a_volume(
    tmp_path: Path,
) -> None:
    again = mr_series(tmp_path / "again", AcquisitionNumber=2)[4]

    (stack,) = split(read_headers([*mr_series(tmp_path), again]))

    with pytest.raises(NotAVolumeError, match=r"two images at -1\.00 mm"):
        sort(stack)


def test_a_localizer_of_three_orientations_is_refused_by_name(tmp_path: Path) -> None:
    planes = [AXIAL, CORONAL, SAGITTAL]
    paths = [
        path
        for number, plane in enumerate(planes)
        for path in mr_series(tmp_path / str(number), slices=3, orientation=plane)
    ]

    stacks = split(read_headers(paths))

    assert len(stacks) == 3
    with pytest.raises(NotAVolumeError, match="mixes orientations"):
        choose(stacks)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"rows": 8}, r"mixes matrices: .* has 16 x 12, .* has 8 x 12"),
        ({"spacing_mm": (1.0, 0.5, 0.5)}, "mixes pixel spacings"),
        ({"orientation": CORONAL}, "mixes orientations"),
        ({"FrameOfReferenceUID": "1.2.3"}, "mixes frames of reference"),
    ],
)
def test_one_slice_on_another_grid_is_refused_with_both_images(
    tmp_path: Path, odd: dict[str, Any], words: str
) -> None:
    paths = mr_series(tmp_path)
    paths[4] = mr_series(tmp_path / "odd", **odd)[4]

    with pytest.raises(NotAVolumeError, match=words) as caught:
        choose(split(read_headers(paths)))

    assert uid_of(paths[4]) in str(caught.value)


def test_thousands_of_orientations_are_told_apart_in_seconds_not_minutes(tmp_path: Path) -> None:
    (frame,) = read_headers(mr_series(tmp_path, slices=1))
    angles = [2 * pi * number / 8000 for number in range(8000)]
    fan = [replace(frame, orientation=(cos(a), sin(a), 0.0, -sin(a), cos(a), 0.0)) for a in angles]

    began = time.process_time()
    stacks = split([*fan, *fan])

    assert time.process_time() - began < 20
    assert [len(stack.frames) for stack in stacks] == [2] * 8000


def test_a_mixed_stack_put_together_by_hand_is_refused_too(tmp_path: Path) -> None:
    frames = read_headers([*mr_series(tmp_path), *mr_series(tmp_path / "odd", orientation=CORONAL)])

    with pytest.raises(NotAVolumeError, match="mixes orientations"):
        sort(Stack(frames=frames))


def test_two_series_in_one_folder_are_refused_with_both_uids(tmp_path: Path) -> None:
    paths = [*mr_series(tmp_path / "a", series="1"), *mr_series(tmp_path / "b", series="2")]

    with pytest.raises(NotAVolumeError, match=r"belong to 2 series: 1\.2\..*, 1\.2\."):
        choose(split(read_headers(paths)))


def test_a_kind_of_image_that_is_no_code_is_not_repeated(tmp_path: Path) -> None:
    paths = [
        path
        for name in ("Jansen", "Piet")
        for path in mr_series(
            tmp_path / name, series="1", ImageType=["ORIGINAL", "PRIMARY", name], StackID=name
        )
    ]

    with pytest.raises(NotAVolumeError, match="of equal rank") as refused:
        choose(split(read_headers(paths)))

    assert "image type (no code)" in str(refused.value)
    assert "stack (no code)" in str(refused.value)
    assert not {"Jansen", "Piet"} & set(str(refused.value).replace(",", " ").split())


def test_nothing_to_choose_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotAVolumeError, match="no image"):
        choose(split(read_headers([])))


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID"])
@pytest.mark.parametrize(
    "make", [mr_series, lambda *a, **k: [enhanced_mr(*a, **k)]], ids=["classic", "enhanced"]
)
def test_images_of_two_patients_or_studies_are_told_by_number_and_uid_and_never_by_name(
    tmp_path: Path,
    keyword: str,
    make: Any,  # noqa: ANN401
) -> None:
    values = {"PatientBirthDate": "19700101", "StudyInstanceUID": "1.2.99"}
    corrected = values.get(keyword, "Corrected")
    paths = [*mr_series(tmp_path / "a", slices=4), *make(tmp_path / "b", slices=1, **{keyword: corrected})]

    with pytest.raises(NotAVolumeError, match="2 patients or studies: 1 of 5 differ") as caught:
        refuse_mixed_patients(read_headers(paths))

    assert uid_of(paths[-1]) in str(caught.value)
    assert corrected not in str(caught.value)
