"""A frame as a picture for people: rescaled, windowed, PNG or JPEG (PS3.18 8.3.5, PS3.3 C.11.1, C.11.2)."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_color_lut

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.versions import UNREADABLE
from gpnet_node.web.pixel_data import PixelData, decoded

PICTURES = ("image/jpeg", "image/png")  # JPEG is the default of the standard (Table 8.7.4-1)
Function = Literal["linear", "linear-exact", "sigmoid"]
_FUNCTIONS: Mapping[str, Function] = {
    "linear": "linear",
    "linear-exact": "linear-exact",
    "sigmoid": "sigmoid",
}
_MAX_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class Window:
    """Centre and width in the units of the rescaled values (PS3.3 C.11.2.1.2)."""

    centre: float
    width: float
    function: Function = "linear"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a request says of the picture. ``viewport``: width and height that it is fitted into."""

    window: Window | None = None
    viewport: tuple[int, int] | None = None
    quality: int = 90


def wishes(window: str | None, viewport: str | None, quality: str | None) -> Wishes:
    """Read the query parameters of PS3.18 8.3.5.1. Raises HTTPException 400."""
    try:
        wanted = Wishes(
            window=None if window is None else _window(*window.split(",")),
            viewport=None if viewport is None else _viewport(*viewport.split(",")),
            quality=90 if quality is None else int(quality),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise HTTPException(400, "window, viewport or quality is not as PS3.18 8.3.5.1 says") from exc
    if not 1 <= wanted.quality <= 100:
        raise HTTPException(400, "quality is a number from 1 to 100")
    return wanted


def _window(centre: str, width: str, function: str = "linear") -> Window:
    window = Window(centre=float(centre), width=float(width), function=_FUNCTIONS[function.lower()])
    if not (np.isfinite(window.centre) and 0 < window.width < np.inf):
        raise ValueError
    return window


def _viewport(width: str, height: str) -> tuple[int, int]:
    size = int(width), int(height)
    if not all(1 <= side <= _MAX_SIDE for side in size):
        raise ValueError
    return size


def render(pixels: PixelData, index: int, media_type: str, wanted: Wishes) -> bytes:
    """Return frame ``index`` (counted from 0) as a picture of ``media_type``.

    Raises UnreadableInstanceError, StorageError.
    """
    try:
        header = dcmread(pixels.path, stop_before_pixels=True)
        plane = _values(header, next(decoded(pixels, [index])), pixels)
        shown = _shown(header, plane, index, wanted.window)
    except UNREADABLE as exc:
        raise UnreadableInstanceError(f"the frame cannot be shown ({type(exc).__name__})") from exc
    picture = Image.fromarray(shown)
    if wanted.viewport is not None:
        scale = min(wanted.viewport[0] / picture.width, wanted.viewport[1] / picture.height)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if media_type == "image/png":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=wanted.quality)
    return buffer.getvalue()


def _values(header: Dataset, content: bytes, pixels: PixelData) -> NDArray[Any]:
    """Stored values, (rows, columns) or (rows, columns, 3)."""
    rows, columns = int(header.Rows), int(header.Columns)
    samples = int(header.get("SamplesPerPixel") or 1)
    if pixels.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(content, np.uint8), count=rows * columns, bitorder="little")
        return bits.reshape(rows, columns)
    if pixels.tag != 0x7FE00010:
        return np.frombuffer(content, f"<f{pixels.bits_allocated // 8}").reshape(rows, columns)
    kind = "i" if header.PixelRepresentation else "u"
    values = np.frombuffer(content, f"<{kind}{pixels.bits_allocated // 8}")
    if samples == 1:
        unused = pixels.bits_allocated - int(header.get("HighBit", pixels.bits_allocated - 1)) - 1
        return (
            ((values << unused) >> unused).reshape(rows, columns) if unused else values.reshape(rows, columns)
        )
    if header.get("PlanarConfiguration") == 1 and not pixels.is_encapsulated:
        return np.moveaxis(values.reshape(samples, rows, columns), 0, -1)
    return values.reshape(rows, columns, samples)


def _shown(header: Dataset, plane: NDArray[Any], index: int, window: Window | None) -> NDArray[np.uint8]:
    """Grey levels or colours, 0 to 255."""
    if plane.ndim == 3 or header.PhotometricInterpretation == "PALETTE COLOR":
        coloured = plane if plane.ndim == 3 else apply_color_lut(plane, header)
        deep = coloured.dtype.itemsize > 1
        return np.ascontiguousarray(coloured >> 8 if deep else coloured, dtype=np.uint8)
    slope = _number(header, index, "RescaleSlope", 1.0)
    values = plane.astype(np.float64) * slope + _number(header, index, "RescaleIntercept", 0.0)
    grey = _windowed(values, window or _own_window(header, index, values))
    return 255 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey


def _own_window(header: Dataset, index: int, values: NDArray[np.float64]) -> Window:
    """Return the image's window, or one that shows all of its values."""
    width = _number(header, index, "WindowWidth", 0.0)
    function = str(header.get("VOILUTFunction") or "LINEAR").lower().replace("_", "-")
    if width > 0:
        known = _FUNCTIONS.get(function, "linear")
        return Window(centre=_number(header, index, "WindowCenter", 0.0), width=width, function=known)
    low, high = float(values.min()), float(values.max())
    return Window(centre=(low + high) / 2, width=max(high - low, 1e-6), function="linear-exact")


def _windowed(values: NDArray[np.float64], window: Window) -> NDArray[np.uint8]:
    centre, width = window.centre, window.width
    if window.function == "sigmoid":
        share = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    elif window.function == "linear-exact" or width <= 1:
        share = (values - centre) / width + 0.5
    else:
        share = (values - (centre - 0.5)) / (width - 1) + 0.5
    return np.asarray(np.clip(share * 255 + 0.5, 0, 255), dtype=np.uint8)


def _number(header: Dataset, index: int, keyword: str, default: float) -> float:
    """Return an attribute's first value: of the frame, of all frames, or of the image."""
    for data_set in _about(header, index):
        value = data_set.get(keyword)
        if value is not None and value != "":
            return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
    return default


def _about(header: Dataset, index: int) -> Iterator[Dataset]:
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in [*per_frame[index : index + 1], *shared[:1]]:
        for name in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
            yield from (groups.get(name) or [])[:1]
    yield header
