"""One image plane as its header describes it: classic, enhanced and legacy converted multi-frame alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from gpnet_node.errors import NotAVolumeError, StorageError, UnreadableInstanceError
from gpnet_node.imaging.elements import (
    PARSE_FAILURES,
    as_items,
    as_numbers,
    as_texts,
    file_failure,
    look_up,
    required_numbers,
    required_uid,
)
from gpnet_node.imaging.pixels import Limits, PixelLayout, check_inflated, locate_pixels, read_layout

# Direction cosines are written with three to nine digits. Rounding to three leaves none of them further than
# this from unit vectors at a right angle; what is further off is no rounding.
ORTHONORMAL_TOLERANCE = 1e-3
# Images that an instrument acquired as planes of a volume; a segmentation or a report is none.
PLANE_CLASSES = (
    MRImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
# Vendors' protocol copies; nothing here asks for them, and thousands of headers are held at once.
LARGE_PRIVATE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class SourceFrame:
    """Where one slice of a volume came from."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None  # 1-based inside a multi-frame instance; None for a classic image

    def __str__(self) -> str:
        """Name it for a message."""
        frame = "" if self.frame_number is None else f" frame {self.frame_number}"
        return f"SOP instance {self.sop_instance_uid}{frame}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One image plane, header only; an object that exists has a place in the patient and known pixels.

    ``header``: the instance's dataset without pixel data, shared by all frames of a multi-frame instance;
    ask ``value`` for what may lie in a functional group. ``position_mm``: LPS, centre of the first voxel;
    ``orientation``: direction cosines of row and column, the nearest to the header's that are unit vectors at
    a right angle, no cosine further from it than ``cosines_off``; ``spacing_mm``: between rows, between
    columns (PS3.3 C.7.6.2).
    """

    source: SourceFrame
    header: Dataset
    groups: tuple[Dataset, ...]  # functional groups: the frame's own, then the shared ones; empty if classic
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    position_mm: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    cosines_off: float
    spacing_mm: tuple[float, float]
    pixels: PixelLayout

    @property
    def rows(self) -> int:
        """Rows of the image matrix."""
        return self.pixels.rows

    @property
    def columns(self) -> int:
        """Columns of the image matrix."""
        return self.pixels.columns

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector row x column, (3,), LPS."""
        cross = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(cross / np.linalg.norm(cross), dtype=np.float64)

    def value(self, keyword: str) -> Any:  # noqa: ANN401  # as many types as DICOM has
        """Attribute that holds for this frame: its groups, the shared groups, then the top level.

        None where it is absent or empty. Raises UnreadableInstanceError where the value has a wrong form.
        """
        return look_up(self.header, self.groups, keyword, str(self.source))

    def number(self, keyword: str) -> float | None:
        """``value`` as a finite number (the first, if there are several), or None."""
        return next(iter(as_numbers(self.value(keyword), keyword, str(self.source))), None)

    def text(self, keyword: str) -> str | None:
        """``value`` as text, several values joined by a backslash as DICOM writes them, or None."""
        values = self.texts(keyword)
        return "\\".join(values) if values else None

    def texts(self, keyword: str) -> tuple[str, ...]:
        """All values as text without padding; empty where absent."""
        return as_texts(self.value(keyword))

    def private(self, group: int, creator: str, element: int, *, macro: str | None = None) -> Any:  # noqa: ANN401
        """Private attribute (PS3.5 7.8) at top level or in a functional group macro, or None."""
        try:
            places = [i for g in self.groups for i in as_items(g.get(macro))] if macro else [self.header]
            for dataset in places:
                if creator in dataset.private_creators(group):
                    block = dataset.private_block(group, creator)
                    if element in block:
                        return block[element].value
        except PARSE_FAILURES as exc:
            name = f"private ({group:04X},xx{element:02X})"
            raise UnreadableInstanceError(f"{self.source}: {name} cannot be read") from exc
        return None

    @property
    def image_type(self) -> tuple[str, ...]:
        """FrameType of this frame, or ImageType."""
        return self.texts("FrameType") or self.texts("ImageType")

    @property
    def echo_time_ms(self) -> float | None:
        """EffectiveEchoTime (enhanced) or EchoTime."""
        effective = self.number("EffectiveEchoTime")
        return self.number("EchoTime") if effective is None else effective


def find_files(folder: Path) -> tuple[Path, ...]:
    """DICOM files below ``folder``, sorted by path.

    A file counts that carries the DICM mark (PS3.10 7.1), or whose name ends in .dcm: one that is cut short
    should be named by ``read_headers``, not passed over. Licences, notes and DICOMDIR are left out.
    Raises StorageError where the folder cannot be read.
    """
    try:
        return tuple(path for path in sorted(folder.rglob("*")) if path.is_file() and _looks_like_dicom(path))
    except OSError as exc:
        raise StorageError(f"folder {folder} cannot be read: {exc.strerror}") from exc


