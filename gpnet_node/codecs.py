"""Which codec decodes the pixels of which transfer syntax (PS3.5 A.4): one choice for all who decode."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

# Where another codec is there, GDCM is kept out: it returns a part of a JPEG-LS image that is larger than
# its header says, and ends the whole process on some damaged JPEG 2000 streams.
_NONE = ""
_CODEC_OF = {
    ImplicitVRLittleEndian: _NONE,
    ExplicitVRLittleEndian: _NONE,
    ExplicitVRBigEndian: _NONE,
    DeflatedExplicitVRLittleEndian: _NONE,
    RLELossless: "pydicom",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
}
_LAST_RESORT = "gdcm"


def only_gdcm_decodes(syntax: UID) -> bool:
    """Whether a damaged stream may end the process that decodes it: JPEG, lossless JPEG among it."""
    return syntax not in _CODEC_OF


def decode(path: Path, syntax: UID, indices: Sequence[int] | None = None) -> Iterator[NDArray[Any]]:
    """Frames of a file in the order asked for (counted from 0; all, if not), one at a time.

    Raises what pydicom and the codec raise; they have no error class for it.
    """
    if syntax == DeflatedExplicitVRLittleEndian:  # pydicom inflates such a data set as a whole
        return iter_pixels(dcmread(path), indices=indices)
    return iter_pixels(path, indices=indices, decoding_plugin=_CODEC_OF.get(syntax, _LAST_RESORT))
