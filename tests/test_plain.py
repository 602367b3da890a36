"""The reader of plain headers reads what pydicom reads, or nothing."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from gpnet_node.intake.plain import PIXELS, plain_header
from gpnet_node.store.header import header_of
from gpnet_node.store.versions import UNREADABLE
from tests.factories import mr_series
from tests.peers import data_set_bytes

IMPLICIT, EXPLICIT, BIG_ENDIAN = (
    UID("1.2.840.10008.1.2"),
    UID("1.2.840.10008.1.2.1"),
    UID("1.2.840.10008.1.2.2"),
)
LONGEST = 1 << 16
BEFORE = 300  # bytes of the file before the data set


def plainly(data_set: bytes, syntax: UID, *, longest: int = LONGEST) -> tuple[Dataset, int] | None:
    """Read it with our reader: the header, and where that stopped."""
    file = io.BytesIO(b"\xff" * BEFORE + data_set)
    file.seek(BEFORE)
    header = plain_header(file, syntax, longest=longest)
    return None if header is None else (header, file.tell() - BEFORE)


def by_pydicom(data_set: bytes, syntax: UID, *, longest: int = LONGEST) -> tuple[Dataset, int]:
    """Read it with pydicom in the same way."""
    file = io.BytesIO(data_set)
    header = read_dataset(
        file,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        stop_when=lambda tag, *_: tag >= PIXELS,
        defer_size=longest,
    )
    return header, file.tell()


def contents(header: Dataset) -> Mapping[int, object]:
    """What a header holds, as it stands; what has no value or was left in the file has none here."""
    held = {}
    for element in header.values():
        assert isinstance(element, RawDataElement)
        if element.value or not element.length:
            held[int(element.tag)] = (element.VR, element.value or b"", element.is_implicit_VR)
    return held


def assert_same(data_set: bytes, syntax: UID, *, longest: int = LONGEST) -> bool:
    """Fail where the two read another thing; whether ours read anything."""
    try:
        ours = plainly(data_set, syntax, longest=longest)
    except UNREADABLE as exc:  # a character set that is none
        with pytest.raises(type(exc)):
            by_pydicom(data_set, syntax, longest=longest)
        return False
    if ours is None:
        return False
    theirs = by_pydicom(data_set, syntax, longest=longest)
    assert ours[1] == theirs[1]
    assert contents(ours[0]) == contents(theirs[0])
    assert ours[0].original_character_set == theirs[0].original_character_set
    assert ours[0].original_encoding == theirs[0].original_encoding
    with contextlib.suppress(KeyError):  # one of the UIDs is missing
        assert header_of(ours[0]) == header_of(theirs[0])
    return True


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Mapping[UID, bytes]:
    """One image in each plain encoding."""
    folder = tmp_path_factory.mktemp("plain")
    return {
        syntax: data_set_bytes(
            mr_series(folder, slices=1, series=syntax, transfer_syntax=syntax, PatientName="Müller^Özgür")[0]
        )
        for syntax in (IMPLICIT, EXPLICIT)
    }


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("longest", [10, LONGEST])
def test_a_plain_image_is_read_as_pydicom_reads_it(
    images: Mapping[UID, bytes], syntax: UID, longest: int
) -> None:
    assert assert_same(images[syntax], syntax, longest=longest)


def test_every_real_image_is_read_as_pydicom_reads_it_or_left_to_it(shared_data: Path) -> None:
    plain = 0
    for path in sorted((shared_data / "dicom").rglob("*")):
        try:
            syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
        except (*UNREADABLE, OSError):
            continue  # not a file of DICOM
        if syntax.is_little_endian and not syntax.is_deflated:
            plain += assert_same(data_set_bytes(path), syntax)

    assert plain > 50


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4),
    length=st.integers(0, 4000),
    syntax=st.sampled_from([IMPLICIT, EXPLICIT]),
)
@pytest.mark.filterwarnings("ignore")  # pydicom's, on what is spoilt here
def test_a_damaged_header_is_read_as_pydicom_reads_it_or_left_to_it(
    images: Mapping[UID, bytes], changes: list[tuple[int, int]], length: int, syntax: UID
) -> None:
    damaged = bytearray(images[syntax])
    for at, value in changes:
        damaged[at % len(damaged)] = value

    assert_same(bytes(damaged[: length or None]), syntax)


@pytest.fixture
def with_open_sequence(tmp_path: Path) -> bytes:
    """An image with a sequence of undefined length."""
    (path,) = mr_series(tmp_path, slices=1, transfer_syntax=EXPLICIT)
    image = dcmread(path)
    image.ReferencedImageSequence = [Dataset()]
    image["ReferencedImageSequence"].is_undefined_length = True
    image.save_as(path)
    return data_set_bytes(path)


def test_what_is_not_plain_is_left_to_pydicom(
    tmp_path: Path, images: Mapping[UID, bytes], with_open_sequence: bytes
) -> None:
    (big,) = mr_series(tmp_path, slices=1, series="big", transfer_syntax=BIG_ENDIAN)

    assert plainly(data_set_bytes(big), BIG_ENDIAN) is None
    assert plainly(with_open_sequence, EXPLICIT) is None
    assert plainly(images[EXPLICIT], IMPLICIT) is None
    assert plainly(images[IMPLICIT], EXPLICIT) is None
    assert plainly(images[EXPLICIT][:200], EXPLICIT) is None
    assert plainly(b"", EXPLICIT) is None
