"""An archived instance in another transfer syntax, for a peer that does not take it as it is stored."""

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.imaging.decoding import DECODE_FAILURES, Codecs
from gpnet_node.store.instance import read_received
from gpnet_node.store.versions import UNREADABLE, data_set_start

# Words whose bytes pydicom leaves in the order of the transfer syntax (PS3.5 7.3).
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_OF_ENCODING_ONLY = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def converted(path: Path, *, to: UID, codecs: Codecs, max_bytes: int) -> Dataset:
    """Read a file and return its data set with native pixels, ready to be written in transfer syntax ``to``.

    Values are unchanged; compressed pixels are decoded, colours to RGB, and what is said of a lossy
    compression stays said. ``to`` is a native little-endian syntax, and a data set that needs more than
    ``max_bytes`` for its pixels is refused before they are decoded. Raises UnreadableInstanceError, which
    names the instance.
    """
    try:
        data_set = dcmread(path)
        syntax = UID(data_set.file_meta.TransferSyntaxUID)
        with path.open("rb") as file:  # pydicom reads what is cut short without a word
            start = data_set_start(file)
            read_received(file, start=start, transfer_syntax=syntax, max_bytes=max_bytes)
        if syntax.is_encapsulated and "PixelData" in data_set:
            _decode(data_set, path, syntax, codecs, max_bytes)
        elif not syntax.is_little_endian:
            _swap_words(data_set)
        list(data_set.iterall())  # all values, as the file's encoding means them
    except (*DECODE_FAILURES, *UNREADABLE, OSError) as exc:
        raise UnreadableInstanceError(f"{path.name} cannot be converted ({type(exc).__name__})") from exc
    data_set.file_meta.TransferSyntaxUID = to
    data_set.set_original_encoding(to.is_implicit_VR, True, data_set.original_character_set)
    return data_set


def _decode(data_set: Dataset, path: Path, syntax: UID, codecs: Codecs, max_bytes: int) -> None:
    count = int(data_set.get("NumberOfFrames", None) or 1)
    if get_expected_length(data_set, "bytes") > max_bytes:
        raise ValueError("more pixels than an instance may have")
    frames = codecs.decoded(path, syntax, range(count))
    pixels = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
    for keyword in _OF_ENCODING_ONLY:
        if keyword in data_set:
            delattr(data_set, keyword)
    if int(data_set.SamplesPerPixel) > 1:
        data_set.PlanarConfiguration = 0
        if str(data_set.PhotometricInterpretation).startswith("YBR"):
            data_set.PhotometricInterpretation = "RGB"
    data_set.PixelData = pixels + b"\0" * (len(pixels) % 2)
    data_set["PixelData"].VR = "OB" if int(data_set.BitsAllocated) <= 8 else "OW"
    data_set["PixelData"].is_undefined_length = False


def _swap_words(data_set: Dataset) -> None:
    for element in data_set.iterall():
        if isinstance(element.value, bytes) and (width := _WORD_BYTES.get(element.VR)):
            element.value = np.frombuffer(element.value, f">u{width}").astype(f"<u{width}").tobytes()
