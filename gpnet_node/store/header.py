"""What the index and the catalogue keep of a data set's header.

It is read for every instance that arrives, so values are taken from their bytes where that is safe; pydicom's
own conversion, which takes longer, is left for what is not plain ASCII.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import KeyObjectSelectionDocumentStorage

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.attributes import ATTRIBUTES
from gpnet_node.store.states import REJECTION_TITLES, Header
from gpnet_node.store.versions import UNREADABLE

_COUNTED_KEYWORDS = ("ImagesInAcquisition", "ConcatenationUID", "InConcatenationTotalNumber")
_COUNTED = tuple(int(Tag(keyword)) for keyword in _COUNTED_KEYWORDS)
_LISTED = {int(it.tag): it for it in ATTRIBUTES.values() if not it.gathered}
_OF_NOTES = ("ConceptNameCodeSequence", "CurrentRequestedProcedureEvidenceSequence")
TAGS = (
    "SpecificCharacterSet",
    *_OF_NOTES,
    *_COUNTED_KEYWORDS,
    *(it.keyword for it in _LISTED.values() if it.keyword != "AvailableTransferSyntaxUID"),
)
_LONGEST_TEXT = 256
_LARGEST_NUMBER = 2**31 - 1  # PS3.5 6.2, IS
_ESCAPE = b"\x1b"  # begins another character set (PS3.5 6.1.2.5)
_NO_VALUE = (*UNREADABLE, OSError)  # the last is what pydicom raises for a sequence that ends too early
_DATE = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")  # of ACR-NEMA

_Elements = Mapping[int, DataElement | RawDataElement]


def header_of(data_set: Dataset) -> Header:
    """Return what is kept of a data set whose four UIDs are known to be there.

    A value of another kind than its element should have is left out: it is for listing and counting only, and
    the file keeps it as it was sent. Raises UnreadableInstanceError for a rejection note that does not say
    what it rejects.
    """
    elements = _elements(data_set)
    attributes = _attributes(data_set, elements)
    images, concatenation, parts = (_text(data_set, elements, number) for number in _COUNTED)
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
        images_in_acquisition=_integer(images),
        number_of_frames=_integer(attributes.get("NumberOfFrames", "")),
        concatenation_uid=concatenation or None,
        in_concatenation_total=_integer(parts),
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
    except _NO_VALUE:
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
    except _NO_VALUE as exc:
        raise UnreadableInstanceError(
            f"the evidence of the rejection note cannot be read ({type(exc).__name__})"
        ) from exc
    return titles[0], tuple(dict.fromkeys(named))


def attributes_of(data_set: Dataset) -> dict[str, str]:
    """Return what the catalogue keeps of a data set, by keyword; what is not there is left out.

    The transfer syntax is the file meta information's, where the data set has one.
    """
    return _attributes(data_set, _elements(data_set))


def _elements(data_set: Dataset) -> _Elements:
    """Return the elements as they are, by the numbers of their tags: pydicom's tags are slow to compare."""
    return {int(tag): element for tag, element in data_set.items()}


def _attributes(data_set: Dataset, elements: _Elements) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, it in _LISTED.items():
        text = _text(data_set, elements, number)
        if text and it.vr in ("IS", "US"):
            integer = _integer(text)
            text = "" if integer is None else str(integer)
        elif text and it.vr == "DA":
            text = _DATE.sub(r"\1\2\3", text)
        if text:
            found[it.keyword] = text
    meta = getattr(data_set, "file_meta", None)
    if meta is not None and "TransferSyntaxUID" in meta:
        found["AvailableTransferSyntaxUID"] = str(meta.TransferSyntaxUID)
    return found


def _text(data_set: Dataset, elements: _Elements, number: int) -> str:
    element = elements.get(number)
    if element is None:
        return ""
    try:
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            text = _plain(element, number)
            if text is not None:
                return text[:_LONGEST_TEXT]
        value = data_set[number].value
    except _NO_VALUE:
        return ""
    if isinstance(value, Sequence):
        return ""
    if isinstance(value, MultiValue | list):
        value = "\\".join(map(str, value))
    # What a wrong character set left over cannot be stored as text: it becomes a question mark here.
    text = "" if value is None else str(value).strip(" \0")
    return text[:_LONGEST_TEXT].encode("utf-8", "replace").decode()


def _plain(element: RawDataElement, number: int) -> str | None:
    """Return the text of an element's bytes, or None where it takes more than ASCII to know it."""
    value: Any = element.value
    vr = _vr(element, number)
    if vr == "US":
        return str(int.from_bytes(value, _order(element))) if len(value) == 2 else ""
    if _ESCAPE in value or not value.isascii():
        return None
    return str(value, "ascii").strip(" \0")


def _order(element: RawDataElement) -> Literal["little", "big"]:
    return "little" if element.is_little_endian else "big"


def _vr(element: RawDataElement, number: int) -> str:
    listed = _LISTED.get(number)
    if listed and listed.vr == "UI":  # whatever it calls itself: so the request is compared with it, too
        return "UI"
    return element.VR or (listed.vr if listed else "")


def _integer(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if abs(number) <= _LARGEST_NUMBER else None
