"""What segmentation and report share: patient, study, equipment, dates, character set, file encoding."""

import re
from collections.abc import Iterable
from datetime import timedelta, timezone
from importlib.metadata import version
from io import BytesIO

from highdicom.base import SOPClass
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as ItemSequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from gpnet_node.model.card import Code, ModelCard
from gpnet_node.results import codes
from gpnet_node.results.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    JobIdentity,
)
from gpnet_node.results.source import Source

RESEARCH_STATEMENT = "RESEARCH, not for clinical use. Not a medical device."

_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>[0-9]{2})(?P<minutes>[0-5][0-9])")
_ACQUISITION = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "StationName",
    "SoftwareVersions",
    "InstitutionName",
)
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
# Thousands of small items without any text of ours or the sender's: not searched for letters.
_WITHOUT_TEXT = frozenset({"PerFrameFunctionalGroupsSequence", "CurrentRequestedProcedureEvidenceSequence"})


def software_versions(card: ModelCard | None, job: JobIdentity) -> list[str]:
    """SoftwareVersions (0018,1020): the node, the model if one was asked, and the library that writes."""
    model = [f"{card.name} {card.version}"] if card else []
    return [f"{MANUFACTURER} {job.software_version}", *model, f"highdicom {version('highdicom')}"]


def finish(
    dataset: SOPClass, source: Source, card: ModelCard | None, job: JobIdentity, description: str
) -> None:
    """Give a result its patient, study, equipment and dates; nothing in it is asked of the clock.

    Patient and study are the source's own attributes (PS3.3 C.7.1, C.7.2), decoded; text that is not
    plain ASCII is written as UTF-8 (ISO_IR 192), whatever the source's character set.
    """
    dataset.copy_patient_and_study_information(source.header)
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, _model_name(card)
    dataset.DeviceSerialNumber = dataset.StationName = job.node_ae_title
    dataset.SeriesDescription = f"{description} (RESEARCH)"
    dataset.add_new("SoftwareVersions", "LO", software_versions(card, job))
    dataset.ContentQualification = "RESEARCH"
    _set_dates(dataset, source.header, job)
    _set_equipment(dataset, source.header, card, job)
    dataset.pop("SpecificCharacterSet", None)
    if not _is_ascii(dataset):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    _set_file_meta(dataset, job)


def encode(dataset: Dataset) -> bytes:
    """The dataset as a DICOM file (PS3.10), Explicit VR Little Endian; equal datasets give equal bytes."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def code_item(code: Code) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item


def _set_dates(dataset: Dataset, header: Dataset, job: JobIdentity) -> None:
    """All dates are the job's, told in the time zone that the source names, which is then named here too.

    Timezone Offset From UTC holds for every date and time of an object (PS3.3 C.12.1.1.8), the copied ones of
    the study among them: where the source does not say what theirs is, no result does.
    """
    offset = _time_zone(header)
    created = job.created_at if offset is None else job.created_at.astimezone(offset)
    if offset is not None:
        dataset.TimezoneOffsetFromUTC = created.strftime("%z")
    date, time = created.strftime("%Y%m%d"), created.strftime("%H%M%S.%f")
    for event in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{event}Date", date)
        setattr(dataset, f"{event}Time", time)


def _time_zone(header: Dataset) -> timezone | None:
    """The zone of TimezoneOffsetFromUTC, or None where there is none, or no offset from -1200 to +1400."""
    found = _OFFSET.fullmatch(str(header.get("TimezoneOffsetFromUTC") or ""))
    if found is None:
        return None
    minutes = int(found["sign"] + "1") * (60 * int(found["hours"]) + int(found["minutes"]))
    return timezone(timedelta(minutes=minutes)) if -12 * 60 <= minutes <= 14 * 60 else None


def _model_name(card: ModelCard | None) -> str:
    return card.name if card else MANUFACTURER


def _set_equipment(dataset: Dataset, header: Dataset, card: ModelCard | None, job: JobIdentity) -> None:
    """Who acquired and who processed (PS3.3 C.12.1, Contributing Equipment Sequence)."""
    acquisition = Dataset()
    for keyword in _ACQUISITION:
        if header.get(keyword):
            acquisition.add(header[keyword])
    acquisition.PurposeOfReferenceCodeSequence = [code_item(codes.ACQUISITION_EQUIPMENT)]
    processing = Dataset()
    processing.Manufacturer, processing.ManufacturerModelName = MANUFACTURER, _model_name(card)
    processing.DeviceSerialNumber, processing.StationName = job.node_ae_title, job.node_ae_title
    processing.SoftwareVersions = software_versions(card, job)
    processing.ContributionDateTime = job.created_at.strftime("%Y%m%d%H%M%S.%f%z")
    processing.ContributionDescription = f"{software_versions(card, job)[-2]}. {RESEARCH_STATEMENT}"
    processing.PurposeOfReferenceCodeSequence = [code_item(codes.PROCESSING_EQUIPMENT)]
    # The manufacturer is required in an item (type 1): a source that names none gets no item.
    both = [acquisition, processing] if "Manufacturer" in acquisition else [processing]
    dataset.ContributingEquipmentSequence = both


def _set_file_meta(dataset: Dataset, job: JobIdentity) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.SourceApplicationEntityTitle = job.node_ae_title
    dataset.file_meta = meta


def _is_ascii(elements: Iterable[DataElement]) -> bool:
    for element in elements:
        if element.VR == "SQ":
            if element.keyword in _WITHOUT_TEXT:
                continue
            items: ItemSequence = element.value
            if not all(_is_ascii(item) for item in items):
                return False
        elif element.VR in _TEXT_VRS and not str(element.value).isascii():
            return False
    return True
