"""Writes the note that rejects an older result once a newer one takes its place (PS3.3 A.35.4)."""

import highdicom as hd
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.results import codes
from gpnet_node.results.codes import concept
from gpnet_node.results.content import Content
from gpnet_node.results.header import RESEARCH_STATEMENT, finish
from gpnet_node.results.identifiers import content_digest, uid
from gpnet_node.results.report import observer
from gpnet_node.results.source import read_source

_IMAGES = frozenset({"seg", "mr", "capture"})


def write_rejection(content: Content) -> Dataset:
    """Reject every object of ``content.background.replaces``: TID 2010, (113001, DCM) in the same study.

    A receiver that knows rejection notes (IHE RAD TF-3, IOCM) hides them then. Raises as ``read_source``.
    """
    source, job = read_source(content.volume), content.job
    older = content.background.replaces
    evidence = []
    for it in older:
        item = source.blank(it)
        if it.kind in _IMAGES:
            item.Rows = item.Columns = 1  # makes highdicom refer to it as to an image
        evidence.append(item)
    digest = content_digest(content.labels, content.card, job, repr(older))
    note = hd.ko.KeyObjectSelectionDocument(
        evidence=evidence,
        content=hd.ko.KeyObjectSelection(
            document_title=concept(codes.REJECTED),
            referenced_objects=evidence,
            observer_device_context=observer(content.card, job),
            description=f"Replaced by a newer result of the same series. {RESEARCH_STATEMENT}",
        ),
        series_instance_uid=uid(job, "rejection series", digest),
        series_number=source.result_series_number(9),
        sop_instance_uid=uid(job, "rejection", digest),
        instance_number=1,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    for item in note.ContentSequence:
        if "ReferencedSOPSequence" in item:
            del item.ConceptNameCodeSequence  # highdicom names each reference, which TID 2010 does not
    finish(note, source, content.card, job, "Older GP-net result, rejected")
    return note
