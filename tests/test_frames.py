import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, dcmread, dcmwrite

from gpnet_node.errors import (
    GpnetError,
    NotAVolumeError,
    StorageError,
    UnreadableInstanceError,
)
from gpnet_node.imaging.series import (
    Limits,
    SortedStack,
    Stack,
    choose,
    find_files,
    read_headers,
    sort,
    split,
)
from gpnet_node.imaging.volume import assemble
from tests.factories import enhanced_mr, mr_series, rewrite, uid_of

# 20 degrees about x, then 15 about z, in double precision.
EXACT_OBLIQUE = (
    *(math.cos(math.radians(15)), math.sin(math.radians(15)), 0.0),
    -math.sin(math.radians(15)) * math.cos(math.radians(20)),
    math.cos(math.radians(15)) * math.cos(math.radians(20)),
    math.sin(math.radians(20)),
)


def only_stack(paths: list[Path]) -> Stack:
    (stack,) = split(read_headers(paths))
    return stack


def sorted_from(paths: list[Path]) -> SortedStack:
    return sort(only_stack(paths))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"ImagePositionPatient": None}, "has no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "has no ImageOrientationPatient"),
        ({"PixelSpacing": None}, "has no PixelSpacing"),
        ({"FrameOfReferenceUID": None}, "has no FrameOfReferenceUID"),
        ({"SeriesInstanceUID": None}, "has no SeriesInstanceUID"),
        ({"StudyInstanceUID": None}, "has no StudyInstanceUID"),
        ({"StudyInstanceUID": ""}, "has no StudyInstanceUID"),
        ({"PixelData": None}, "has no pixel data"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            "colour image .3 samples per pixel, RGB",
        ),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "is a mosaic"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels; the limit is 4096"),
        ({"Rows": 0}, "0 x 12 pixels"),
        ({"NumberOfFrames": 100000}, "100000 frames; the limit is"),
        ({"NumberOfFrames": 2, "Rows": 8}, "2 frames without functional groups"),
        ({"PixelSpacing": [0.0, 1.0]}, "PixelSpacing 0 x 1 mm"),
        (
            {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
            "not two unit vectors at a right angle: a cosine is off by",
        ),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "no MR or CT image but Secondary Capture"),
    ],
)
def test_an_image_that_is_no_plane_of_a_volume_is_refused_with_its_uid(
    tmp_path: Path, attributes: dict[str, Any], words: str
) -> None:
    (path,) = mr_series(tmp_path, slices=1, **attributes)

    with pytest.raises(NotAVolumeError, match=words) as caught:
        read_headers([path])

    assert uid_of(path) in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"PixelData": b"\0" * 100}, "100 bytes of pixel data instead of 384"),
        ({"Rows": 1000}, "384 bytes of pixel data instead of 24000"),
        ({"BitsAllocated": 12}, "12 bits allocated"),
        ({"BitsStored": 17}, "17 stored"),
        ({"HighBit": 16}, "high bit 16"),
        ({"ImagePositionPatient": [1, 2]}, "holds 2 values instead of 3"),
    ],
)
def test_an_image_that_contradicts_itself_is_unreadable_with_its_uid(
    tmp_path: Path, attributes: dict[str, Any], words: str
) -> None:
    (path,) = mr_series(tmp_path, slices=1, **attributes)

    with pytest.raises(UnreadableInstanceError, match=words) as caught:
        read_headers([path])

    assert uid_of(path) in str(caught.value)


