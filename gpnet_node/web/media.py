"""Media types: what a request accepts, and which of it we can give (PS3.18 8.7; RFC 9110 12.5.1)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import HTTPException, Request
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

DICOM, DICOM_JSON, JSON = "application/dicom", "application/dicom+json", "application/json"
OCTETS, MULTIPART = "application/octet-stream", "multipart/related"
_ANY = "*/*"

# PS3.18 8.7.3.3: the media type of one compressed frame; first the syntax that is meant if none is stated.
_FRAME_TYPES: Mapping[str, tuple[UID, ...]] = {
    "image/jpeg": (JPEGLosslessSV1, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless),
    "image/jls": (JPEGLSLossless, JPEGLSNearLossless),
    "image/jp2": (JPEG2000Lossless, JPEG2000),
    "image/jphc": (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K),
    "image/dicom-rle": (RLELossless,),
}
# Commas and semicolons inside quotes are no separators.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PIECE = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*")+')
_MAX_HEADER = 4096


@dataclass(frozen=True, kw_only=True)
class MediaRange:
    """One thing that a request accepts.

    ``inner``: the type of the parts of multipart/related. ``transfer_syntax``: a UID, ``*``, or nothing.
    """

    name: str
    inner: str = ""
    transfer_syntax: str = ""
    quality: float = 1.0

    @property
    def content(self) -> str:
        """The media type of what is asked for, whether in parts or as one."""
        return (self.inner or _ANY) if self.name in (MULTIPART, "multipart/*") else self.name


def accepted(request: Request) -> tuple[MediaRange, ...]:
    """Return what a request accepts, what it likes best first: the query's ``accept``, else the header.

    Raises HTTPException 400 for a header beyond all reason.
    """
    text = request.query_params.get("accept") or ", ".join(request.headers.getlist("accept")) or _ANY
    if len(text) > _MAX_HEADER:
        raise HTTPException(400, "the Accept header is too long")
    ranges = [_range(element) for element in _ELEMENT.findall(text)]
    return tuple(sorted((it for it in ranges if it.quality > 0), key=lambda it: -it.quality))


def parameters(text: str) -> tuple[str, Mapping[str, str]]:
    """Split a media type into its name and its parameters, names in lower case."""
    name, *pairs = _PIECE.findall(text) or [""]
    split = (pair.partition("=") for pair in pairs)
    return name.strip().lower(), {key.strip().lower(): value.strip().strip('"') for key, _, value in split}


def _range(element: str) -> MediaRange:
    name, given = parameters(element)
    try:
        quality = float(given.get("q", "1"))
    except ValueError:
        quality = 0.0
    return MediaRange(
        name=name,
        inner=given.get("type", "").lower(),
        transfer_syntax=given.get("transfer-syntax", ""),
        quality=quality,
    )


def first_of(ranges: Sequence[MediaRange], offered: Sequence[str]) -> str:
    """Return the offered single-part media type that the request likes best. Raises HTTPException 406."""
    for wanted in ranges:
        for media_type in offered:
            if _covers(wanted.name, media_type):
                return media_type
    raise HTTPException(406, f"this resource comes as {', '.join(offered)}")


def in_parts(ranges: Sequence[MediaRange], media_type: str) -> bool:
    """Whether the request takes multipart/related rather than the one part as it is."""
    first = next((it for it in ranges if _covers(it.content, media_type)), None)
    return first is None or first.name != media_type


def instance_syntax(ranges: Sequence[MediaRange], stored: UID) -> UID:
    """Return the transfer syntax of an instance to be sent: as stored where that is accepted, else decoded.

    Where none is stated, Explicit VR Little Endian is meant (PS3.18 8.7.3.1). Raises HTTPException 406.
    """
    wanted = {
        it.transfer_syntax or ("*" if it.content == _ANY else ExplicitVRLittleEndian)
        for it in ranges
        if _covers(it.content, DICOM)
    }
    if wanted & {"*", stored}:
        return stored
    if ExplicitVRLittleEndian in wanted:
        return ExplicitVRLittleEndian
    raise HTTPException(406, f"instances come as {DICOM}, as stored or in Explicit VR Little Endian")


def frame_type(ranges: Sequence[MediaRange], stored: UID) -> tuple[str, UID]:
    """Return media type and transfer syntax of frames: as stored where that is accepted, else decoded.

    Raises HTTPException 406.
    """
    ours, syntaxes = next(
        ((name, them) for name, them in _FRAME_TYPES.items() if stored in them), (OCTETS, ())
    )
    for it in ranges:
        if ours != OCTETS and _covers(it.content, ours):
            meant = it.transfer_syntax or ("*" if "*" in it.content else syntaxes[0])
            if meant in ("*", stored):
                return ours, stored
        if _covers(it.content, OCTETS):
            if it.transfer_syntax in ("", "*", ExplicitVRLittleEndian):
                return OCTETS, ExplicitVRLittleEndian
            if ours != OCTETS and it.transfer_syntax == stored:
                return OCTETS, stored
    raise HTTPException(406, f"frames come as {OCTETS}" + (f" or {ours}" if ours != OCTETS else ""))


def _covers(pattern: str, media_type: str) -> bool:
    return pattern in (_ANY, media_type) or pattern == media_type.partition("/")[0] + "/*"
