"""Whether two files hold the same SOP instance: equal identifiers, geometry and decoded pixels."""

import hashlib
import struct
import subprocess
import sys
import zlib
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.dataelem import DataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from gpnet_node.codecs import decode
from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.skim import PIXELS

_CHUNK_BYTES = 1 << 20
_DECODE_SECONDS = 120.0  # the largest multi-frame takes a few
_DEFERRED_BYTES = 1 << 16  # longer values stay in the file until they are asked for
# What another transfer syntax, character set or writer changes without changing the instance: the character
# set, the remark that a codec was used (Derivation Description and its code: what changes the image says so
# in Image Type too), planar configuration, extended offset tables, and padding behind the data set.
_ENCODING = {0x00080005, 0x00082111, 0x00089215, 0x00280006, 0x7FE00001, 0x7FE00002, 0xFFFCFFFC}
# Words whose bytes pydicom leaves in the order of the transfer syntax (PS3.5 7.3).
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
# What pydicom and the codecs raise on bytes that they cannot read: they have no error class for it.
UNREADABLE = (
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def data_set_start(file: BinaryIO) -> int:
    """Return the position of the first byte behind the file meta information (PS3.10 7.1).

    Raises UnreadableInstanceError if the file does not begin as one that the archive keeps.
    """
    file.seek(0)
    head = file.read(144)
    if len(head) < 144 or head[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        raise UnreadableInstanceError("not a DICOM file with a group length in its file meta information")
    (length,) = struct.unpack("<L", head[140:144])
    return 144 + int(length)


def data_set_digest(path: Path) -> tuple[str, int]:
    """Return SHA-256 and length of a file's data set. Raises UnreadableInstanceError and OSError."""
    with path.open("rb") as file:
        start = data_set_start(file)
        file.seek(start)
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell() - start


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a whole file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_instance(one: Path, other: Path) -> bool:
    """Whether two files of one SOP Instance UID have equal content, whatever their encoding.

    Compared are all public elements as decoded, and the pixels frame by frame; not compared are the file meta
    information, group lengths, private elements, the character set as such, padding, remarks on compression,
    and the encoding of sequences and pixels. What cannot be decoded is equal only to the same bytes. Memory
    is bounded by the header and two frames, except for a deflated data set, which is inflated whole.
    """
    try:
        return _same_bytes(one, other) or _same_content(one, other)
    except OSError as exc:
        if exc.errno is None:  # not the system's: pydicom's, for a sequence that ends too early
            return False
        raise
    except (UnreadableInstanceError, *UNREADABLE):
        return False


def _same_bytes(one: Path, other: Path) -> bool:
    """Whether the data sets are equal byte by byte, in the same transfer syntax."""
    with one.open("rb") as first, other.open("rb") as second:
        starts = data_set_start(first), data_set_start(second)
        if one.stat().st_size - starts[0] != other.stat().st_size - starts[1]:
            return False
        first.seek(starts[0])
        second.seek(starts[1])
        while chunk := first.read(_CHUNK_BYTES):
            if chunk != second.read(_CHUNK_BYTES):
                return False
    return _syntax(one) == _syntax(other)


def _syntax(path: Path) -> str:
    return str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))


def _same_content(one: Path, other: Path) -> bool:
    first, second = _read(one), _read(other)
    if _content(first) != _content(second):
        return False
    with_pixels = [bool(PIXELS & set(map(int, data_set.keys()))) for data_set in (first, second)]
    if not all(with_pixels):
        return not any(with_pixels)
    if any(UID(_syntax(path)).is_encapsulated for path in (one, other)):
        return _same_pixels_apart(one, other)
    return _same_pixels(one, other)


def _same_pixels(one: Path, other: Path) -> bool:
    frames = zip_longest(*(decode(path, UID(_syntax(path))) for path in (one, other)))
    return all(a is not None and b is not None and np.array_equal(a, b) for a, b in frames)


def _same_pixels_apart(one: Path, other: Path) -> bool:
    """Compare in a process of its own: a damaged stream can end the one in which a codec reads it.

    What it cannot decode, or not in time, is not the same.
    """
    paths = [str(path.absolute()) for path in (one, other)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *paths],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_DECODE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _read(path: Path) -> pydicom.Dataset:
    # A deferred value is read again from the file, where that of a deflated data set does not lie.
    deflated = _syntax(path) == DeflatedExplicitVRLittleEndian
    return pydicom.dcmread(path, defer_size=None if deflated else _DEFERRED_BYTES)


def _content(data_set: pydicom.Dataset) -> dict[int, object]:
    """Return every element that makes the instance what it is, by tag, as decoded values."""
    big_endian = data_set.original_encoding[1] is False
    return {
        int(tag): _value(data_set[tag], big_endian=big_endian)
        for tag in data_set.keys()  # noqa: SIM118  # a data set iterates over elements, not tags
        if _counts(tag)
    }


def _counts(tag: BaseTag) -> bool:
    return not (tag.is_private or tag.element == 0 or tag.group == 2 or int(tag) in PIXELS | _ENCODING)


def _value(element: DataElement, *, big_endian: bool) -> object:
    if element.VR == "SQ":
        return [_content(item) for item in element.value]
    if isinstance(element.value, bytes) and big_endian and (width := _WORD_BYTES.get(element.VR)):
        return (
            np.frombuffer(element.value, dtype=f"S{width}").view(f">u{width}").astype(f"<u{width}").tobytes()
        )
    return element.value


if __name__ == "__main__":
    sys.exit(0 if _same_pixels(*map(Path, sys.argv[1:])) else 1)
