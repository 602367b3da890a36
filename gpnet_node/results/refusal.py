"""Writes why a series was not segmented, for receivers that would otherwise wait in vain (TID 2000)."""

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
from highdicom import sr
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.results import codes
from gpnet_node.results.codes import concept
from gpnet_node.results.header import RESEARCH_STATEMENT, finish
from gpnet_node.results.identifiers import MANUFACTURER, JobIdentity, device_uid, text_digest, uid
from gpnet_node.results.source import Reference, Source, blank, read_header

_CONTAINS = sr.RelationshipTypeValues.CONTAINS


def write_refusal(paths: Sequence[Path], reason: str, job: JobIdentity) -> Dataset:
    """An Enhanced SR in the images' study that says "not segmented because ...", and lists the images.

    ``paths``: the instances of the series, of which those that cannot be read are left out. Raises
    UnreadableInstanceError where none can.
    """
    headers = [header for path in paths if (header := _readable(path)) is not None]
    if not headers:
        raise UnreadableInstanceError("no instance of the series can be read: there is no study to report in")
    source = Source(frames=(), header=headers[0])
    digest = text_digest(job, reason, *(str(header.SOPInstanceUID) for header in headers))
    report = sr.EnhancedSR(
        evidence=[blank(str(header.StudyInstanceUID), _reference(header)) for header in headers],
        content=_content(reason, job),
        series_instance_uid=uid(job, "refusal series", digest),
        series_number=source.result_series_number(8),
        sop_instance_uid=uid(job, "refusal", digest),
        instance_number=1,
        is_complete=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    finish(report, source, None, job, "Not segmented")
    return report


def node_as_observer(job: JobIdentity) -> sr.ObserverContext:
    """This node is the observer, and no model was asked (TID 1002, 1004)."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(job),
        name=job.node_ae_title,
        manufacturer_name=MANUFACTURER,
        model_name=MANUFACTURER,
        serial_number=job.node_ae_title,
    )
    return sr.ObserverContext(observer_type=concept(codes.DEVICE), observer_identifying_attributes=device)


def _content(reason: str, job: JobIdentity) -> sr.ContainerContentItem:
    """Root, language, observer and one heading with the sentence under it."""
    root = sr.ContainerContentItem(name=concept(codes.IMAGING_REPORT), template_id="2000")
    findings = sr.ContainerContentItem(name=concept(codes.FINDINGS), relationship_type=_CONTAINS)
    findings.ContentSequence = sr.ContentSequence(
        [
            sr.TextContentItem(concept(codes.FINDING), f"Not segmented because {reason}", _CONTAINS),
            sr.TextContentItem(concept(codes.COMMENT), RESEARCH_STATEMENT, _CONTAINS),
        ]
    )
    root.ContentSequence = sr.ContentSequence(
        [
            *sr.LanguageOfContentItemAndDescendants(hd.sr.CodedConcept("en", "RFC5646", "English")),
            *node_as_observer(job),
            findings,
        ]
    )
    return root


def _readable(path: Path) -> Dataset | None:
    try:
        header = read_header(path)
    except UnreadableInstanceError:
        return None
    needed = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
    return header if all(header.get(keyword) for keyword in needed) else None


def _reference(header: Dataset) -> Reference:
    return Reference(
        series_instance_uid=str(header.SeriesInstanceUID),
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
    )
