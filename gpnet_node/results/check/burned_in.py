"""What the self-check asks of a series with burned-in contours: its grid, its window and every pixel.

Read back with plain pydicom and numpy; shares no code with the writer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.elements import PARSE_FAILURES
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.identity import check_identity, read_identity

# Positions are the source's own, of which assembly lets this much drift pass (imaging.series).
POSITION_TOLERANCE_MM = 0.1
# Direction cosines that assembly makes orthonormal (imaging.frames), and spacing, relative.
DIRECTION_TOLERANCE = 1e-3

_REQUIRED = (
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SourceImageSequence",
)
_ASKED = (
    "WindowCenter",
    "WindowWidth",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
# City-block distance from a structure's pixel: the bright line is one away, the dark one two.
_ONE_AWAY = ((0, 1), (0, -1), (1, 0), (-1, 0))
_TWO_AWAY = ((0, 2), (0, -2), (2, 0), (-2, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(kw_only=True, eq=False)
class _Seen:
    """What is known of the series after some of its images."""

    slices: set[int] = field(default_factory=set)
    series: set[str] = field(default_factory=set)
    bright: set[int] = field(default_factory=set)  # values of the bright line, one if all is well
    dark: set[int] = field(default_factory=set)
    least: int = 2**31
    most: int = -(2**31)
    first: NDArray[np.int64] | None = None  # pixels of the first image
    changing: NDArray[np.bool_] | None = None  # what is not the same in all images
    foreign: NDArray[np.bool_] | None = None  # what was neither the source's nor a line in some image


def check_burned_in(
    images: Iterable[bytes], volume: Volume, labels: LabelMap, card: ModelCard, findings: Findings
) -> None:
    """Compare a series, one image at a time, with the volume and the label map.

    Every slice is there once, on the source's place and grid, refers to the image it was made of and shows by
    the same window; the lines are where the label map's borders are, with the extremes of the series; every
    other pixel is the source's, but for one word that is the same in all images and touches no structure.
    Raises SelfCheckError where an image cannot be read back, StorageError where the source cannot.
    """
    seen, identity, windows = _Seen(), read_identity(volume), _windows(volume)
    for data in images:
        image, pixels = _read(data)
        index = _check_plane(image, volume, findings)
        check_identity("image with contours", image, identity, findings)
        _check_marks(image, findings)
        seen.series.add(str(image.SeriesInstanceUID))
        if index is None or pixels.shape != labels.labels.shape[1:]:
            continue
        findings.expect(index not in seen.slices, f"two images with contours lie on slice {index + 1}")
        seen.slices.add(index)
        same = _window(image) == windows[index]
        findings.expect(same, f"slice {index + 1} with contours has another window than its source")
        _check_pixels(pixels, image, index, volume, labels, card, seen, findings)
    _check_series(seen, labels, findings)


def _read(data: bytes) -> tuple[Dataset, NDArray[np.int64]]:
    """An image and its stored pixels, with every attribute that is asked of it. Raises SelfCheckError."""
    try:
        image = dcmread(BytesIO(data))
        pixels = image.pixel_array.astype(np.int64)
        missing = [keyword for keyword in _REQUIRED if not image[keyword].value]
    except (*PARSE_FAILURES, RuntimeError) as exc:
        raise SelfCheckError(f"an image with contours cannot be read back ({type(exc).__name__})") from exc
    if missing:
        raise SelfCheckError(f"an image with contours has no {missing[0]}")
    return image, pixels


def _check_plane(image: Dataset, volume: Volume, findings: Findings) -> int | None:
    """Return the slice that an image lies on, None where it lies on none."""
    affine = np.asarray(volume.geometry.affine, dtype=float)
    axes = affine[:3, [2, 1]] / np.linalg.norm(affine[:3, [2, 1]], axis=0)
    spacing = np.linalg.norm(affine[:3, [1, 2]], axis=0)
    _, rows, columns = volume.voxels.shape
    own = np.array(image.ImageOrientationPatient, dtype=float)
    for holds, word in (
        (
            image.FrameOfReferenceUID == volume.geometry.frame_of_reference_uid,
            "is in another frame of reference",
        ),
        ((image.Rows, image.Columns) == (rows, columns), "has another matrix"),
        (np.abs(own - axes.T.ravel()).max() <= DIRECTION_TOLERANCE, "has another orientation"),
        (
            np.allclose(np.array(image.PixelSpacing, float), spacing, rtol=DIRECTION_TOLERANCE),
            "has another spacing",
        ),
    ):
        findings.expect(bool(holds), f"an image with contours {word} than its source")
    offset = np.array(image.ImagePositionPatient, dtype=float) - affine[:3, 3]
    step = affine[:3, 0]
    index = round(float(offset @ step / (step @ step)))
    near = np.linalg.norm(offset - index * step) <= POSITION_TOLERANCE_MM
    if not (near and 0 <= index < len(volume.frames)):
        findings.expect(False, "an image with contours lies on no slice of the source")
        return None
    source, wanted = image.SourceImageSequence[0], volume.frames[index]
    number = source.get("ReferencedFrameNumber")
    findings.expect(
        (str(source.ReferencedSOPInstanceUID), None if number is None else int(number))
        == (wanted.sop_instance_uid, wanted.frame_number),
        f"slice {index + 1} with contours does not refer to the source image that it lies on",
    )
    return index


def _check_marks(image: Dataset, findings: Findings) -> None:
    derived = list(image.get("ImageType", []))[:2] == ["DERIVED", "SECONDARY"]
    findings.expect(derived, "an image with contours is not marked DERIVED\\SECONDARY")


def _check_pixels(
    pixels: NDArray[np.int64],
    image: Dataset,
    index: int,
    volume: Volume,
    labels: LabelMap,
    card: ModelCard,
    seen: _Seen,
    findings: Findings,
) -> None:
    bright, dark = _lines(labels.labels[index], card)
    flat = pixels.ravel()
    seen.bright |= set(np.unique(flat[bright]).tolist())
    seen.dark |= set(np.unique(flat[dark]).tolist())
    seen.least, seen.most = min(seen.least, int(flat.min())), max(seen.most, int(flat.max()))
    slope, intercept = float(image.get("RescaleSlope") or 1), float(image.get("RescaleIntercept") or 0)
    foreign = np.abs(pixels - (volume.voxels[index].astype(float) - intercept) / slope) > 0.5
    foreign.flat[bright] = foreign.flat[dark] = False
    if seen.first is None or seen.changing is None or seen.foreign is None:
        seen.first, seen.changing, seen.foreign = pixels, np.zeros(pixels.shape, bool), foreign
        return
    seen.changing |= pixels != seen.first
    seen.foreign |= foreign


def _lines(labels: NDArray[np.uint8], card: ModelCard) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Flat indices of the bright and of the dark line, by distances from each structure's pixels."""
    bright, dark = np.empty(0, np.intp), np.empty(0, np.intp)
    smaller_first = sorted(card.structures, key=lambda it: (sum(it.volume_range_mm3), it.number))
    shown = np.empty(0, np.intp)
    for structure in smaller_first:
        places = np.argwhere(labels == structure.number)
        shown = np.union1d(shown, np.ravel_multi_index((places[:, 0], places[:, 1]), labels.shape))
        one = _moved(places, _ONE_AWAY, labels.shape)
        two = np.setdiff1d(_moved(places, _TWO_AWAY, labels.shape), one)
        bright = np.union1d(bright, np.setdiff1d(one, shown))
        dark = np.union1d(dark, np.setdiff1d(two, shown))
    return bright, np.setdiff1d(dark, bright)


