"""One image plane as its header describes it: classic, enhanced and legacy converted multi-frame alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
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
from gpnet_node.imaging.attributes import (
    Asked,
    AttributeReader,
    Values,
    required_numbers,
    required_uid,
    strings,
)
from gpnet_node.imaging.elements import PARSE_FAILURES, file_failure, finite_numbers, header_uid
from gpnet_node.imaging.pixels import Limits, PixelLayout, check_inflated, locate_pixels, read_layout

# Direction cosines are written with three to nine digits. Rounding to three leaves none of them further than
# this from unit vectors at a right angle; what is further off is no rounding.
ORTHONORMAL_TOLERANCE = 1e-3
# Float, double float and integer pixels (PS3.3 C.7.6.24 and following, C.7.6.3).
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
# Images that an instrument acquired as planes of a volume; a segmentation or a report is none.
PLANE_CLASSES = (
    MRImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)


@dataclass(frozen=True, kw_only=True, slots=True)
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


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Frame:
    """One image plane, header only; an object that exists has a place in the patient and known pixels.

    ``values``: what its header states of the attributes that imaging asks for (``attributes.KEYWORDS``), at
    top level or in a functional group; nothing else of the header is kept. ``patient``: the same number for
    all images of one patient that were read together. ``position_mm``: LPS, centre of the first voxel;
    ``orientation``: direction cosines of row and column, the nearest to the header's that are unit vectors at
    a right angle, no cosine further from it than ``cosines_off``; ``spacing_mm``: between rows, between
    columns (PS3.3 C.7.6.2).
    """

    source: SourceFrame
    values: Values
    patient: int
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

    def number(self, asked: Asked) -> float | None:
        """Attribute as a finite number (the first, if there are several), or None where it is absent.

        It is looked for in the frame's own groups, the shared groups, then at top level. Raises
        UnreadableInstanceError where it has a wrong form, AssertionError where it is not read at all.
        """
        where = str(self.source)
        return next(iter(finite_numbers(strings(self.values, asked, where), asked, where)), None)

    def text(self, asked: Asked) -> str | None:
        """Attribute as text, several values joined by a backslash as DICOM writes them, or None."""
        return "\\".join(self.texts(asked)) or None

    def texts(self, asked: Asked) -> tuple[str, ...]:
        """All values as text without padding; empty where absent."""
        return tuple(text for text in strings(self.values, asked, str(self.source)) if text)

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
    reader = AttributeReader()
    frames: list[Frame] = []
    for number, path in enumerate(paths, start=1):
        frames.extend(_read_file(path, f"file {number} of {len(paths)}", limits, reader))
        if len(frames) > limits.frames:
            raise NotAVolumeError(f"more than {limits.frames} images in one series, at {frames[-1].source}")
    return tuple(frames)


def _read_file(path: Path, where: str, limits: Limits, reader: AttributeReader) -> list[Frame]:
    try:
        with path.open("rb") as file:
            header = _parse(file, where, limits, reader)
            uid = header_uid(header, "SOPInstanceUID", where)
            where = f"SOP instance {uid}"
            sop_class = reader.once(UID(header_uid(header, "SOPClassUID", where)))
            if sop_class not in PLANE_CLASSES:
                raise NotAVolumeError(f"{where} is no MR or CT image but {sop_class.name} ({sop_class})")
            layout = locate_pixels(file, header, read_layout(header, where, limits), where)
    except OSError as exc:
        raise file_failure(exc, where) from exc
    source = SourceFrame(path=path, sop_class_uid=sop_class, sop_instance_uid=uid, frame_number=None)
    if "PerFrameFunctionalGroupsSequence" in header:
        return _multi_frame(source, reader.of_frames(header, where), reader.patient_of(header), layout)
    if layout.number_of_frames > 1:
        raise NotAVolumeError(
            f"{where} holds {layout.number_of_frames} frames without functional groups, so without positions"
        )
    return [_frame(source, reader.of_image(header), reader.patient_of(header), reader.once(layout))]


def _parse(file: BinaryIO, where: str, limits: Limits, reader: AttributeReader) -> Dataset:
    """What ``reader`` looks at of the dataset, up to the pixel data, at which ``file`` is left standing."""
    try:
        check_inflated(file, where, limits)
        return read_partial(file, stop_when=_at_pixels, specific_tags=reader.tags)
    except InvalidDicomError as exc:
        raise UnreadableInstanceError(f"{where} is not a DICOM file (PS3.10)") from exc
    except OSError as exc:
        raise file_failure(exc, where) from exc
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"{where} cannot be parsed ({type(exc).__name__})") from exc


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in PIXELS


def _multi_frame(
    source: SourceFrame, described: Iterable[Values], patient: int, layout: PixelLayout
) -> list[Frame]:
    found = list(described)
    if len(found) != layout.number_of_frames:
        raise UnreadableInstanceError(
            f"{source} states {layout.number_of_frames} frames and describes {len(found)}"
        )
    return [
        _frame(replace(source, frame_number=index + 1), values, patient, replace(layout, frame_index=index))
        for index, values in enumerate(found)
    ]


def _frame(source: SourceFrame, values: Values, patient: int, layout: PixelLayout) -> Frame:
    where = str(source)
    if "MOSAIC" in strings(values, "ImageType", where):
        raise NotAVolumeError(f"{where} is a mosaic: many slices tiled in one image have one position only")
    row_spacing, column_spacing = required_numbers(values, "PixelSpacing", 2, where)
    if not (row_spacing > 0 and column_spacing > 0):
        raise NotAVolumeError(f"{where} has PixelSpacing {row_spacing:g} x {column_spacing:g} mm")
    x, y, z = required_numbers(values, "ImagePositionPatient", 3, where)
    orientation, cosines_off = _orthonormal(required_numbers(values, "ImageOrientationPatient", 6, where))
    if not cosines_off <= ORTHONORMAL_TOLERANCE:
        raise NotAVolumeError(
            f"{where}: ImageOrientationPatient is not two unit vectors at a right angle: a cosine is off by "
            f"{cosines_off:.2g}, more than {ORTHONORMAL_TOLERANCE:g}"
        )
    return Frame(
        source=source,
        values=values,
        patient=patient,
        study_instance_uid=required_uid(values, "StudyInstanceUID", where),
        series_instance_uid=required_uid(values, "SeriesInstanceUID", where),
        frame_of_reference_uid=required_uid(values, "FrameOfReferenceUID", where),
        position_mm=(x, y, z),
        orientation=orientation,
        cosines_off=cosines_off,
        spacing_mm=(row_spacing, column_spacing),
        pixels=layout,
    )


@lru_cache(maxsize=16)  # a series has one, as a rule
def _orthonormal(cosines: tuple[float, ...]) -> tuple[tuple[float, float, float, float, float, float], float]:
    """The orthonormal vectors nearest to the stated ones, and the largest change of a cosine.

    Nearest in the sum of squares: the orthogonal factor of the polar decomposition. The plane that the
    vectors span, and so the slice normal, stays as it is.
    """
    stated = np.array(cosines).reshape(2, 3)
    left, _, right = np.linalg.svd(stated, full_matrices=False)
    a, b, c, d, e, f = (float(cosine) for cosine in (left @ right).ravel())
    off = float(np.abs((a, b, c, d, e, f) - stated.ravel()).max())
    return (a, b, c, d, e, f), off
