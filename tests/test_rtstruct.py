from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from pydicom import Dataset

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.header import encode
from gpnet_node.results.rtstruct import write_rtstruct
from tests.awkward import awkward, without
from tests.pallida import AXIAL, JOB, OBLIQUE, Head, draw_head
from tests.test_results_peers import on_disk, run


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def written(head: Head, card: ModelCard) -> Dataset:
    return write_rtstruct(head.volume, head.labels, card, JOB)


def contours(dataset: Dataset, number: int) -> list[Dataset]:
    (roi,) = (item for item in dataset.ROIContourSequence if item.ReferencedROINumber == number)
    return list(roi.get("ContourSequence", []))


def points_mm(contour: Dataset) -> NDArray[np.float64]:
    return np.array(contour.ContourData, dtype=float).reshape(-1, 3)


def filled_by_a_receiver(dataset: Dataset, head: Head) -> NDArray[np.uint8]:
    """What a receiver gets who fills each contour at the pixel centres of the slice that it names."""
    labels = np.zeros(head.labels.labels.shape, np.uint8)
    to_index = np.linalg.inv(head.volume.geometry.affine)
    of_frame = {(frame.sop_instance_uid, frame.frame_number): i for i, frame in enumerate(head.volume.frames)}
    centres = np.argwhere(np.ones(labels.shape[1:], dtype=bool))
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            (image,) = contour.ContourImageSequence
            number = image.get("ReferencedFrameNumber")
            place = points_mm(contour) @ to_index[:3, :3].T + to_index[:3, 3]
            slice_index = of_frame[image.ReferencedSOPInstanceUID, None if number is None else int(number)]
            assert np.abs(place[:, 0] - slice_index).max() < 1e-3
            polygon = Polygon(np.vstack([place[:, 1:], place[:1, 1:]]), closed=True)
            inside = polygon.contains_points(centres).reshape(labels.shape[1:])
            labels[slice_index][inside] = int(roi.ReferencedROINumber)
    return labels


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_a_receiver_who_fills_the_contours_gets_the_label_map(
    tmp_path: Path, card: ModelCard, orientation: tuple[float, ...], enhanced: bool
) -> None:
    head = draw_head(tmp_path, orientation=orientation, enhanced=enhanced)

    assert np.array_equal(filled_by_a_receiver(written(head, card), head), head.labels.labels)


@pytest.mark.parametrize("shape", [(11, 33, 61), (9, 40, 63)])
def test_holes_specks_and_parts_at_the_edge_come_back_too(
    tmp_path: Path, card: ModelCard, shape: tuple[int, int, int]
) -> None:
    head = awkward(draw_head(tmp_path, shape=shape, spacing_mm=(2.0, 1.3, 1.1), orientation=OBLIQUE))

    assert np.array_equal(filled_by_a_receiver(written(head, card), head), head.labels.labels)


