"""What the index keeps of a data set's header."""

from pydicom import Dataset

from gpnet_node.store.states import Header
from gpnet_node.store.versions import UNREADABLE

TAGS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "PatientName",
    "InstanceNumber",
    "AcquisitionNumber",
    "ImagesInAcquisition",
    "NumberOfFrames",
    "ConcatenationUID",
    "InConcatenationTotalNumber",
)
_LONGEST_TEXT = 256
_LARGEST_NUMBER = 2**31 - 1  # PS3.5 6.2, IS


def header_of(data_set: Dataset) -> Header:
    """Return what the index keeps of a data set whose four UIDs are known to be there.

    A value of another kind than its element should have is left out: it is for listing and counting only, and
    the file keeps it as it was sent.
    """
    return Header(
        sop_instance_uid=_text(data_set, "SOPInstanceUID"),
        sop_class_uid=_text(data_set, "SOPClassUID"),
        series_uid=_text(data_set, "SeriesInstanceUID"),
        study_uid=_text(data_set, "StudyInstanceUID"),
        modality=_text(data_set, "Modality"),
        description=_text(data_set, "SeriesDescription"),
        patient_id=_text(data_set, "PatientID"),
        patient_name=_text(data_set, "PatientName"),
        instance_number=_number(data_set, "InstanceNumber"),
        acquisition_number=_number(data_set, "AcquisitionNumber"),
        images_in_acquisition=_number(data_set, "ImagesInAcquisition"),
        number_of_frames=_number(data_set, "NumberOfFrames"),
        concatenation_uid=_text(data_set, "ConcatenationUID") or None,
        in_concatenation_total=_number(data_set, "InConcatenationTotalNumber"),
    )


def _text(data_set: Dataset, keyword: str) -> str:
    try:
        value = data_set.get(keyword)
    except UNREADABLE:
        return ""
    # What a wrong character set left over cannot be stored as text: it becomes a question mark here.
    return "" if value is None else str(value)[:_LONGEST_TEXT].encode("utf-8", "replace").decode()


def _number(data_set: Dataset, keyword: str) -> int | None:
    try:
        number = int(data_set.get(keyword))
    except UNREADABLE:
        return None
    return number if abs(number) <= _LARGEST_NUMBER else None
