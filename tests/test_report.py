from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.header import encode
from gpnet_node.results.measure import measure
from gpnet_node.results.report import write_report
from gpnet_node.results.seg import write_seg
from tests.pallida import JOB, OBLIQUE, Head, content_of, draw_head, write_results


@pytest.fixture
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture
def head(tmp_path: Path) -> Head:
    return draw_head(tmp_path, orientation=OBLIQUE)


def items(parent: Dataset, meaning: str) -> list[Dataset]:
    return [
        item
        for item in parent.ContentSequence
        if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeMeaning == meaning
    ]


def groups(report: Dataset) -> list[Dataset]:
    return items(items(report, "Imaging Measurements")[0], "Measurement Group")


def numbers(group: Dataset) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            name = item.ConceptNameCodeSequence[0].CodeMeaning
            derived = [child.ConceptCodeSequence[0].CodeMeaning for child in derivations(item)]
            measured = item.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
            found[", ".join([name, *derived])] = (float(measured.NumericValue), unit)
    return found


def derivations(item: Dataset) -> list[Dataset]:
    return items(item, "Derivation") if "ContentSequence" in item else []


def write(head: Head, card: ModelCard, *notes: str) -> Dataset:
    seg = write_seg(head.volume, head.labels, card, JOB)
    report = write_report(content_of(head, card, gate=notes), seg)
    return dcmread(BytesIO(encode(report)))


def test_each_segment_has_a_group_with_its_numbers_and_units(head: Head, card: ModelCard) -> None:
    report = write(head, card)

    for group, measured in zip(groups(report), measure(head.volume, head.labels, card), strict=True):
        assert measured.centroid_mm is not None
        expected: dict[str, tuple[Any, str]] = {
            "Volume": (pytest.approx(measured.volume_mm3, abs=0.005), "mm3"),
            "Center of mass, x (to patient left)": (pytest.approx(measured.centroid_mm[0], abs=0.0005), "mm"),
            "Center of mass, y (to patient back)": (pytest.approx(measured.centroid_mm[1], abs=0.0005), "mm"),
            "Center of mass, z (to patient head)": (pytest.approx(measured.centroid_mm[2], abs=0.0005), "mm"),
            "MR signal intensity, Mean": (pytest.approx(measured.signal_mean, abs=0.0005), "1"),
            "MR signal intensity, Standard Deviation": (pytest.approx(measured.signal_sd, abs=0.0005), "1"),
            "Left-right asymmetry of volume": (pytest.approx(measured.asymmetry_percent, abs=0.005), "%"),
        }
        assert numbers(group) == expected


def test_the_centre_of_mass_is_a_point_in_the_sources_frame_of_reference(head: Head, card: ModelCard) -> None:
    report = write(head, card)

    for group, measured in zip(groups(report), measure(head.volume, head.labels, card), strict=True):
        (point,) = items(group, "Center of Mass")
        assert (point.ValueType, point.GraphicType) == ("SCOORD3D", "POINT")
        assert list(point.GraphicData) == pytest.approx(measured.centroid_mm, abs=0.001)
        assert point.ReferencedFrameOfReferenceUID == head.volume.geometry.frame_of_reference_uid


