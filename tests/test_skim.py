"""What is taken out of a data set is what pydicom reads, and it takes no memory to speak of."""

import contextlib
import io
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.header import header_of
from gpnet_node.store.skim import PIXELS, Skimmed, skim
from gpnet_node.store.versions import UNREADABLE
from tests.factories import enhanced_mr, mr_series, with_undefined_lengths
from tests.peers import data_set_bytes

IMPLICIT, EXPLICIT, BIG_ENDIAN, JPEG_2000 = (
    UID("1.2.840.10008.1.2"),
    UID("1.2.840.10008.1.2.1"),
    UID("1.2.840.10008.1.2.2"),
    UID("1.2.840.10008.1.2.4.90"),
)
LONGEST = 1 << 16
BEFORE = 300  # bytes of the file before the data set
LAST = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 2) + b"\0\0"


def by_pydicom(data_set: bytes, syntax: UID) -> Dataset:
    """Read it with pydicom to the pixels."""
    return read_dataset(
        io.BytesIO(data_set),
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        stop_when=lambda tag, *_: tag in PIXELS,
    )


def skimmed(
    data_set: bytes, syntax: UID, wanted: Mapping[int, BaseTag], *, longest: int = LONGEST
) -> Skimmed:
    file = io.BytesIO(b"\xff" * BEFORE + data_set)
    return skim(file, start=BEFORE, syntax=syntax, wanted=wanted, longest=longest)


def contents(header: Dataset, *, longest: int = LONGEST) -> Mapping[int, object]:
    """The elements of defined length, as they stand."""
    return {
        int(it.tag): (it.VR, it.value or b"", it.is_implicit_VR, it.is_little_endian)
        for it in header.values()
        if isinstance(it, RawDataElement) and it.length <= longest
    }


def assert_same(data_set: bytes, syntax: UID, *, longest: int = LONGEST) -> bool:
    """Fail where another thing is taken out than pydicom reads; whether anything was."""
    try:
        theirs = by_pydicom(data_set, syntax)
        wanted = {int(tag): tag for tag in theirs.keys()}  # noqa: SIM118  # else it yields elements
        ours = skimmed(data_set, syntax, wanted, longest=longest).header
    except (*UNREADABLE, OSError, UnreadableInstanceError):
        return False
    if not theirs:
        return False
    assert contents(ours) == contents(theirs, longest=longest)
    assert ours.original_character_set == theirs.original_character_set
    assert ours.original_encoding == theirs.original_encoding
    with contextlib.suppress(KeyError):  # one of the UIDs is missing
        assert header_of(ours) == header_of(theirs)
    return True


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[UID, str], bytes]:
    """Images in each native encoding: one frame, and two frames with and without the lengths of sequences."""
    found = {}
    for syntax in (IMPLICIT, EXPLICIT, BIG_ENDIAN):
        folder = tmp_path_factory.mktemp("images")
        (classic,) = mr_series(folder, slices=1, transfer_syntax=syntax, PatientName="Müller^Özgür")
        found[syntax, "classic"] = data_set_bytes(classic)
        enhanced = enhanced_mr(folder, slices=2, transfer_syntax=syntax)
        found[syntax, "enhanced"] = data_set_bytes(enhanced)
        found[syntax, "without lengths"] = data_set_bytes(with_undefined_lengths(enhanced))
    return found


KINDS = ("classic", "enhanced", "without lengths")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", [10, LONGEST])
def test_an_image_is_read_as_pydicom_reads_it(
    images: Mapping[tuple[UID, str], bytes], syntax: UID, kind: str, longest: int
) -> None:
    assert assert_same(images[syntax, kind], syntax, longest=longest)


def test_every_real_instance_is_read_as_pydicom_reads_it(shared_data: Path) -> None:
    read = 0
    for path in sorted((shared_data / "dicom").rglob("*")):
        try:
            syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
            data_set = data_set_bytes(path)
        except (*UNREADABLE, OSError):
            continue  # not a file of DICOM
        if not syntax.is_deflated:
            assert assert_same(data_set, syntax), path
            read += 1

    assert read > 50


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=4),
    length=st.integers(0, 8000),
    syntax=st.sampled_from([IMPLICIT, EXPLICIT, BIG_ENDIAN]),
    kind=st.sampled_from(KINDS),
)
@pytest.mark.filterwarnings("ignore")  # pydicom's, on what is spoilt here
def test_a_damaged_data_set_is_read_as_pydicom_reads_it_or_refused(
    images: Mapping[tuple[UID, str], bytes],
    changes: list[tuple[int, int]],
    length: int,
    syntax: UID,
    kind: str,
) -> None:
    damaged = bytearray(images[syntax, kind])
    for at, value in changes:
        damaged[at % len(damaged)] = value

    assert_same(bytes(damaged[: length or None]), syntax)


