"""Reads the header of a data set as it arrived, and finds out whether the data set is whole (PS3.5 7)."""

import re
import zlib
from dataclasses import replace
from functools import lru_cache
from io import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, KeyObjectSelectionDocumentStorage

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.store.header import TAGS
from gpnet_node.store.skim import Skimmed, ends_too_early, skim
from gpnet_node.store.versions import UNREADABLE

_TAGS = [Tag(keyword) for keyword in TAGS]
_WANTED = {int(tag): tag for tag in _TAGS}
_LONG_VALUE_BYTES = 1 << 16  # longer values stay in the file
_LARGEST_NOTE_BYTES = 1 << 24  # key objects are read whole: some fifty thousand references
_INFLATED_IN_MEMORY_BYTES = 1 << 22
_CHUNK_BYTES = 1 << 20
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def is_safe_uid(value: object) -> bool:
    """Whether the value is a UID by its characters and length (PS3.5 9.1), and so also safe as a file name.

    Components with a leading zero are let through: old devices write them, and their images are wanted.
    """
    return isinstance(value, str) and len(value) <= 64 and _UID.fullmatch(value) is not None


def uid_of(header: pydicom.Dataset, keyword: str) -> object:
    """Return a UID from its bytes: of every image some are asked for, and pydicom takes long to convert."""
    element: object = header.get_item(_tag(keyword))  # None where it is not there, whatever its type says
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        return element.value.rstrip(b"\0 ").decode("ascii", "replace")
    return getattr(element, "value", None)


@lru_cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def read_received(file: BinaryIO, *, start: int, transfer_syntax: UID, max_bytes: int) -> Skimmed:
    """Read the data set that begins at byte ``start`` of ``file``, as it was sent.

    Its header has what the index keeps (``header.TAGS``), key objects also their sequences; all else is left
    in the file, so memory stays bounded whatever the data set holds.

    Raises UnreadableInstanceError where the data set cannot be parsed, ends too early, or lacks a UID that it
    needs to be kept at all; StorageError where the disk does not do its work: what was still in the buffer of
    ``file`` may find it full. The text never quotes a value.
    """
    try:
        if transfer_syntax.is_deflated:
            with SpooledTemporaryFile(max_size=_INFLATED_IN_MEMORY_BYTES) as plain:
                _inflate(file, start, cast(BinaryIO, plain), max_bytes)
                skimmed = _skimmed(cast(BinaryIO, plain), 0, transfer_syntax)
        else:
            skimmed = _skimmed(file, start, transfer_syntax)
        missing = [keyword for keyword in _REQUIRED if not is_safe_uid(uid_of(skimmed.header, keyword))]
    except UNREADABLE as exc:
        raise UnreadableInstanceError(f"the data set cannot be parsed ({type(exc).__name__})") from exc
    except OSError as exc:
        if exc.errno is None:  # not the system's: pydicom's, for a sequence that ends too early
            raise ends_too_early() from exc
        raise StorageError(f"archive: {exc.strerror}") from exc
    if missing:
        raise UnreadableInstanceError(f"{missing[0]} is missing or is not a UID")
    return skimmed


def _skimmed(file: BinaryIO, start: int, syntax: UID) -> Skimmed:
    skimmed = skim(file, start=start, syntax=syntax, wanted=_WANTED, longest=_LONG_VALUE_BYTES)
    if uid_of(skimmed.header, "SOPClassUID") != KeyObjectSelectionDocumentStorage:
        return skimmed
    if file.seek(0, SEEK_END) - start > _LARGEST_NOTE_BYTES:
        raise UnreadableInstanceError(f"the key objects have more than {_LARGEST_NOTE_BYTES} bytes")
    file.seek(start)
    whole = read_dataset(
        file, syntax.is_implicit_VR, syntax.is_little_endian, specific_tags=cast("list[BaseTag | int]", _TAGS)
    )
    return replace(skimmed, header=whole)


def _inflate(file: BinaryIO, start: int, plain: BinaryIO, max_bytes: int) -> None:
    """Undo the deflation of a whole data set (PS3.5 A.5)."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    file.seek(start)
    while (chunk := file.read(_CHUNK_BYTES)) and not inflate.eof:
        while chunk and not inflate.eof:  # behind the end stands a byte of padding, which is never consumed
            plain.write(inflate.decompress(chunk, _CHUNK_BYTES))
            chunk = inflate.unconsumed_tail
            if plain.tell() > max_bytes:
                raise UnreadableInstanceError(f"the data set inflates to more than {max_bytes} bytes")
    plain.write(inflate.flush())
    if not inflate.eof:
        raise ends_too_early()
