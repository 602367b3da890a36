"""A scanner that says what it has made (MPPS)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from gpnet_node.config import PeerConfig

SCANNER = PeerConfig(
    name="scanner", ae_title="SCANNER", may_store=True, may_report=True, accept_other_classes=True
)


def scanner(port: int, calling: str = "SCANNER") -> Association:
    """Ask for an association to report on, and to store."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(ModalityPerformedProcedureStep, ExplicitVRLittleEndian)
    ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    return ae.associate("127.0.0.1", port, ae_title="GPNET")


def step(status: str, images: Mapping[str, Sequence[str]] | None = None) -> Dataset:
    """The attributes of a step, with its images by series."""
    attributes = Dataset()
    attributes.PerformedProcedureStepStatus = status
    attributes.PatientName = "SECRET^PATIENT"
    if images is not None:
        attributes.PerformedSeriesSequence = Items(map(_performed, images.items()))
    return attributes


def _performed(listed: tuple[str, Sequence[str]]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = listed[0]
    item.ReferencedImageSequence = Items(map(_reference, listed[1]))
    raw = _reference(generate_uid())  # raw data, which never comes here
    item.ReferencedNonImageCompositeSOPInstanceSequence = Items([raw])
    return item


def _reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, uid
    return item


def report(port: int, status: str, images: Mapping[str, Sequence[str]]) -> list[int]:
    """Report a whole step; the two answers."""
    association, uid = scanner(port), generate_uid()
    begun, _ = association.send_n_create(step("IN PROGRESS"), ModalityPerformedProcedureStep, uid)
    ended, _ = association.send_n_set(step(status, images), ModalityPerformedProcedureStep, uid)
    association.release()
    return [begun.Status, ended.Status]


def listing(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Every image of a series, by its UID."""
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    return {headers[0].SeriesInstanceUID: [header.SOPInstanceUID for header in headers]}
