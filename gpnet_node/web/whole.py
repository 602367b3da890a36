"""A whole instance as PS3.10 bytes, as stored or decoded into Explicit VR Little Endian (PS3.5 A)."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.store.versions import UNREADABLE
from gpnet_node.web.pixel_data import decoded, locate

_CHUNK_BYTES = 1 << 18
_PIXELS = ("FloatPixelData", "DoubleFloatPixelData", "PixelData")
# Words whose bytes pydicom leaves in the order of the transfer syntax (PS3.5 7.3).
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def as_stored(path: Path) -> Iterator[bytes]:
    """Yield a file piece by piece. Raises StorageError, at once if it cannot be opened."""
    try:
        file = path.open("rb")
    except OSError as exc:
        raise StorageError(f"archive: {exc.strerror}") from exc

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(_CHUNK_BYTES):
                yield piece

    return pieces()


def as_explicit_little_endian(path: Path) -> Iterator[bytes]:
    """Return the instance in the transfer syntax that everybody reads; it is in memory as a whole.

    Pixels of a colour space that belongs to a codec become RGB. Raises UnreadableInstanceError, StorageError.
    """
    try:
        data_set = dcmread(path)
        syntax = UID(data_set.file_meta.TransferSyntaxUID)
        if any(name in data_set for name in _PIXELS) and syntax.is_encapsulated:
            _decompress(data_set, path)
        elif syntax == ExplicitVRBigEndian:
            _swap_words(data_set)
        data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = io.BytesIO()
        dcmwrite(buffer, data_set, implicit_vr=False, little_endian=True, enforce_file_format=True)
    except UNREADABLE as exc:
        raise UnreadableInstanceError(f"the instance cannot be decoded ({type(exc).__name__})") from exc
    except OSError as exc:
        raise StorageError(f"archive: {exc.strerror}") from exc
    whole = buffer.getbuffer()
    return (bytes(whole[at : at + _CHUNK_BYTES]) for at in range(0, len(whole), _CHUNK_BYTES))


def _decompress(data_set: Dataset, path: Path) -> None:
    pixels = locate(path)
    content = b"".join(decoded(pixels, range(pixels.number_of_frames)))
    data_set.PixelData = content + b"\0" * (len(content) % 2)
    element = data_set["PixelData"]
    element.VR = "OW" if pixels.bits_allocated > 8 else "OB"
    element.is_undefined_length = False
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in data_set:
            delattr(data_set, keyword)
    if int(data_set.get("SamplesPerPixel") or 1) > 1:
        data_set.PlanarConfiguration = 0
        if str(data_set.PhotometricInterpretation).startswith("YBR"):
            data_set.PhotometricInterpretation = "RGB"


def _swap_words(data_set: Dataset) -> None:
    for element in data_set.iterall():
        width = _WORD_BYTES.get(str(element.VR))
        if width and isinstance(element.value, bytes):
            element.value = np.frombuffer(element.value, f">u{width}").astype(f"<u{width}").tobytes()