def test_a_value_of_a_wrong_vr_is_unreadable_with_uid_and_keyword(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    raw = path.read_bytes()
    at = raw.index(b"\x28\x00\x10\x00US\x02\x00")
    path.write_bytes(raw[: at + 4] + b"LO" + raw[at + 6 :])

    with pytest.raises(UnreadableInstanceError, match="Rows is not a number") as caught:
        read_headers([path])

    assert uid_of(path) in str(caught.value)


@pytest.mark.parametrize(
    "keyword", ["Rows", "SOPClassUID", "PhotometricInterpretation", "LossyImageCompression"]
)
def test_a_sequence_where_a_text_should_be_is_unreadable_with_the_keyword(
    tmp_path: Path, keyword: str
) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    data_set = dcmread(path)
    data_set[keyword] = DataElement(keyword, "SQ", [Dataset()])
    dcmwrite(path, data_set)

    with pytest.raises(UnreadableInstanceError, match=f"{keyword} cannot be read"):
        read_headers([path])


def test_colours_that_nobody_knows_are_refused_without_repeating_what_stands_there(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1, PhotometricInterpretation="DOE JOHN")

    with pytest.raises(NotAVolumeError) as caught:
        read_headers([path])

    assert "DOE" not in str(caught.value)


def test_a_position_that_is_no_number_is_unreadable(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    raw = path.read_bytes()
    at = raw.index(b"\x20\x00\x32\x00DS") + 8
    path.write_bytes(raw[:at] + b"x" * 4 + raw[at + 4 :])

    with pytest.raises(UnreadableInstanceError, match="ImagePositionPatient is not a number"):
        read_headers([path])


@pytest.mark.parametrize(
    ("cosines", "off"),
    [
        ((0.97, 0.26, 0.0, -0.24, 0.91, 0.34), r"0\.00[2-9]\d"),
        ((1.0, 0.0, 0.0, 0.003, 1.0, 0.0), r"0\.0015"),
        ((0.0, 0.0, 0.0, 0.0, 1.0, 0.0), "1"),
        ((1e200, 0.0, 0.0, 0.0, 1.0, 0.0), r"1e\+200"),
    ],
)
def test_direction_cosines_that_are_off_by_more_than_rounding_are_refused_with_uid_and_number(
    tmp_path: Path, cosines: tuple[float, ...], off: str
) -> None:
    (path,) = mr_series(tmp_path, slices=1, ImageOrientationPatient=list(cosines))

    with pytest.raises(NotAVolumeError, match=f"cosine is off by {off}, more than 0.001") as caught:
        read_headers([path])

    assert uid_of(path) in str(caught.value)


@pytest.mark.parametrize(("digits", "largest"), [(3, 1e-3), (4, 1e-4), (6, 1e-6), (9, 1e-9)])
def test_direction_cosines_become_the_nearest_unit_vectors_at_a_right_angle(
    tmp_path: Path, digits: int, largest: float
) -> None:
    written = [round(cosine, digits) for cosine in EXACT_OBLIQUE]
    (path,) = mr_series(tmp_path, slices=1, ImageOrientationPatient=written)

    (frame,) = read_headers([path])

    found = np.array(frame.orientation).reshape(2, 3)
    assert np.allclose(found @ found.T, np.eye(2), rtol=0, atol=1e-12)
    assert np.abs(found.ravel() - written).max() == pytest.approx(frame.cosines_off)
    assert frame.cosines_off <= largest


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DICM", b"PK" * 500])
def test_a_file_that_is_not_dicom_is_named_by_its_number(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(content)

    with pytest.raises((UnreadableInstanceError, NotAVolumeError), match="file 3 of 3"):
        read_headers([*mr_series(tmp_path, slices=2), broken])


def test_a_uid_with_path_characters_is_refused_without_repeating_it(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1)
    raw = path.read_bytes()
    uid = uid_of(path).encode()
    path.write_bytes(raw.replace(uid, b"../../etc/passwd".ljust(len(uid), b"x")))

    with pytest.raises(UnreadableInstanceError, match="file 1 of 1: SOPInstanceUID is not a UID") as caught:
        read_headers([path])

    assert "passwd" not in str(caught.value)


def test_a_sequence_that_ends_too_early_is_the_senders_matter(tmp_path: Path) -> None:
    path = enhanced_mr(tmp_path, slices=2)
    dataset = dcmread(path)
    dataset["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    dataset.save_as(path)
    content = path.read_bytes()
    head = content.index(b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff")
    path.write_bytes(content[: head + 16])  # within the tag of the first item

    with pytest.raises(UnreadableInstanceError, match=r"cannot be parsed \(OSError\)"):
        read_headers([path])


def test_a_frame_count_that_the_groups_do_not_bear_out_is_unreadable(tmp_path: Path) -> None:
    path = rewrite(enhanced_mr(tmp_path, slices=4), NumberOfFrames=3)

    with pytest.raises(UnreadableInstanceError, match="states 3 frames and describes 4"):
        read_headers([path])


def test_a_frame_without_a_position_is_refused_with_its_number(tmp_path: Path) -> None:
    path = enhanced_mr(
        tmp_path, ImagePositionPatient=lambda frame: None if frame == 3 else [0, 0, float(frame)]
    )

    with pytest.raises(NotAVolumeError, match="frame 4 has no ImagePositionPatient"):
        read_headers([path])


def test_more_images_than_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAVolumeError, match="more than 5 images in one series"):
        read_headers(mr_series(tmp_path), limits=Limits(frames=5))


def test_a_deflated_instance_that_inflates_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    voxels = np.zeros((1, 512, 512), dtype=np.uint16)
    paths = mr_series(tmp_path, voxels=voxels, transfer_syntax="1.2.840.10008.1.2.1.99")
    assert paths[0].stat().st_size < 5000

    with pytest.raises(NotAVolumeError, match="inflates to more than 100000 bytes"):
        read_headers(paths, limits=Limits(inflated_bytes=100_000))


def test_a_file_that_is_gone_is_the_operators_matter(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="file 1 of 1 cannot be read"):
        read_headers([tmp_path / "gone.dcm"])


def test_no_refusal_speaks_of_the_patient(tmp_path: Path) -> None:
    person: dict[str, Any] = {
        "PatientName": "Secret^Name",
        "PatientID": "SECRET",
        "AccessionNumber": "SECRET",
    }
    refused: list[Callable[[], object]] = [
        lambda: read_headers(mr_series(tmp_path / "a", slices=1, PixelData=None, **person)),
        lambda: sorted_from([path for path in mr_series(tmp_path / "b", **person) if "5" not in path.name]),
        lambda: choose(
            split(read_headers([*mr_series(tmp_path / "c"), *mr_series(tmp_path / "d", series="2")]))
        ),
    ]

    for refuse in refused:
        with pytest.raises(NotAVolumeError) as caught:
            refuse()
        assert "secret" not in str(caught.value).lower()


@pytest.mark.parametrize("make", [lambda d: mr_series(d, slices=1)[0], lambda d: enhanced_mr(d, slices=3)])
def test_a_file_cut_anywhere_is_refused_by_name_and_never_by_a_traceback(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    whole = path.read_bytes()

    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises((UnreadableInstanceError, NotAVolumeError)):
            read_headers([path])


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of what it finds damaged
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_damaged_bytes_is_read_or_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    syntax = data.draw(
        st.sampled_from(["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"])
    )
    path = enhanced_mr(tmp_path, slices=2, rows=4, columns=4, transfer_syntax=syntax)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))

    with suppress(GpnetError):  # anything else fails the test
        for stack in split(read_headers([path])):
            assemble(stack)


def test_dicom_files_are_found_below_a_folder_and_other_files_are_left_out(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "deep" / "er", slices=2)
    unnamed = paths[1].rename(paths[1].with_suffix(""))
    (tmp_path / "LICENSE").write_text("free")
    (tmp_path / "DICOMDIR").write_bytes(paths[0].read_bytes())
    (tmp_path / "short.dcm").write_bytes(b"")

    assert find_files(tmp_path) == tuple(sorted([paths[0], unnamed, tmp_path / "short.dcm"]))
