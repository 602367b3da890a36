"""What the index and the catalogue keep of a data set's header.

It is read for every instance that arrives, so values are taken from their bytes where that is safe; pydicom's
own conversion, which takes ten times as long, is left for what is not plain ASCII.
"""

import re
from typing import Any, Literal

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import KeyObjectSelectionDocumentStorage

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.attributes import ATTRIBUTES
from gpnet_node.store.states import REJECTION_TITLES, Header
from gpnet_node.store.versions import UNREADABLE

_COUNTED = (
    "ImagesInAcquisition",
    "ConcatenationUID",
    "InConcatenationTotalNumber",
)
_LISTED = tuple(it for it in ATTRIBUTES.values() if not it.gathered)
_OF_NOTES = ("ConceptNameCodeSequence", "CurrentRequestedProcedureEvidenceSequence")
TAGS = (
    "SpecificCharacterSet",
    *_OF_NOTES,
    *_COUNTED,
    *(it.keyword for it in _LISTED if it.keyword != "AvailableTransferSyntaxUID"),
)
_TAG_OF: dict[str, BaseTag] = {keyword: Tag(keyword) for keyword in TAGS}
_LONGEST_TEXT = 256
_LARGEST_NUMBER = 2**31 - 1  # PS3.5 6.2, IS
_ESCAPE = b"\x1b"  # begins another character set (PS3.5 6.1.2.5)
_DATE = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")  # of ACR-NEMA


def header_of(data_set: Dataset) -> Header:
    """Return what is kept of a data set whose four UIDs are known to be there.

    A value of another kind than its element should have is left out: it is for listing and counting only, and
    the file keeps it as it was sent. Raises UnreadableInstanceError for a rejection note that does not say
    what it rejects.
    """
    attributes = attributes_of(data_set)
    title, rejects = _rejection(data_set, attributes["SOPClassUID"])
    return Header(
        sop_instance_uid=attributes["SOPInstanceUID"],
        sop_class_uid=attributes["SOPClassUID"],
        series_uid=attributes["SeriesInstanceUID"],
        study_uid=attributes["StudyInstanceUID"],
        modality=attributes.get("Modality", ""),
        description=attributes.get("SeriesDescription", ""),
        patient_id=attributes.get("PatientID", ""),
        patient_name=attributes.get("PatientName", ""),
        instance_number=_integer(attributes.get("InstanceNumber", "")),
        acquisition_number=_integer(attributes.get("AcquisitionNumber", "")),
        images_in_acquisition=_integer(_text(data_set, _TAG_OF["ImagesInAcquisition"])),
        number_of_frames=_integer(attributes.get("NumberOfFrames", "")),
        concatenation_uid=_text(data_set, _TAG_OF["ConcatenationUID"]) or None,
        in_concatenation_total=_integer(_text(data_set, _TAG_OF["InConcatenationTotalNumber"])),
        rejection_title=title,
        rejects=rejects,
        attributes=attributes,
    )


def _rejection(data_set: Dataset, sop_class_uid: str) -> tuple[str, tuple[str, ...]]:
    """Title and evidence of a note that rejects instances; empty for everything else.

    The evidence lists all that the content refers to (PS3.3 C.17.6.2.1).
    """
    if sop_class_uid != KeyObjectSelectionDocumentStorage:
        return "", ()
    try:
        titles = [
            str(code.CodeValue)
            for code in data_set.ConceptNameCodeSequence
            if code.CodingSchemeDesignator == "DCM" and code.CodeValue in REJECTION_TITLES
        ]
    except UNREADABLE:
        return "", ()
    if not titles:
        return "", ()
    try:
        named = [
            str(reference.ReferencedSOPInstanceUID)
            for study in data_set.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for reference in series.ReferencedSOPSequence
        ]
    except UNREADABLE as exc:
        raise UnreadableInstanceError(
            f"the evidence of the rejection note cannot be read ({type(exc).__name__})"
        ) from exc
    return titles[0], tuple(dict.fromkeys(named))


def attributes_of(data_set: Dataset) -> dict[str, str]:
    """Return what the catalogue keeps of a data set, by keyword; what is not there is left out.

    The transfer syntax is the file meta information's, where the data set has one.
    """
    found: dict[str, str] = {}
    for it in _LISTED:
        text = _text(data_set, it.tag)
        if text and it.vr in ("IS", "US"):
            number = _integer(text)
            text = "" if number is None else str(number)
        elif text and it.vr == "DA":
            text = _DATE.sub(r"\1\2\3", text)
        if text:
            found[it.keyword] = text
    meta = getattr(data_set, "file_meta", None)
    if meta is not None and "TransferSyntaxUID" in meta:
        found["AvailableTransferSyntaxUID"] = str(meta.TransferSyntaxUID)
    return found


def _text(data_set: Dataset, tag: BaseTag) -> str:
    try:
        element: object = data_set.get_item(tag)  # None where it is not there, whatever its type says
        if element is None:
            return ""
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            text = _plain(element)
            if text is not None:
                return text[:_LONGEST_TEXT]
        value = data_set[tag].value
    except UNREADABLE:
        return ""
    if isinstance(value, Sequence):
        return ""
    if isinstance(value, MultiValue | list):
        value = "\\".join(map(str, value))
    # What a wrong character set left over cannot be stored as text: it becomes a question mark here.
    text = "" if value is None else str(value).strip(" \0")
    return text[:_LONGEST_TEXT].encode("utf-8", "replace").decode()


def _plain(element: RawDataElement) -> str | None:
    """Return the text of an element's bytes, or None where it takes more than ASCII to know it."""
    value: Any = element.value
    vr = _vr(element)
    if vr == "US":
        return str(int.from_bytes(value, _order(element))) if len(value) == 2 else ""
    if _ESCAPE in value or not value.isascii():
        return None
    return str(value, "ascii").strip(" \0")


def _order(element: RawDataElement) -> Literal["little", "big"]:
    return "little" if element.is_little_endian else "big"


def _vr(element: RawDataElement) -> str:
    listed = _BY_TAG.get(element.tag)
    if listed and listed.vr == "UI":  # whatever it calls itself: so the request is compared with it, too
        return "UI"
    return element.VR or (listed.vr if listed else "")


_BY_TAG = {it.tag: it for it in _LISTED}


def _integer(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if abs(number) <= _LARGEST_NUMBER else None
