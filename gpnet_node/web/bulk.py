"""Values of single elements that the metadata leaves out (PS3.18 10.4.1.1.5)."""

import re
from collections.abc import Iterator
from pathlib import Path

from fastapi import HTTPException
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.store.versions import UNREADABLE
from gpnet_node.web.pixel_data import PixelData, decoded, locate

_PATH = re.compile(r"[0-9A-F]{8}(?:\.[1-9][0-9]{0,8}\.[0-9A-F]{8}){0,16}")
_PIXEL_DATA = ("7FE00008", "7FE00009", "7FE00010")
_CHUNK_BYTES = 1 << 18


def bulk_of(path: Path, element: str) -> Iterator[bytes]:
    """Return the value of an element, little endian, pixels decoded.

    ``element``: tags and item numbers (from 1), joined by dots, as in the metadata. Raises HTTPException 400
    and 404, UnreadableInstanceError, StorageError.
    """
    if not _PATH.fullmatch(element):
        raise HTTPException(400, "an element is named by tags and item numbers, joined by dots")
    if element in _PIXEL_DATA:
        pixels = locate(path)
        if f"{pixels.tag:08X}" != element:
            raise HTTPException(404, "the instance has no such element")
        return _pixels(pixels)
    return iter([_value(path, element)])


def _pixels(pixels: PixelData) -> Iterator[bytes]:
    """The value as it lies in the file, where that is what is meant; else frame after frame."""
    if pixels.transfer_syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        return _stretch(pixels.path, pixels.offset or 0, pixels.length or 0)
    return decoded(pixels, range(pixels.number_of_frames))


def _stretch(path: Path, start: int, length: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            left = length
            while left and (piece := file.read(min(left, _CHUNK_BYTES))):
                left -= len(piece)
                yield piece
    except OSError as exc:
        raise StorageError(f"archive: {exc.strerror}") from exc


def _value(path: Path, element: str) -> bytes:
    tags = element.split(".")
    try:
        data_set: Dataset = dcmread(path, stop_before_pixels=True)
        for tag, item in zip(tags[:-1:2], tags[1::2], strict=True):
            data_set = data_set[int(tag, 16)].value[int(item) - 1]
        value = data_set[int(tags[-1], 16)].value
    except (KeyError, IndexError, TypeError) as exc:
        raise HTTPException(404, "the instance has no such element") from exc
    except UNREADABLE as exc:
        raise UnreadableInstanceError(f"the header cannot be read ({type(exc).__name__})") from exc
    except OSError as exc:
        raise StorageError(f"archive: {exc.strerror}") from exc
    if not isinstance(value, bytes):
        raise HTTPException(404, "the element is no bulk data")
    return value