def test_a_group_names_its_segment_site_and_side(head: Head, card: ModelCard) -> None:
    seg = write_seg(head.volume, head.labels, card, JOB)
    report = write(head, card)

    for group, structure, segment in zip(groups(report), card.structures, seg.SegmentSequence, strict=True):
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "1411"
        reference = items(group, "Referenced Segment")[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == structure.number
        site = items(group, "Finding Site")[0]
        side = items(site, "Laterality")[0]
        assert items(group, "Finding")[0].ConceptCodeSequence[0].CodeValue == structure.type.value
        assert site.ConceptCodeSequence[0].CodeValue == "14738005"
        assert side.ConceptCodeSequence[0].CodeValue == structure.laterality.value
        assert items(group, "Tracking Identifier")[0].TextValue == structure.name
        tracking_uid = items(group, "Tracking Unique Identifier")[0].UID
        assert tracking_uid == segment.TrackingUID


def test_a_group_names_algorithm_version_and_weights(head: Head, card: ModelCard) -> None:
    report = write(head, card)

    for group in groups(report):
        assert items(group, "Algorithm Name")[0].TextValue == card.name
        assert items(group, "Algorithm Version")[0].TextValue == card.version
        parameters = items(group, "Algorithm Parameters")[0].TextValue
        assert parameters.startswith(f"weights_sha256={card.weights_sha256}, spacing_mm={card.spacing_mm:g}")


def test_the_report_is_an_unverified_research_document(head: Head, card: ModelCard) -> None:
    report = write(head, card, "The source has lost its distortion correction.")

    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.VerificationFlag, report.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
    assert report.ContentQualification == "RESEARCH"
    (comment,) = items(report, "Comment")
    (remark,) = items(report, "Remark of the eligibility gate")
    assert comment.TextValue == "RESEARCH, not for clinical use. Not a medical device."
    assert remark.TextValue == "The source has lost its distortion correction."
    assert items(report, "Observer Type")[0].ConceptCodeSequence[0].CodeMeaning == "Device"
    assert (report.SeriesNumber, report.SeriesDescription) == (502, "GP-net measurements (RESEARCH)")


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_evidence_lists_every_source_and_the_segmentation(
    tmp_path: Path, card: ModelCard, enhanced: bool
) -> None:
    head = draw_head(tmp_path, enhanced=enhanced)
    source = dcmread(head.paths[0], stop_before_pixels=True)

    report = write(head, card)

    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    listed = {
        (
            str(series.SeriesInstanceUID),
            str(instance.ReferencedSOPClassUID),
            str(instance.ReferencedSOPInstanceUID),
        )
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    seg = write_seg(head.volume, head.labels, card, JOB)
    sources = {
        (str(source.SeriesInstanceUID), f.sop_class_uid, f.sop_instance_uid) for f in head.volume.frames
    }
    assert study.StudyInstanceUID == source.StudyInstanceUID == report.StudyInstanceUID
    assert listed == {*sources, (seg.SeriesInstanceUID, seg.SOPClassUID, seg.SOPInstanceUID)}


def test_what_an_empty_structure_cannot_have_is_left_out_and_said(head: Head, card: ModelCard) -> None:
    labels = np.where(head.labels.labels == 2, 0, head.labels.labels).astype(np.uint8)

    report = write(head.relabelled(labels), card)

    group = groups(report)[1]
    assert numbers(group) == {"Volume": (0, "mm3"), "Left-right asymmetry of volume": (-200, "%")}
    assert not items(group, "Center of Mass")
    comments = [comment.TextValue for comment in items(report, "Comment")]
    assert "No voxel of GPi left was found: it has no center of mass and no signal." in comments
    assert b"nan" not in encode(report).lower()


def test_the_asymmetry_says_how_it_was_computed(head: Head, card: ModelCard) -> None:
    report = write(head, card)

    (asymmetry,) = items(groups(report)[0], "Left-right asymmetry of volume")
    (equation,) = items(asymmetry, "Equation")
    assert equation.TextValue == "100 * (left - right) / ((left + right) / 2)"


def test_two_writings_are_byte_identical_and_other_notes_another_report(head: Head, card: ModelCard) -> None:
    first, again, other = write(head, card, "one"), write(head, card, "one"), write(head, card, "two")

    assert encode(first) == encode(again)
    assert other.SOPInstanceUID != first.SOPInstanceUID


def test_another_segmentation_is_another_report(head: Head, card: ModelCard) -> None:
    first = write_results(head, card)
    other = write_results(head, card, job=replace(JOB, job_uid="2.25.4712"))

    assert first.sr.sop_instance_uid != other.sr.sop_instance_uid


def test_a_note_in_another_script_survives(head: Head, card: ModelCard) -> None:
    report = write(head, card, "Gerät: 7 T, 山田")

    assert items(report, "Remark of the eligibility gate")[-1].TextValue == "Gerät: 7 T, 山田"
    assert report.SpecificCharacterSet == "ISO_IR 192"