def _moved(
    places: NDArray[np.intp], offsets: Sequence[tuple[int, int]], shape: tuple[int, ...]
) -> NDArray[np.intp]:
    moved = (places[:, None] + np.array(offsets)).reshape(-1, 2)
    within = moved[((moved >= 0) & (moved < shape)).all(axis=1)]
    return np.asarray(np.unique(np.ravel_multi_index((within[:, 0], within[:, 1]), shape)))


def _check_series(seen: _Seen, labels: LabelMap, findings: Findings) -> None:
    total = labels.labels.shape[0]
    missing = total - len(seen.slices)
    findings.expect(not missing, f"{missing} of {total} slices have no image with contours")
    findings.expect(len(seen.series) <= 1, "the images with contours are in several series")
    if seen.first is None or seen.changing is None or seen.foreign is None:
        return
    for name, found, extreme in (("bright", seen.bright, seen.most), ("dark", seen.dark, seen.least)):
        findings.expect(
            found <= {extreme},
            f"the {name} line of the contours is not where the label map's border is, or not of the series' "
            "extreme value",
        )
    word = seen.foreign
    findings.expect(bool(word.any()), "the images with contours do not say RESEARCH")
    strange = int((word & seen.changing).sum())
    values = set(np.unique(seen.first[word]).tolist())
    findings.expect(
        not strange and values <= {seen.least, seen.most},
        f"{max(strange, 1)} pixels of the images with contours are neither the source's nor a line's nor the "
        "word's",
    )
    findings.expect(
        not (word & labels.labels.any(axis=0)).any(), "a word is burned in over a structure of some slice"
    )


def _windows(volume: Volume) -> list[tuple[str, str]]:
    """Of each slice's source: top level, or the frame's group, or the shared one (PS3.3 C.7.6.16.2.10)."""
    return list(_read_windows(volume))


def _read_windows(volume: Volume) -> Iterator[tuple[str, str]]:
    headers: dict[str, Dataset] = {}
    for frame in volume.frames:
        if str(frame.path) not in headers:
            headers = {
                str(frame.path): dcmread(frame.path, stop_before_pixels=True, specific_tags=list(_ASKED))
            }
        header = headers[str(frame.path)]
        places = [header]
        if frame.frame_number is not None:
            per_frame = header.PerFrameFunctionalGroupsSequence[frame.frame_number - 1]
            groups = [per_frame, *header.get("SharedFunctionalGroupsSequence", [])]
            places = [*(item for group in groups for item in group.get("FrameVOILUTSequence", [])), header]
        yield next((window for window in map(_window, places) if window != ("", "")), ("", ""))


def _window(image: Dataset) -> tuple[str, str]:
    """Centre and width as they are written; empty where there is none."""
    centre, width = image.get("WindowCenter"), image.get("WindowWidth")
    return ("" if centre is None else str(centre), "" if width is None else str(width))