def test_a_hole_is_part_of_the_contour_around_it(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    slices = int((head.labels.labels == 1).any(axis=(1, 2)).sum())

    found = contours(written(awkward(head), card), 1)

    assert len(found) == slices + 1  # a contour a slice, and the island in one of the two holes


def test_each_structure_is_an_roi_with_its_name_colour_and_codes(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)

    dataset = written(head, card)

    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == [one.name for one in card.structures]
    for structure, roi, contour, observation in zip(
        card.structures,
        dataset.StructureSetROISequence,
        dataset.ROIContourSequence,
        dataset.RTROIObservationsSequence,
        strict=True,
    ):
        assert roi.ROINumber == contour.ReferencedROINumber == observation.ReferencedROINumber
        assert roi.ROIGenerationAlgorithm == "AUTOMATIC"
        assert roi.ReferencedFrameOfReferenceUID == head.volume.geometry.frame_of_reference_uid
        assert tuple(contour.ROIDisplayColor) == structure.colour
        kind = observation.RTROIIdentificationCodeSequence[0]
        side = kind.SegmentedPropertyTypeModifierCodeSequence[0]
        assert (kind.CodeValue, side.CodeValue) == (structure.type.value, structure.laterality.value)


def test_it_says_what_it_is_and_what_it_was_made_of(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)

    dataset = written(head, card)

    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.481.3"
    assert (dataset.Modality, dataset.SeriesNumber, dataset.ApprovalStatus) == ("RTSTRUCT", 503, "UNAPPROVED")
    for keyword in ("StructureSetLabel", "StructureSetName", "StructureSetDescription", "SeriesDescription"):
        assert "RESEARCH" in dataset[keyword].value
    assert dataset.ContentQualification == "RESEARCH"
    assert (dataset.StructureSetDate, dataset.StructureSetTime) == ("20260304", "050607.000890")
    (frame_of_reference,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame_of_reference.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert study.ReferencedSOPInstanceUID == dataset.StudyInstanceUID
    images = [image.ReferencedSOPInstanceUID for image in series.ContourImageSequence]
    assert images == [frame.sop_instance_uid for frame in head.volume.frames]


def test_a_multi_frame_source_is_named_with_its_frame(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, enhanced=True)

    dataset = written(head, card)

    numbers = {c.ContourImageSequence[0].ReferencedFrameNumber for c in contours(dataset, 1)}
    present = np.flatnonzero((head.labels.labels == 1).any(axis=(1, 2)))
    assert numbers == {head.volume.frames[index].frame_number for index in present}
    (frame_of_reference,) = dataset.ReferencedFrameOfReferenceSequence
    series = frame_of_reference.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert len(series.ContourImageSequence) == 1


def test_an_empty_structure_is_an_roi_without_contours(tmp_path: Path, card: ModelCard) -> None:
    dataset = written(without(draw_head(tmp_path), 2), card)

    assert len(dataset.StructureSetROISequence) == len(dataset.RTROIObservationsSequence) == 4
    assert contours(dataset, 2) == []
    assert "ContourSequence" not in dataset.ROIContourSequence[1]
    assert "ROIVolume" not in dataset.StructureSetROISequence[1]


def test_the_same_job_gives_the_same_bytes_and_other_labels_another_uid(
    tmp_path: Path, card: ModelCard
) -> None:
    head = draw_head(tmp_path)

    first, again, other = (written(one, card) for one in (head, head, without(head, 2)))

    assert encode(first) == encode(again)
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_a_label_map_on_another_grid_is_not_written(tmp_path: Path, card: ModelCard) -> None:
    head, other = draw_head(tmp_path / "a"), draw_head(tmp_path / "b", spacing_mm=(1.5, 1.0, 1.01))
    moved = LabelMap(labels=head.labels.labels, geometry=other.volume.geometry)

    with pytest.raises(SelfCheckError, match="not on the grid"):
        write_rtstruct(head.volume, moved, card, JOB)


def test_a_label_that_the_card_does_not_name_is_not_written(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    labels = head.labels.labels.copy()
    labels[0, 0, 0] = 9

    with pytest.raises(SelfCheckError, match="holds 9"):
        written(head.relabelled(labels), card)


def test_a_contour_too_long_for_dicom_is_not_written(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, shape=(3, 101, 101), spacing_mm=(3.0, 1.0, 1.0))
    labels = np.zeros(head.labels.labels.shape, np.uint8)
    labels[1, :, ::2] = 1
    labels[1, 0] = 1  # a comb

    with pytest.raises(SelfCheckError, match="too long for DICOM"):
        written(head.relabelled(labels), card)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_plastimatch_makes_the_label_map_of_the_contours(
    tmp_path: Path, card: ModelCard, orientation: tuple[float, ...]
) -> None:
    series = tmp_path / "series"
    head = awkward(draw_head(series, spacing_mm=(1.5, 1.1, 0.9), orientation=orientation))
    path = on_disk(encode(written(head, card)), tmp_path, "rtstruct.dcm")

    said = run(
        "plastimatch",
        "convert",
        *("--input", path, "--referenced-ct", series),
        *("--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd"),
    )

    assert said.returncode == 0, said.stderr
    for structure in card.structures:
        image = sitk.ReadImage(str(tmp_path / "masks" / f"{structure.name}.nrrd"))
        assert np.array_equal(sitk.GetArrayFromImage(image) > 0, head.labels.labels == structure.number)


@pytest.mark.parametrize("peer", ["dciodvfy of Debian", "dciodvfy of PyPI"])
@pytest.mark.parametrize("kind", ["axial", "enhanced", "empty", "awkward", "greek"])
def test_dciodvfy_finds_nothing(tmp_path: Path, card: ModelCard, peer: str, kind: str) -> None:
    name = "Σπυρου^Διονυσιος" if kind == "greek" else "Example^Person"
    head = draw_head(tmp_path / "source", enhanced=kind == "enhanced", PatientName=name)
    head = {"empty": without(head, 2), "awkward": awkward(head)}.get(kind, head)

    said = run(peer, on_disk(encode(written(head, card)), tmp_path, "rtstruct.dcm"))

    assert (said.stdout + said.stderr).split() == ["RTStructureSet"]
    assert said.returncode == 0
