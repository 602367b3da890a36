"""Single frames out of a file, as stored or decoded, one at a time (PS3.5 8 and A.4, PS3.18 10.4.1.1.3)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.imaging.decoding import DECODE_FAILURES, Codecs
from gpnet_node.store.versions import UNREADABLE

_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_UNDEFINED = 0xFFFFFFFF
_LAYOUT = [
    "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "PhotometricInterpretation",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
]  # fmt: skip
_MAX_FRAME_BYTES = 1 << 30
_REMEMBERED_FILES = 2048  # of a few hundred bytes each; files of the archive never change


@dataclass(frozen=True, kw_only=True)
class PixelData:
    """Where the pixel data of one file lies, and how. ``offset``: of the value; None if deflated."""

    path: Path
    transfer_syntax: UID
    tag: int
    number_of_frames: int
    bits_per_frame: int
    bits_allocated: int
    offset: int | None
    length: int | None  # of the value; None where it is encapsulated
    offsets: tuple[bytes, bytes] | None = None  # the extended offset table

    @property
    def is_encapsulated(self) -> bool:
        """Whether each frame is compressed by itself."""
        return self.transfer_syntax.is_encapsulated


@lru_cache(maxsize=_REMEMBERED_FILES)
def locate(path: Path) -> PixelData:
    """Find the pixel data of a file of the archive.

    Raises UnreadableInstanceError if there is none or its description contradicts it, StorageError.
    """
    try:
        with path.open("rb") as file:
            header = dcmread(file, stop_before_pixels=True, specific_tags=list(_LAYOUT))
            syntax = UID(header.file_meta.TransferSyntaxUID)
            if syntax == DeflatedExplicitVRLittleEndian:
                return _described(path, header, syntax, tag=0x7FE00010, offset=None, length=None)
            tag, length = _element_head(file, header, syntax)
            return _described(path, header, syntax, tag=tag, offset=file.tell(), length=length)
    except UNREADABLE as exc:
        raise UnreadableInstanceError(f"the pixel data cannot be found ({type(exc).__name__})") from exc
    except OSError as exc:
        raise StorageError(f"archive: {exc.strerror}") from exc


def _element_head(file: BinaryIO, header: Dataset, syntax: UID) -> tuple[int, int]:
    """Read tag and length of the element at the present position, which then is that of its value."""
    order = "<" if syntax.is_little_endian else ">"
    head = file.read(4)
    group, element = struct.unpack(order + "HH", head) if len(head) == 4 else (0, 0)
    tag = group << 16 | element
    if tag not in _PIXEL_TAGS:
        raise UnreadableInstanceError("the instance has no pixel data")
    if not syntax.is_implicit_VR:
        file.read(4)
    (length,) = struct.unpack(order + "L", file.read(4))
    if (length == _UNDEFINED) != syntax.is_encapsulated:
        raise UnreadableInstanceError("the pixel data is not encapsulated as its transfer syntax says")
    return tag, length


def _described(
    path: Path, header: Dataset, syntax: UID, *, tag: int, offset: int | None, length: int | None
) -> PixelData:
    frames = int(header.get("NumberOfFrames") or 1)
    bits = int(header.BitsAllocated)
    samples = float(header.get("SamplesPerPixel") or 1)
    if header.get("PhotometricInterpretation") == "YBR_FULL_422" and not syntax.is_encapsulated:
        samples = 2  # two neighbours share their chrominance
    frame_bits = int(int(header.Rows) * int(header.Columns) * samples * bits)
    if not (0 < frame_bits <= _MAX_FRAME_BYTES * 8 and frames >= 1 and (bits == 1 or bits % 8 == 0)):
        raise UnreadableInstanceError("the image's size makes no sense")
    value = None if syntax.is_encapsulated else length
    if value is not None and value * 8 < frame_bits * frames:
        raise UnreadableInstanceError("the pixel data is shorter than the header says")
    tables = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    return PixelData(
        path=path,
        transfer_syntax=syntax,
        tag=tag,
        number_of_frames=frames,
        bits_per_frame=frame_bits,
        bits_allocated=bits,
        offset=offset,
        length=value,
        offsets=(header[tables[0]].value, header[tables[1]].value) if tables[0] in header else None,
    )


def as_stored(pixels: PixelData, indices: Sequence[int]) -> Iterator[bytes]:
    """Yield the compressed stream of each frame, in the order asked for (counted from 0).

    Raises UnreadableInstanceError, StorageError.
    """
    for index in indices:
        try:
            with pixels.path.open("rb") as file:
                file.seek(pixels.offset or 0)
                yield get_frame(
                    file,
                    index,
                    extended_offsets=pixels.offsets,
                    number_of_frames=pixels.number_of_frames,
                )
        except UNREADABLE as exc:
            raise UnreadableInstanceError(
                f"frame {index + 1} cannot be found ({type(exc).__name__})"
            ) from exc
        except OSError as exc:
            raise StorageError(f"archive: {exc.strerror}") from exc


def decoded(pixels: PixelData, indices: Sequence[int]) -> Iterator[bytes]:
    """Yield the values of each frame as in Explicit VR Little Endian, in the order asked for.

    A frame of single bits begins at the first bit of its first byte, wherever it lies in the file, and its
    last byte is filled up with zeros. Raises UnreadableInstanceError, StorageError.
    """
    if pixels.is_encapsulated or pixels.offset is None:
        yield from _by_codec(pixels, indices)
    else:
        for index in indices:
            yield _native(pixels, index)


def _native(pixels: PixelData, index: int) -> bytes:
    first = index * pixels.bits_per_frame
    last = first + pixels.bits_per_frame
    try:
        with pixels.path.open("rb") as file:
            file.seek((pixels.offset or 0) + first // 8)
            content = file.read((last + 7) // 8 - first // 8)
    except OSError as exc:
        raise StorageError(f"archive: {exc.strerror}") from exc
    if pixels.bits_allocated == 1:
        return _aligned(content, first % 8, pixels.bits_per_frame)
    if pixels.transfer_syntax == ExplicitVRBigEndian and pixels.bits_allocated > 8:
        width = pixels.bits_allocated // 8
        return np.frombuffer(content, f">u{width}").astype(f"<u{width}").tobytes()
    return content


def _aligned(content: bytes, skipped_bits: int, bits: int) -> bytes:
    """Shift single bits so that they begin with the first byte, in its lowest bit (PS3.5 D)."""
    if skipped_bits == 0 and bits % 8 == 0:
        return content
    unpacked = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    return np.packbits(unpacked[skipped_bits : skipped_bits + bits], bitorder="little").tobytes()


def _by_codec(pixels: PixelData, indices: Sequence[int]) -> Iterator[bytes]:
    with Codecs() as codecs:
        try:
            for plane in codecs.decoded(pixels.path, pixels.transfer_syntax, indices):
                if pixels.bits_allocated == 1:
                    yield np.packbits(plane.astype(np.uint8).ravel(), bitorder="little").tobytes()
                else:
                    yield plane.astype(plane.dtype.newbyteorder("<")).tobytes()
        except DECODE_FAILURES as exc:
            if isinstance(exc, OSError) and exc.errno is not None:  # the system's; pydicom has its own
                raise StorageError(f"archive: {exc.strerror}") from exc
            raise UnreadableInstanceError(
                f"pixels cannot be decoded from transfer syntax {pixels.transfer_syntax} "
                f"({type(exc).__name__})"
            ) from exc
