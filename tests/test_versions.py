import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.versions import data_set_start, same_instance
from tests.factories import enhanced_mr, mr_series, ramp, rewrite


def image(folder: Path, **attributes: Any) -> Path:  # noqa: ANN401
    """One image with one UID, whatever else differs."""
    return mr_series(folder, slices=1, SOPInstanceUID="1.2.3", **attributes)[0]


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
    ],
)
def test_another_lossless_transfer_syntax_is_the_same_instance(tmp_path: Path, syntax: str) -> None:
    plain = image(tmp_path / "a")

    assert same_instance(plain, image(tmp_path / "b", transfer_syntax=syntax))


@pytest.mark.parametrize("syntax", ["+te", "-e", "+g", "-p", "+tb", "+ti"])
def test_what_dcmtk_writes_anew_with_other_lengths_and_padding_is_the_same_instance(
    tmp_path: Path, syntax: str
) -> None:
    sequence = Dataset()
    sequence.CodeValue, sequence.CodingSchemeDesignator, sequence.CodeMeaning = "1", "99X", "one"
    first = image(tmp_path, AnatomicRegionSequence=[sequence])
    second = tmp_path / "second.dcm"
    subprocess.run(["/usr/bin/dcmconv", syntax, first, second], check=True)

    assert same_instance(first, second)


