"""Where the pixels of a frame lie in its file, and in which form (PS3.3 C.7.6.3, PS3.5 8)."""

import struct
import zlib
from dataclasses import dataclass, replace
from typing import BinaryIO

from pydicom import Dataset
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from gpnet_node.errors import NotAVolumeError, UnreadableInstanceError
from gpnet_node.imaging.elements import (
    header_uid,
    look_up,
    required_integer,
    stated,
)

NATIVE_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
# Syntaxes that may lose information; JPEG 2000 here is the one without "Lossless Only" (PS3.5 A.4).
LOSSY_SYNTAXES = (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
)
PIXEL_DATA = (0x7FE0, 0x0010)
UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds checked before anything is allocated, so that one bad header cannot take the memory."""

    side: int = 4096  # rows or columns of one image; MR matrices stay under 2048
    voxels: int = 2**28  # of one volume: 1 GiB as float32
    frames: int = 20_000  # headers of one series held at once
    inflated_bytes: int = 2**30  # of one deflated data set, which pydicom inflates whole


@dataclass(frozen=True, kw_only=True)
class PixelLayout:
    """How the pixels of one frame are stored; grey, one sample per pixel, 8, 16 or 32 bits allocated."""

    rows: int
    columns: int
    number_of_frames: int
    frame_index: int  # 0-based in the instance
    transfer_syntax: UID
    little_endian: bool
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str  # MONOCHROME1 or MONOCHROME2
    lossy: bool
    offset: int | None = None  # first byte of the value of Pixel Data in the file; None: it is deflated

    @property
    def native(self) -> bool:
        """Whether the values lie uncompressed in the file."""
        return self.transfer_syntax in NATIVE_SYNTAXES

    @property
    def frame_bytes(self) -> int:
        """Bytes of one native frame."""
        return self.rows * self.columns * self.bits_allocated // 8


def read_layout(header: Dataset, where: str, limits: Limits) -> PixelLayout:
    """Image Pixel module of one instance (PS3.3 C.7.6.3).

    Raises NotAVolumeError for colour and for a matrix beyond ``limits``, UnreadableInstanceError for
    attributes that contradict each other.
    """
    if look_up(header, "Rows", where) is None:
        raise NotAVolumeError(f"{where} has no pixel data")
    samples = required_integer(header, "SamplesPerPixel", where, default=1)
    photometric = " ".join(filter(None, stated(header, "PhotometricInterpretation", where)))
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        known = photometric if photometric in list(PhotometricInterpretation) else "none of the standard's"
        raise NotAVolumeError(f"{where} is a colour image ({samples} samples per pixel, {known})")
    rows, columns = (required_integer(header, keyword, where) for keyword in ("Rows", "Columns"))
    if not (1 <= rows <= limits.side and 1 <= columns <= limits.side):
        raise NotAVolumeError(f"{where} states {rows} x {columns} pixels; the limit is {limits.side} a side")
    layout = PixelLayout(
        rows=rows,
        columns=columns,
        number_of_frames=required_integer(header, "NumberOfFrames", where, default=1),
        frame_index=0,
        transfer_syntax=UID(header_uid(header.file_meta, "TransferSyntaxUID", where)),
        little_endian=bool(header.original_encoding[1]),
        bits_allocated=required_integer(header, "BitsAllocated", where),
        bits_stored=required_integer(header, "BitsStored", where),
        high_bit=required_integer(header, "HighBit", where),
        signed=bool(required_integer(header, "PixelRepresentation", where)),
        photometric=photometric,
        lossy=_is_lossy(header, where),
    )
    if not (
        layout.bits_allocated in (8, 16, 32)
        and 1 <= layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated
    ):
        raise UnreadableInstanceError(
            f"{where} states {layout.bits_allocated} bits allocated, {layout.bits_stored} stored, "
            f"high bit {layout.high_bit}"
        )
    if not 1 <= layout.number_of_frames <= limits.frames:
        raise NotAVolumeError(
            f"{where} states {layout.number_of_frames} frames; the limit is {limits.frames}"
        )
    return layout


def _is_lossy(header: Dataset, where: str) -> bool:
    flag = stated(header, "LossyImageCompression", where)
    return "01" in flag or header.file_meta.TransferSyntaxUID in LOSSY_SYNTAXES


def locate_pixels(file: BinaryIO, header: Dataset, layout: PixelLayout, where: str) -> PixelLayout:
    """Find the pixel data element at the present position of ``file`` and check that it is all there.

    Raises NotAVolumeError if there is none, UnreadableInstanceError if it is too short.
    """
    if layout.transfer_syntax == DeflatedExplicitVRLittleEndian:
        return layout  # inside the deflated stream; its length is checked when it is decoded
    length = _pixel_data_length(file, implicit=bool(header.original_encoding[0]), layout=layout, where=where)
    offset = file.tell()
    if not layout.native:
        if length != UNDEFINED_LENGTH:
            raise UnreadableInstanceError(f"{where}: compressed pixel data is not encapsulated (PS3.5 A.4)")
        return replace(layout, offset=offset)
    available = file.seek(0, 2) - offset
    needed = layout.frame_bytes * layout.number_of_frames
    if min(length, available) < needed:
        raise UnreadableInstanceError(
            f"{where} holds {min(length, available)} bytes of pixel data instead of {needed}"
        )
    return replace(layout, offset=offset)


def _pixel_data_length(file: BinaryIO, *, implicit: bool, layout: PixelLayout, where: str) -> int:
    order = "<" if layout.little_endian else ">"
    head = file.read(8)
    if len(head) < 8:
        raise NotAVolumeError(f"{where} has no pixel data, or is cut short before it")
    tag = struct.unpack(order + "HH", head[:4])
    if tag != PIXEL_DATA:
        raise NotAVolumeError(
            f"{where} has no integer pixel data ({tag[0]:04X},{tag[1]:04X} comes in its place)"
        )
    tail = head[4:] if implicit else file.read(4)
    return int(struct.unpack(order + "L", tail)[0]) if len(tail) == 4 else 0


def check_inflated(file: BinaryIO, where: str, limits: Limits) -> None:
    """Refuse a deflated data set (PS3.5 A.5) that grows beyond the limit; leaves ``file`` at its start."""
    head = file.read(512)
    file.seek(0)
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return
    file.seek(
        144 + struct.unpack("<L", head[140:144])[0]
    )  # PS3.10 7.1: the group length is the first element
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof:
        chunk = inflater.unconsumed_tail or file.read(1 << 16)
        total += len(inflater.decompress(chunk, 1 << 20))
        if total > limits.inflated_bytes:
            raise NotAVolumeError(f"{where} inflates to more than {limits.inflated_bytes} bytes")
        if not chunk:
            break
    file.seek(0)
