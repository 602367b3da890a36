"""The note that rejects an older result."""

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.content import Background
from gpnet_node.results.header import encode
from gpnet_node.results.rejection import write_rejection
from gpnet_node.results.report import write_report
from gpnet_node.results.seg import write_seg
from gpnet_node.results.source import Reference
from tests.pallida import JOB, content_of, draw_head

OLDER = (
    Reference(
        series_instance_uid="2.25.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid="2.25.11",
        kind="seg",
    ),
    Reference(
        series_instance_uid="2.25.2",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid="2.25.21",
        kind="sr",
    ),
)


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def read_back(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(encode(dataset)))


def test_it_rejects_every_object_of_the_older_result_and_nothing_else(
    tmp_path: Path, card: ModelCard
) -> None:
    content = content_of(draw_head(tmp_path), card, background=Background(replaces=OLDER))

    note = read_back(write_rejection(content))

    assert note.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.59"
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    named = {
        (item.ValueType, item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    references = [item for item in note.ContentSequence if "ReferencedSOPSequence" in item]
    assert not any("ConceptNameCodeSequence" in item for item in references)
    assert named == {("IMAGE", "2.25.11"), ("COMPOSITE", "2.25.21")}
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == note.StudyInstanceUID
    assert {series.SeriesInstanceUID for series in study.ReferencedSeriesSequence} == {"2.25.1", "2.25.2"}


def test_the_new_report_names_the_older_one_as_its_predecessor(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    seg = write_seg(head.volume, head.labels, card, JOB)

    first = read_back(write_report(content_of(head, card), seg))
    second = read_back(write_report(content_of(head, card, background=Background(replaces=OLDER)), seg))

    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == ["2.25.21"]
    assert "PredecessorDocumentsSequence" not in first
    assert second.SOPInstanceUID != first.SOPInstanceUID
