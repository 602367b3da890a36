"""The list of what is read of a header, and how the functional groups are looked through."""

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword

import gpnet_node
from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.imaging.attributes import (
    FILE_KEYWORDS,
    GE_RAW_DATA_TYPE,
    ITEM_KEYWORD,
    KEYWORDS,
    LEGACY_MACROS,
    MACRO_OF,
    PATIENT,
    PRIVATE,
    SIEMENS_B_VALUE,
)
from gpnet_node.imaging.kinds import b_value, component
from gpnet_node.imaging.series import Frame, read_headers
from tests.factories import enhanced_mr, mr_series, rewrite

IMAGING = Path(gpnet_node.__file__).parent / "imaging"
FILE_META = {"TransferSyntaxUID"}  # always read, with the rest of the File Meta Information
OF_THE_READER = {
    "SharedFunctionalGroupsSequence",
    "SpecificCharacterSet",
    *PATIENT,
}  # named where the list stands


def keywords_in(source: str) -> Iterator[str]:
    """All attributes that a module names in its code."""
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return (text for text in texts if isinstance(text, str) and text and tag_for_keyword(text) is not None)


def only_frame(path: Path) -> Frame:
    (frame,) = read_headers([path])
    return frame


def test_every_attribute_that_imaging_names_is_read_and_every_one_that_is_read_is_named() -> None:
    modules = [path for path in IMAGING.glob("*.py") if path.name != "attributes.py"]
    named = {keyword for path in modules for keyword in keywords_in(path.read_text())}

    assert named - FILE_META == {*KEYWORDS, *FILE_KEYWORDS} - OF_THE_READER


def test_every_macro_attribute_that_is_asked_for_is_known_to_the_dictionary() -> None:
    for keyword in (*KEYWORDS, *FILE_KEYWORDS, *MACRO_OF, *MACRO_OF.values(), *LEGACY_MACROS, *ITEM_KEYWORD):
        assert tag_for_keyword(keyword) is not None, keyword


@pytest.mark.parametrize("asked", ["PatientName", "FlipAngle", "Rows", "NoSuchKeyword"])
def test_asking_for_an_attribute_that_is_not_read_is_an_error_and_not_an_absent_value(
    tmp_path: Path, asked: str
) -> None:
    frame = only_frame(*mr_series(tmp_path, slices=1))

    for ask in (frame.text, frame.texts, frame.number):
        with pytest.raises(AssertionError, match=f"{asked} is not among the attributes that are read"):
            ask(asked)


def test_nothing_of_the_patient_is_kept(tmp_path: Path) -> None:
    frame = only_frame(*mr_series(tmp_path, slices=1, PatientName="Secret^Name", PatientID="SECRET"))

    assert "secret" not in repr(frame.values).lower()


def test_frames_share_the_values_that_they_have_in_common(tmp_path: Path) -> None:
    frames = read_headers(mr_series(tmp_path, slices=3))

    for a, b in pairwise(frames):
        for keyword in set(KEYWORDS) - {"ImagePositionPatient"}:
            assert a.values.get(keyword) is b.values.get(keyword), keyword
        assert a.texts("ImagePositionPatient") != b.texts("ImagePositionPatient")


def test_equal_bytes_in_two_character_sets_are_two_texts(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=2, SeriesDescription="x")
    rewrite(paths[0], SpecificCharacterSet="ISO_IR 100", SeriesDescription="\xdcber")
    rewrite(paths[1], SpecificCharacterSet="ISO_IR 144", SeriesDescription="\u043cber")
    assert all(b"\xdcber" in path.read_bytes() for path in paths)

    frames = read_headers(paths)

    assert [frame.text("SeriesDescription") for frame in frames] == ["\xdcber", "\u043cber"]


def test_a_value_that_cannot_be_parsed_troubles_only_who_asks_for_it(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1, TriggerTime=1.0)
    content = path.read_bytes()
    head = content.index(b"\x18\x00\x60\x10DS")
    path.write_bytes(content[: head + 4] + b"FD" + content[head + 6 :])

    frame = only_frame(path)

    assert frame.text("Modality") == "MR"
    with pytest.raises(UnreadableInstanceError, match="TriggerTime cannot be read"):
        frame.number("TriggerTime")


@pytest.mark.parametrize("block", [0x10, 0x42, 0xFF])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_a_private_element_is_found_in_whatever_block_its_creator_reserved(
    tmp_path: Path, block: int, syntax: str
) -> None:
    (path,) = mr_series(tmp_path, slices=1, transfer_syntax=syntax, ImageType=["ORIGINAL", "PRIMARY"])
    dataset = dcmread(path)
    for private, vr, value in ((SIEMENS_B_VALUE, "IS", 700), (GE_RAW_DATA_TYPE, "SS", 1)):
        dataset.add_new((private.group, block), "LO", private.creator)
        dataset.add_new((private.group, block << 8 | private.element), vr, value)
    dataset.save_as(path)

    frame = only_frame(path)

    assert (b_value(frame), component(frame)) == (700.0, "PHASE")


def test_a_private_element_of_another_creator_is_not_taken_for_ours(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1, ImageType=["ORIGINAL", "PRIMARY"])
    dataset = dcmread(path)
    for private in (SIEMENS_B_VALUE, GE_RAW_DATA_TYPE):
        dataset.private_block(private.group, "SOMEBODY ELSE", create=True).add_new(private.element, "SS", 1)
    dataset.save_as(path)

    frame = only_frame(path)

    assert all(frame.texts(private) == () for private in PRIVATE)


def test_a_frames_own_groups_count_before_the_shared_ones_and_those_before_the_top_level(
    tmp_path: Path,
) -> None:
    path = enhanced_mr(tmp_path, slices=4, RepetitionTime=1.0)
    dataset = dcmread(path)
    dataset.RepetitionTime = dataset.TriggerTime = dataset.InversionTime = 4.0
    own, shared = dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence[0]
    shared.MRTimingAndRelatedParametersSequence = [stating(RepetitionTime=2.0)]
    shared.UnassignedSharedConvertedAttributesSequence = [stating(RepetitionTime=3.0, TriggerTime=3.0)]
    own[1].MRTimingAndRelatedParametersSequence = [stating(RepetitionTime=None)]
    own[2].UnassignedPerFrameConvertedAttributesSequence = [stating(RepetitionTime=9.0, TriggerTime=9.0)]
    del own[3].MRTimingAndRelatedParametersSequence
    dataset.save_as(path)

    frames = read_headers([path])

    assert [frame.number("RepetitionTime") for frame in frames] == [1.0, 2.0, 1.0, 2.0]
    assert [frame.number("TriggerTime") for frame in frames] == [3.0, 3.0, 9.0, 3.0]
    assert [frame.number("InversionTime") for frame in frames] == [4.0] * 4


def stating(**attributes: float | None) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