def _looks_like_dicom(path: Path) -> bool:
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_headers(paths: Sequence[Path], *, limits: Limits | None = None) -> tuple[Frame, ...]:
    """Read the headers of all files, in their order; pixel data stays on disk.

    Raises UnreadableInstanceError for a file that cannot be parsed, NotAVolumeError for one that is no
    plane of a volume (no position, no pixels, colour, mosaic, a UID missing, absurd matrix), and
    StorageError for one that cannot be opened. The text names the SOP Instance UID, or, where there
    is none, the number of the file in ``paths``.
    """
    limits = limits or Limits()
    frames: list[Frame] = []
    for number, path in enumerate(paths, start=1):
        frames.extend(_read_file(path, f"file {number} of {len(paths)}", limits))
        if len(frames) > limits.frames:
            raise NotAVolumeError(f"more than {limits.frames} images in one series, at {frames[-1].source}")
    return tuple(frames)


def _read_file(path: Path, where: str, limits: Limits) -> list[Frame]:
    try:
        with path.open("rb") as file:
            header = _parse(file, where, limits)
            where = f"SOP instance {required_uid(header, 'SOPInstanceUID', where)}"
            sop_class = UID(required_uid(header, "SOPClassUID", where))
            if sop_class not in PLANE_CLASSES:
                raise NotAVolumeError(f"{where} is no MR or CT image but {sop_class.name} ({sop_class})")
            layout = locate_pixels(file, header, read_layout(header, where, limits), where)
    except OSError as exc:
        raise file_failure(exc, where) from exc
    if "PerFrameFunctionalGroupsSequence" in header:
        return _multi_frame(path, header, layout, where)
    if layout.number_of_frames > 1:
        raise NotAVolumeError(
            f"{where} holds {layout.number_of_frames} frames without functional groups, so without positions"
        )
    return [_frame(path, header, (), layout, None)]


def _parse(file: BinaryIO, where: str, limits: Limits) -> Dataset:
    """Dataset up to the pixel data, at which ``file`` is left standing."""
    try:
        check_inflated(file, where, limits)
        header = dcmread(file, stop_before_pixels=True)
        for tag in [tag for tag in list(header.keys()) if tag.is_private]:
            if len(getattr(header.get_item(tag), "value", None) or b"") > LARGE_PRIVATE_BYTES:
                del header[tag]
    except InvalidDicomError as exc:
        raise UnreadableInstanceError(f"{where} is not a DICOM file (PS3.10)") from exc
    except OSError as exc:
        raise file_failure(exc, where) from exc
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"{where} cannot be parsed ({type(exc).__name__})") from exc
    return header


def _multi_frame(path: Path, header: Dataset, layout: PixelLayout, where: str) -> list[Frame]:
    own = as_items(look_up(header, (), "PerFrameFunctionalGroupsSequence", where))
    common = as_items(look_up(header, (), "SharedFunctionalGroupsSequence", where))
    if len(own) != layout.number_of_frames:
        raise UnreadableInstanceError(
            f"{where} states {layout.number_of_frames} frames and describes {len(own)}"
        )
    return [
        _frame(path, header, (item, *common), replace(layout, frame_index=index), index + 1)
        for index, item in enumerate(own)
    ]


def _frame(
    path: Path, header: Dataset, groups: tuple[Dataset, ...], layout: PixelLayout, number: int | None
) -> Frame:
    source = SourceFrame(
        path=path,
        sop_class_uid=required_uid(header, "SOPClassUID", "an image"),
        sop_instance_uid=required_uid(header, "SOPInstanceUID", "an image"),
        frame_number=number,
    )
    where = str(source)
    if "MOSAIC" in as_texts(look_up(header, (), "ImageType", where)):
        raise NotAVolumeError(f"{where} is a mosaic: many slices tiled in one image have one position only")
    row_spacing, column_spacing = required_numbers(header, groups, "PixelSpacing", 2, where)
    if not (row_spacing > 0 and column_spacing > 0):
        raise NotAVolumeError(f"{where} has PixelSpacing {row_spacing:g} x {column_spacing:g} mm")
    x, y, z = required_numbers(header, groups, "ImagePositionPatient", 3, where)
    orientation, cosines_off = _orthonormal(header, groups, where)
    return Frame(
        source=source,
        header=header,
        groups=groups,
        study_instance_uid=required_uid(header, "StudyInstanceUID", where),
        series_instance_uid=required_uid(header, "SeriesInstanceUID", where),
        frame_of_reference_uid=required_uid(header, "FrameOfReferenceUID", where),
        position_mm=(x, y, z),
        orientation=orientation,
        cosines_off=cosines_off,
        spacing_mm=(row_spacing, column_spacing),
        pixels=layout,
    )


def _orthonormal(
    header: Dataset, groups: Sequence[Dataset], where: str
) -> tuple[tuple[float, float, float, float, float, float], float]:
    """The orthonormal vectors nearest to the stated ones, and the largest change of a cosine.

    Nearest in the sum of squares: the orthogonal factor of the polar decomposition. The plane that the
    vectors span, and so the slice normal, stays as it is.
    """
    stated = np.array(required_numbers(header, groups, "ImageOrientationPatient", 6, where)).reshape(2, 3)
    left, _, right = np.linalg.svd(stated, full_matrices=False)
    a, b, c, d, e, f = (float(cosine) for cosine in (left @ right).ravel())
    off = float(np.abs((a, b, c, d, e, f) - stated.ravel()).max())
    if not off <= ORTHONORMAL_TOLERANCE:
        raise NotAVolumeError(
            f"{where}: ImageOrientationPatient is not two unit vectors at a right angle: a cosine is off by "
            f"{off:.2g}, more than {ORTHONORMAL_TOLERANCE:g}"
        )
    return (a, b, c, d, e, f), off
