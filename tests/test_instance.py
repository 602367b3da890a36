"""Reading a data set as it arrived: whole, cut, or no data set at all."""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import UID

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.store.header import header_of
from gpnet_node.store.instance import is_safe_uid, read_received
from tests.factories import enhanced_mr, mr_series, rejection_note, with_undefined_lengths
from tests.peers import data_set_bytes

EXPLICIT, DEFLATED = UID("1.2.840.10008.1.2.1"), UID("1.2.840.10008.1.2.1.99")
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5")
LIMIT = 1 << 24


def read(data_set: bytes, syntax: UID = EXPLICIT, *, start: int = 0, max_bytes: int = LIMIT) -> bool:
    """Read the bytes; whether there are pixels."""
    file = io.BytesIO(b"\xff" * start + data_set)
    return read_received(file, start=start, transfer_syntax=syntax, max_bytes=max_bytes).has_pixels


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_whole_data_set_is_read_in_each_encoding(tmp_path: Path, syntax: str) -> None:
    (classic,) = mr_series(tmp_path, slices=1, transfer_syntax=syntax)
    enhanced = enhanced_mr(tmp_path, transfer_syntax=syntax)

    assert read(data_set_bytes(classic), UID(syntax), start=300)
    assert read(data_set_bytes(enhanced), UID(syntax))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One image in each encoding."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        syntax: data_set_bytes(mr_series(folder, slices=1, series=syntax, transfer_syntax=syntax)[0])
        for syntax in SYNTAXES
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0, exclude_max=True), syntax=st.sampled_from(SYNTAXES))
def test_no_part_of_a_data_set_passes_for_a_whole_image(
    whole: dict[str, bytes], share: float, syntax: str
) -> None:
    data_set = whole[syntax]
    part = data_set[: int(share * len(data_set))]

    try:
        has_pixels = read(part, UID(syntax))
    except UnreadableInstanceError:
        return
    assert not has_pixels  # cut between two elements of the header: an image without pixels


@settings(max_examples=200, deadline=None)
@given(data_set=st.binary(max_size=400), syntax=st.sampled_from([*SYNTAXES, str(DEFLATED)]))
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(data_set: bytes, syntax: str) -> None:
    with pytest.raises(UnreadableInstanceError):
        read(data_set, UID(syntax))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_byte_never_ends_in_another_error(whole: dict[str, bytes], at: int, value: int) -> None:
    damaged = bytearray(whole[EXPLICIT])
    damaged[at % len(damaged)] = value

    with contextlib.suppress(UnreadableInstanceError):
        read(bytes(damaged))


@pytest.mark.parametrize("extra", [0, 1, 2, 3])
@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
def test_a_deflated_data_set_is_read_whatever_its_length(tmp_path: Path, blocks: int, extra: int) -> None:
    """An even number of bytes is sent, so a byte of padding may stand behind the stream (PS3.5 A.5)."""
    (path,) = mr_series(tmp_path, slices=1, PixelData=b"\1\2" * (blocks * (1 << 19)) or b"\0\0")
    deflated = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = deflated.compress(data_set_bytes(path)) + deflated.flush()

    assert read(stream + b"\0" * extra, DEFLATED)


def test_a_deflated_data_set_that_is_cut_is_refused(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1, transfer_syntax=DEFLATED)

    with pytest.raises(UnreadableInstanceError, match="early"):
        read(data_set_bytes(path)[:-10], DEFLATED)


@pytest.fixture
def full_disk() -> Iterator[BinaryIO]:
    """A file of which some bytes are still in the buffer, on a disk that has no room for them."""
    with contextlib.suppress(OSError), Path("/dev/full").open("r+b", buffering=1 << 16) as file:
        file.write(b"the rest of a data set")
        yield file  # closing tries once more, in vain


def test_a_disk_that_is_full_at_the_last_bytes_is_no_fault_of_the_data_set(full_disk: BinaryIO) -> None:
    with pytest.raises(StorageError, match="No space left"):
        read_received(full_disk, start=0, transfer_syntax=EXPLICIT, max_bytes=1 << 20)


def test_what_inflates_beyond_the_limit_is_refused_before_it_is_all_there(tmp_path: Path) -> None:
    bomb = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    stream = bomb.compress(bytes(50_000_000)) + bomb.flush()

    with pytest.raises(UnreadableInstanceError, match="inflates"):
        read(stream, DEFLATED, max_bytes=3_000_000)


def test_key_objects_are_read_whole_and_so_have_a_limit(tmp_path: Path) -> None:
    path = rejection_note(tmp_path / "note.dcm", mr_series(tmp_path, slices=1))
    note = data_set_bytes(with_undefined_lengths(path))
    padding = b"\xfc\xff\xfc\xffOB\0\0" + struct.pack("<L", 1 << 24) + bytes(1 << 24)

    header = read_received(io.BytesIO(note), start=0, transfer_syntax=EXPLICIT, max_bytes=LIMIT).header
    assert header_of(header).rejects
    with pytest.raises(UnreadableInstanceError, match="more than 16777216 bytes"):
        read(note + padding)


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008", "2.25.0012", "1" * 64])
def test_digits_and_dots_are_a_uid(uid: str) -> None:
    assert is_safe_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", ".", "1.", ".1", "1..2", "1/2", "../1", "1.2\n", "a", "1" * 65, None, 7, "١"]
)
def test_anything_else_is_not(uid: object) -> None:
    assert not is_safe_uid(uid)