def test_the_same_name_in_another_character_set_is_the_same_instance(tmp_path: Path) -> None:
    unicode = image(tmp_path / "a", SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Zoë")
    latin = image(tmp_path / "b", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë")

    assert unicode.read_bytes() != latin.read_bytes()
    assert same_instance(unicode, latin)


def test_a_private_element_and_trailing_padding_do_not_make_another_instance(tmp_path: Path) -> None:
    first = image(tmp_path / "a")
    second = image(tmp_path / "b")
    data_set = dcmread(second)
    data_set.private_block(0x0029, "EXAMPLE", create=True).add_new(1, "LO", "vendor's note")
    data_set.DataSetTrailingPadding = bytes(100)
    data_set.save_as(second)

    assert same_instance(first, second)


@pytest.mark.parametrize(
    "change",
    [
        {"PatientID": "corrected"},
        {"PatientName": "Another^Person"},
        {"ImagePositionPatient": [0, 0, 0]},
        {"PixelSpacing": [0.5, 0.4]},
        {"SeriesInstanceUID": "1.9"},
        {"RescaleSlope": 2},
        {"BurnedInAnnotation": "NO"},
        {"EchoTime": None},
    ],
)
def test_a_changed_added_or_removed_header_value_is_another_version(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    first = image(tmp_path / "a")
    second = rewrite(image(tmp_path / "b"), **change)

    assert not same_instance(first, second)
    assert not same_instance(second, first)


def test_a_change_inside_a_sequence_is_another_version(tmp_path: Path) -> None:
    def with_code(folder: str, meaning: str) -> Path:
        item = Dataset()
        item.CodeMeaning = meaning
        return image(tmp_path / folder, AnatomicRegionSequence=[item])

    assert not same_instance(with_code("a", "Brain"), with_code("b", "Head"))


def test_one_changed_pixel_is_another_version_in_any_transfer_syntax(tmp_path: Path) -> None:
    first = image(tmp_path / "a")
    pixels = bytearray(dcmread(first).PixelData)
    pixels[7] ^= 1
    native = image(tmp_path / "b", PixelData=bytes(pixels))

    assert not same_instance(first, native)
    assert not same_instance(image(tmp_path / "c", transfer_syntax=RLELossless), native)


def test_pixels_that_are_gone_make_another_version(tmp_path: Path) -> None:
    first = image(tmp_path / "a")
    second = rewrite(image(tmp_path / "b"), PixelData=None)

    assert not same_instance(first, second)
    assert same_instance(second, second)


def test_multi_frame_images_are_compared_frame_by_frame(tmp_path: Path) -> None:
    plain = enhanced_mr(tmp_path / "a", SOPInstanceUID="1.2.3")
    packed = enhanced_mr(tmp_path / "b", SOPInstanceUID="1.2.3", transfer_syntax=RLELossless)
    pixels = bytearray(dcmread(plain).PixelData)
    pixels[-1] ^= 1
    changed = enhanced_mr(tmp_path / "c", SOPInstanceUID="1.2.3", PixelData=bytes(pixels))
    for path in (plain, packed, changed):
        rewrite(path, DimensionOrganizationSequence=None)

    assert same_instance(plain, packed)
    assert not same_instance(plain, changed)


def test_nine_transfer_syntaxes_of_one_real_image_are_one_instance(tmp_path: Path, shared_data: Path) -> None:
    found = [path for path in (shared_data / "dicom" / "dcm_qa_ts").rglob("*.dcm") if _is_dicom(path)]
    same = [  # each was given a UID and a number of its own when it was converted
        rewrite(
            Path(shutil.copy(path, tmp_path / path.name)),
            SOPInstanceUID="1.2.3",
            SeriesInstanceUID="1.2",
            SeriesNumber=1,
        )
        for path in found
    ]

    assert len(same) == 9
    assert [path.name for path in same if not same_instance(same[0], path)] == []


def _is_dicom(path: Path) -> bool:
    return path.is_file() and path.read_bytes()[128:132] == b"DICM"


@pytest.mark.filterwarnings("ignore:End of file")
def test_what_cannot_be_decoded_is_the_same_only_by_its_bytes(tmp_path: Path) -> None:
    first = image(tmp_path / "a", transfer_syntax=JPEGLSLossless)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(first.read_bytes()[:-40] + bytes(40))
    copy = Path(shutil.copy(broken, tmp_path / "copy.dcm"))

    assert not same_instance(first, broken)
    assert same_instance(broken, copy)


def test_a_stream_that_holds_more_than_its_header_says_is_another_version_than_the_part(
    tmp_path: Path,
) -> None:
    part = ramp(1, 16, 12)
    sound = image(tmp_path / "a", voxels=part)
    more = image(
        tmp_path / "b", voxels=np.concatenate([part, part + 7], axis=1), transfer_syntax=JPEGLSLossless
    )
    rewrite(more, Rows=16)

    assert not same_instance(sound, more)


@pytest.mark.filterwarnings("ignore:End of file")
def test_a_file_that_ends_within_a_sequence_is_another_version(tmp_path: Path) -> None:
    sequence = Dataset()
    sequence.CodeValue, sequence.CodingSchemeDesignator, sequence.CodeMeaning = "1", "99X", "one"
    whole = image(tmp_path / "a", AnatomicRegionSequence=[sequence])
    content = whole.read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(content[: content.index(b"99X") - 20])

    assert not same_instance(whole, cut)


def test_equal_bytes_under_another_transfer_syntax_uid_are_not_taken_for_equal(tmp_path: Path) -> None:
    first = image(tmp_path / "a", transfer_syntax=ExplicitVRLittleEndian)
    other = tmp_path / "other.dcm"
    other.write_bytes(first.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"))

    assert not same_instance(first, other)


def test_a_file_without_file_meta_information_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(200))

    with path.open("rb") as file, pytest.raises(UnreadableInstanceError, match="not a DICOM file"):
        data_set_start(file)


def test_a_deflated_and_a_compressed_data_set_can_be_the_same_instance(tmp_path: Path) -> None:
    deflated = image(tmp_path / "a", transfer_syntax=DeflatedExplicitVRLittleEndian)

    assert same_instance(deflated, image(tmp_path / "b", transfer_syntax=RLELossless))


def test_a_stream_that_ends_its_decoder_is_another_version_and_ends_nothing_else(
    tmp_path: Path, shared_data: Path
) -> None:
    whole = shared_data / "dicom" / "dcm_qa_ts" / "In" / "9.dcm"  # JPEG 2000
    content = bytearray(whole.read_bytes())
    start = (
        content.index(b"\xe0\x7f\x10\x00OB") + 28
    )  # the stream, behind an empty offset table and an item head
    content[start + 40 : start + 56] = b"\x55" * 16
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(content)

    assert not same_instance(broken, whole)
    assert same_instance(broken, broken)
