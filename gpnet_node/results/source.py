"""The images that a result refers to: which instances, in which planes, of which patient."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import highdicom as hd
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.imaging.elements import PARSE_FAILURES, file_failure, required_integer
from gpnet_node.imaging.frames import Frame, read_headers
from gpnet_node.imaging.volume import SourceFrame, Volume

# Type 2 of the Patient and General Study modules: present in every result, empty where the source has none.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
# A result made of images that were compressed with loss says so too (PS3.3 C.7.6.1.1.5).
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_LARGEST_IS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One object that a result refers to. ``kind``: of a result of ours; empty for others."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    kind: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Headers of a volume's frames, in slice order.

    ``header``: the first instance, its text decoded by its own character set (PS3.3 C.12.1.1.2).
    """

    frames: tuple[Frame, ...]
    header: Dataset

    @property
    def study_instance_uid(self) -> str:
        """Study of the source, which the results join."""
        return self.frames[0].study_instance_uid

    @property
    def series_instance_uid(self) -> str:
        """Series of the source."""
        return self.frames[0].series_instance_uid

    def result_series_number(self, which: int) -> int:
        """SeriesNumber of a result series: a hundred times the source's, and which one of its results it is.

        ``which`` alone where the source's number is absent, negative, or too large for that to be an Integer
        String (PS3.5 6.2); series of one number are told apart by UID and description.
        """
        where = f"SOP instance {self.header.get('SOPInstanceUID')}"
        number = required_integer(self.header, "SeriesNumber", where, default=0)
        return 100 * number + which if 0 <= number <= (_LARGEST_IS - 99) // 100 else which

    @cached_property
    def instances(self) -> tuple[SourceFrame, ...]:
        """One frame for each SOP instance, in order of first use."""
        return tuple({frame.source.sop_instance_uid: frame.source for frame in self.frames}.values())

    def evidence(self) -> list[Dataset]:
        """One dataset for each SOP instance with the UIDs that references are made of."""
        return [
            self.blank(
                Reference(
                    series_instance_uid=self.series_instance_uid,
                    sop_class_uid=frame.sop_class_uid,
                    sop_instance_uid=frame.sop_instance_uid,
                )
            )
            for frame in self.instances
        ]

    def planes(self, geometry: hd.VolumeGeometry, columns: int) -> list[Dataset]:
        """Each frame as a single-frame image of so many columns that highdicom can copy the plane from.

        Position and spacing are the source's own decimal strings, so that a result lies on exactly the
        source grid; the orientation is the first frame's, since all frames of a volume share it. The
        SOP Instance UID is the slice index under 2.25, to be replaced by the true reference.
        """
        first = self.frames[0]
        planes = [self._plane(index, frame, first, geometry) for index, frame in enumerate(self.frames)]
        for plane in planes:
            plane.Columns = columns
        return planes

    def _plane(self, index: int, frame: Frame, first: Frame, geometry: hd.VolumeGeometry) -> Dataset:
        plane = self.blank(
            Reference(
                series_instance_uid=self.series_instance_uid,
                sop_class_uid=MRImageStorage,
                sop_instance_uid=f"2.25.{index}",
            )
        )
        plane.Modality = "MR"
        plane.Rows = first.rows
        plane.FrameOfReferenceUID = first.frame_of_reference_uid
        plane.PositionReferenceIndicator = self.header.get("PositionReferenceIndicator")
        plane.ImagePositionPatient = list(frame.texts("ImagePositionPatient"))
        plane.ImageOrientationPatient = list(first.texts("ImageOrientationPatient"))
        plane.PixelSpacing = list(first.texts("PixelSpacing"))
        for keyword in LOSSY:
            if self.header.get(keyword):
                setattr(plane, keyword, self.header[keyword].value)
        stated = first.text("SliceThickness") if first.number("SliceThickness") else None
        plane.SliceThickness = stated or round(geometry.spacing_between_slices, 6)
        return plane

    def blank(self, reference: Reference) -> Dataset:
        """An object of the source's study with the UIDs that references are made of, and no more."""
        return blank(self.study_instance_uid, reference)


def blank(study_instance_uid: str, reference: Reference) -> Dataset:
    """An object with the UIDs that references are made of, empty where the standard wants an attribute."""
    empty = Dataset()
    for keyword in _TYPE_2:
        setattr(empty, keyword, None)
    empty.SOPClassUID, empty.SOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
    empty.StudyInstanceUID, empty.SeriesInstanceUID = study_instance_uid, reference.series_instance_uid
    return empty


def read_source(volume: Volume) -> Source:
    """Read the headers of the volume's frames again, from the files that it names.

    Raises UnreadableInstanceError or StorageError where a file has changed since the volume was built.
    """
    paths = tuple(dict.fromkeys(frame.path for frame in volume.frames))
    by_name = {_name(frame.source): frame for frame in read_headers(paths)}
    frames = []
    for wanted in volume.frames:
        if _name(wanted) not in by_name:
            raise UnreadableInstanceError(f"SOP instance {wanted.sop_instance_uid} is no longer in its file")
        frames.append(by_name[_name(wanted)])
    return Source(frames=tuple(frames), header=read_header(frames[0].source.path))


def read_header(path: Path) -> Dataset:
    """An instance without its pixels, its text decoded by its own character set (PS3.3 C.12.1.1.2).

    Raises UnreadableInstanceError or StorageError.
    """
    try:
        header = dcmread(path, stop_before_pixels=True)
        list(header.iterall())  # finds what cannot be read: of a fault decode's text doubles with each level
        header.decode()
    except OSError as exc:
        raise file_failure(exc, f"file {path.name}") from exc
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"file {path.name}: it cannot be read, or its text decoded") from exc
    return header


def _name(frame: SourceFrame) -> tuple[str, int | None]:
    return frame.sop_instance_uid, frame.frame_number
