"""Writes the notes that reject an older result: it is replaced, or no longer holds (PS3.3 A.35.4)."""

from collections.abc import Sequence

import highdicom as hd
from highdicom import sr
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.model.card import Code
from gpnet_node.results import codes
from gpnet_node.results.codes import concept
from gpnet_node.results.content import Content
from gpnet_node.results.header import RESEARCH_STATEMENT, finish
from gpnet_node.results.identifiers import JobIdentity, content_digest, text_digest, uid
from gpnet_node.results.refusal import node_as_observer
from gpnet_node.results.report import observer
from gpnet_node.results.source import Reference, Source, blank, read_source

_IMAGES = frozenset({"seg", "mr", "capture"})


def write_rejection(content: Content) -> Dataset:
    """Reject every object of ``content.background.replaces``: TID 2010, (113001, DCM) in the same study.

    A receiver that knows rejection notes (IHE RAD TF-3, IOCM) hides them then. Raises as ``read_source``.
    """
    source, job = read_source(content.volume), content.job
    older = content.background.replaces
    note = _note(
        older,
        title=codes.REJECTED,
        description="Replaced by a newer result of the same series.",
        study_instance_uid=source.study_instance_uid,
        series_number=source.result_series_number(9),
        observed_by=observer(content.card, job),
        job=job,
        digest=content_digest(content.labels, content.card, job, repr(older)),
    )
    finish(note, source, content.card, job, "Older GP-net result, rejected")
    return note


def write_withdrawal(older: Sequence[Reference], header: Dataset, why: str, job: JobIdentity) -> Dataset:
    """Reject every object of an older result that no longer holds: TID 2010, (113037, DCM) in its own study.

    ``header``: of any of the objects. It may name another patient or study than the images do by now, and the
    note must stand where the result stands.
    """
    result = Dataset()
    result.update(header)
    result.pop("Manufacturer", None)  # the result's is this node, which acquired nothing
    note = _note(
        older,
        title=codes.WITHDRAWN,
        description=f"Withdrawn: {why}.",
        study_instance_uid=str(header.StudyInstanceUID),
        series_number=int(header.SeriesNumber) // 100 * 100 + 9,
        observed_by=node_as_observer(job),
        job=job,
        digest=text_digest(job, why, repr(older)),
    )
    finish(note, Source(frames=(), header=result), None, job, "Older GP-net result, withdrawn")
    return note


def _note(
    older: Sequence[Reference],
    *,
    title: Code,
    description: str,
    study_instance_uid: str,
    series_number: int,
    observed_by: sr.ObserverContext,
    job: JobIdentity,
    digest: str,
) -> hd.ko.KeyObjectSelectionDocument:
    evidence = []
    for it in older:
        item = blank(study_instance_uid, it)
        if it.kind in _IMAGES:
            item.Rows = item.Columns = 1  # makes highdicom refer to it as to an image
        evidence.append(item)
    note = hd.ko.KeyObjectSelectionDocument(
        evidence=evidence,
        content=hd.ko.KeyObjectSelection(
            document_title=concept(title),
            referenced_objects=evidence,
            observer_device_context=observed_by,
            description=f"{description} {RESEARCH_STATEMENT}",
        ),
        series_instance_uid=uid(job, "rejection series", digest),
        series_number=series_number,
        sop_instance_uid=uid(job, "rejection", digest),
        instance_number=1,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    for item in note.ContentSequence:
        if "ReferencedSOPSequence" in item:
            del item.ConceptNameCodeSequence  # highdicom names each reference, which TID 2010 does not
    return note
