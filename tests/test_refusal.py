"""The report that says why a series was not segmented."""

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.results.header import encode
from gpnet_node.results.refusal import write_refusal
from tests.factories import mr_series
from tests.pallida import JOB

REASON = "slices 41-44 are missing"


def refusal(paths: list[Path], reason: str = REASON) -> Dataset:
    return dcmread(BytesIO(encode(write_refusal(paths, reason, JOB))))


def texts(item: Dataset) -> list[str]:
    own = [str(item.TextValue)] if "TextValue" in item else []
    return own + [text for child in item.get("ContentSequence", []) for text in texts(child)]


def test_it_says_why_in_the_patients_own_study_and_lists_every_image(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=4, PatientName="Äneas^Rüdiger", SpecificCharacterSet="ISO_IR 100")
    source = dcmread(paths[0])

    report = refusal(paths)

    assert "Not segmented because slices 41-44 are missing" in texts(report)
    assert (report.PatientName, report.PatientID) == (source.PatientName, source.PatientID)
    assert report.StudyInstanceUID == source.StudyInstanceUID
    assert report.SeriesInstanceUID != source.SeriesInstanceUID
    assert report.ContentQualification == "RESEARCH"
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    listed = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
    assert listed == {dcmread(path).SOPInstanceUID for path in paths}


def test_the_same_reason_gives_the_same_bytes_and_another_one_another_object(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=2)

    first, again = (encode(write_refusal(paths, REASON, JOB)) for _ in range(2))

    assert first == again
    assert refusal(paths, "it is no MR").SOPInstanceUID != dcmread(BytesIO(first)).SOPInstanceUID


def test_images_that_cannot_be_read_are_left_out_and_without_any_there_is_no_report(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=2)
    paths[0].write_bytes(b"not DICOM")

    (study,) = refusal(paths).CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 1
    with pytest.raises(UnreadableInstanceError, match="no instance"):
        refusal(paths[:1])