# -- what takes memory ---------------------------------------------------------------------------------------


def empty_elements(count: int) -> bytes:
    return b"".join(struct.pack("<HH2sH", 0x0021 + 2 * (n >> 16), n & 0xFFFF, b"LO", 0) for n in range(count))


def open_sequences(depth: int) -> bytes:
    begin = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return begin * depth + end * depth


def items(count: int) -> bytes:
    begin = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\xfe\xff\x0d\xe0\0\0\0\0"
    return begin + item * count + b"\xfe\xff\xdd\xe0\0\0\0\0"


def long_values(count: int) -> bytes:
    heads = [struct.pack("<HH2sHL", 0x0021, n, b"UT", 0, LONGEST) for n in range(count)]
    return b"".join(head + bytes(LONGEST) for head in heads)


@pytest.mark.parametrize(
    "data_set",
    [empty_elements(100_000), items(100_000), long_values(64)],
    ids=["empty elements", "empty items", "long values"],
)
def test_what_nobody_asks_for_takes_no_memory(data_set: bytes) -> None:
    file = io.BytesIO(data_set + LAST)
    tracemalloc.start()
    try:
        assert skim(file, start=0, syntax=EXPLICIT, wanted={}, longest=LONGEST).has_pixels
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 200_000


def test_sequences_may_be_nested_but_not_without_end() -> None:
    assert skimmed(open_sequences(64) + LAST, EXPLICIT, {}).has_pixels
    with pytest.raises(UnreadableInstanceError, match="nested more than 64 deep"):
        skimmed(open_sequences(65) + LAST, EXPLICIT, {})


# -- what is odd ---------------------------------------------------------------------------------------------


def test_an_implicit_element_in_an_explicit_data_set_is_read(images: Mapping[tuple[UID, str], bytes]) -> None:
    """Some writers change over in the middle; pydicom reads that."""
    comments = Tag("ImageComments")
    odd = struct.pack("<HHL", comments.group, comments.element, 4) + b"odd "
    data_set = images[EXPLICIT, "classic"].replace(LAST[:8], odd + LAST[:8])

    assert skimmed(data_set, EXPLICIT, {int(comments): comments}).header.ImageComments == "odd"
    assert assert_same(data_set, EXPLICIT)


def test_an_implicit_item_in_an_explicit_data_set_is_stepped_over() -> None:
    """So a value of unknown VR is encoded (PS3.5 6.2.2). A length of 66 looks like a VR, "B" and nothing."""
    begin = struct.pack("<HH2sHL", 0x0029, 0x1010, b"UN", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    element = struct.pack("<HHL", 0x0010, 0x0010, 66) + b"x" * 66
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"

    assert skimmed(begin + element * 2 + end + LAST, EXPLICIT, {}).has_pixels


def test_what_stands_behind_the_pixels_is_no_header() -> None:
    comments = Tag("ImageComments")
    behind = struct.pack("<HH2sH", comments.group, comments.element, b"LT", 4) + b"late"

    assert not skimmed(LAST + behind, EXPLICIT, {int(comments): comments}).header


def test_the_other_encoding_than_the_transfer_syntax_says_is_read(
    images: Mapping[tuple[UID, str], bytes],
) -> None:
    for kind in KINDS:
        assert assert_same(images[EXPLICIT, kind], IMPLICIT)
        assert assert_same(images[IMPLICIT, kind], EXPLICIT)


def test_fragments_are_stepped_over_and_must_be_fragments() -> None:
    begin = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    fragment, end = b"\xfe\xff\x00\xe0\4\0\0\0data", b"\xfe\xff\xdd\xe0\0\0\0\0"

    assert skimmed(begin + fragment * 2 + end, JPEG_2000, {}).has_pixels
    for wrong in (b"data", items(1)[12:-8], b"\xfe\xff\x00\xe0\4\0\0\0"):
        with pytest.raises(UnreadableInstanceError):
            skimmed(begin + fragment + wrong + end, JPEG_2000, {})


@pytest.mark.parametrize("padding", [0, 1, 7])
def test_padding_that_is_too_short_for_an_element_may_follow(padding: int) -> None:
    assert skimmed(LAST + bytes(padding), EXPLICIT, {}).has_pixels


@pytest.mark.parametrize("behind", [b"\1", b"\0\0\0\1", LAST[:-1], b"\xfe\xff\x0d\xe0\0\0\0\0"])
def test_nothing_else_may_follow(behind: bytes) -> None:
    with pytest.raises(UnreadableInstanceError):
        skimmed(LAST + behind, EXPLICIT, {})
