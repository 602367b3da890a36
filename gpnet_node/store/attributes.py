"""What the catalogue knows of patients, studies, series and instances: one table for all who fill or ask it.

The columns bear DICOM's keywords. Values are texts as decoded: several are parted by a backslash, dates are
YYYYMMDD, integers are written without padding, and what is not there is empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag


class Level(StrEnum):
    """A level of the query/retrieve information models, in the word that identifiers use (PS3.4 C.6)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    def includes(self, other: "Level") -> bool:
        """Whether what is known at ``other`` is known at this level: a series has a patient."""
        order = list(Level)
        return order.index(other) <= order.index(self)


# The unique key of each level (PS3.4 C.6.1.1, C.6.2.1).
UNIQUE_KEYS: Mapping[Level, str] = MappingProxyType(
    {
        Level.PATIENT: "PatientID",
        Level.STUDY: "StudyInstanceUID",
        Level.SERIES: "SeriesInstanceUID",
        Level.IMAGE: "SOPInstanceUID",
    }
)

_KEYWORDS: Mapping[Level, tuple[str, ...]] = {
    Level.PATIENT: (
        "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex",
        "OtherPatientIDs",
    ),
    Level.STUDY: (
        "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription",
        "ReferringPhysicianName", "PatientAge", "TimezoneOffsetFromUTC",
    ),
    Level.SERIES: (
        "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime",
        "ProtocolName", "BodyPartExamined", "Laterality", "FrameOfReferenceUID", "Manufacturer",
        "ManufacturerModelName", "StationName", "InstitutionName", "PerformingPhysicianName", "OperatorsName",
        "PerformedProcedureStepID", "PerformedProcedureStepDescription", "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
    ),
    Level.IMAGE: (
        "SOPInstanceUID", "SOPClassUID", "InstanceNumber", "ContentDate", "ContentTime", "AcquisitionNumber",
        "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ImageType", "NumberOfFrames", "Rows",
        "Columns", "BitsAllocated", "ContentLabel", "ContentDescription", "CompletionFlag",
        "VerificationFlag", "AvailableTransferSyntaxUID",
    ),
}  # fmt: skip
# What is counted or gathered from the level below when it is asked for (PS3.4 C.3.4).
_GATHERED: Mapping[Level, tuple[str, ...]] = {
    Level.PATIENT: (
        "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances",
    ),
    Level.STUDY: (
        "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "ModalitiesInStudy",
        "SOPClassesInStudy",
    ),
    Level.SERIES: ("NumberOfSeriesRelatedInstances",),
    Level.IMAGE: (),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One attribute that can be asked for. ``gathered``: from the rows below, it has no column of its own."""

    keyword: str
    tag: BaseTag
    vr: str
    level: Level
    gathered: bool


def _attribute(keyword: str, level: Level, *, gathered: bool) -> Attribute:
    tag = tag_for_keyword(keyword)
    assert tag is not None  # the dictionary's own keywords
    return Attribute(keyword=keyword, tag=BaseTag(tag), vr=dictionary_VR(tag), level=level, gathered=gathered)


ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType(
    {
        keyword: _attribute(keyword, level, gathered=gathered)
        for keywords, gathered in ((_KEYWORDS, False), (_GATHERED, True))
        for level in Level
        for keyword in keywords[level]
    }
)


def columns_of(*levels: Level) -> tuple[str, ...]:
    """Return the keywords that have a column at these levels."""
    return tuple(k for k, it in ATTRIBUTES.items() if it.level in levels and not it.gathered)
