from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError, StorageError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.rtstruct import check_rtstruct
from gpnet_node.results.check.truth import measure_again
from gpnet_node.results.header import encode
from gpnet_node.results.rtstruct import write_rtstruct
from tests.awkward import awkward, without
from tests.pallida import JOB, OBLIQUE, Head, draw_head
from tests.test_results_peers import boxes_in, first_volume, on_disk, run

Points = NDArray[np.float64]

KINDS: dict[str, Callable[[Path], Head]] = {
    "axial": draw_head,
    "oblique": lambda folder: draw_head(folder, orientation=OBLIQUE),
    "enhanced": lambda folder: draw_head(folder, orientation=OBLIQUE, enhanced=True),
    "odd matrix": lambda folder: draw_head(folder, shape=(11, 33, 61), spacing_mm=(2.0, 1.5, 1.0)),
    "empty GPi": lambda folder: without(draw_head(folder), 2),
    "awkward": lambda folder: awkward(draw_head(folder, orientation=OBLIQUE)),
    "greek": lambda folder: draw_head(folder, PatientName="Σπυρου^Διονυσιος"),
    "three digits": lambda folder: draw_head(
        folder,
        shape=(20, 250, 250),
        spacing_mm=(1.5, 1.0, 1.0),
        orientation=(0.743, -0.208, 0.637, 0.243, 0.97, 0.035),
    ),
}


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    head: Head
    content: bytes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, card: ModelCard) -> Written:
    head = KINDS["oblique"](tmp_path_factory.mktemp("oblique"))
    return Written(head=head, content=encode(write_rtstruct(head.volume, head.labels, card, JOB)))


def said_of(content: bytes, head: Head, card: ModelCard) -> str:
    """What the check says of a structure set; empty if it lets it pass."""
    findings = Findings()
    truth = measure_again(head.volume, head.labels, card)
    try:
        check_rtstruct(content, head.volume, head.labels, truth, card, findings)
        findings.raise_any()
    except SelfCheckError as error:
        return str(error)
    return ""


def changed(content: bytes, change: Callable[[Dataset], None]) -> bytes:
    dataset = dcmread(BytesIO(content))
    change(dataset)
    return encode(dataset)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_passes(tmp_path: Path, card: ModelCard, kind: str) -> None:
    head = KINDS[kind](tmp_path)

    content = encode(write_rtstruct(head.volume, head.labels, card, JOB))

    assert said_of(content, head, card) == ""


def test_positions_that_a_scanner_rounded_pass(tmp_path: Path, card: ModelCard) -> None:
    exact = draw_head(tmp_path / "exact", orientation=OBLIQUE)
    rng = np.random.default_rng(1)

    def rounded(index: int) -> list[float]:
        corner = exact.volume.geometry.affine @ [index, 0, 0, 1]
        return [round(float(x + rng.uniform(-0.008, 0.008)), 4) for x in corner[:3]]

    head = draw_head(tmp_path / "rounded", orientation=OBLIQUE, ImagePositionPatient=rounded)

    assert said_of(encode(write_rtstruct(head.volume, head.labels, card, JOB)), head, card) == ""


@pytest.mark.parametrize("name", ["dcm_qa_decubitus", "dcm_qa_xa60_7T_TerraX"])
def test_contours_on_real_series_pass_and_are_valid(
    shared_data: Path, tmp_path: Path, card: ModelCard, name: str
) -> None:
    head = boxes_in(first_volume(shared_data / "dicom" / name))

    content = encode(write_rtstruct(head.volume, head.labels, card, JOB))

    assert said_of(content, head, card) == ""
    for data in [content]:
        said = run("dciodvfy of PyPI", on_disk(data, tmp_path, "rtstruct.dcm"))
        assert "Error" not in said.stdout + said.stderr


# Mutants, and what must be said of each.


def every_contour(dataset: Dataset) -> list[Dataset]:
    return [contour for roi in dataset.ROIContourSequence for contour in roi.get("ContourSequence", [])]


def moved(contour: Dataset, move: Callable[[Points], Points]) -> None:
    points = move(np.array(contour.ContourData, dtype=float).reshape(-1, 3))
    contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
    contour.NumberOfContourPoints = len(points)


def step_mm(dataset: Dataset) -> Points:
    """From one slice to the next."""
    first, second = (
        np.array(contour.ContourData, dtype=float).reshape(-1, 3) for contour in every_contour(dataset)[3:5]
    )
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    return np.asarray(normal * ((second[0] - first[0]) @ normal))


def shift_points_by_a_slice(dataset: Dataset) -> None:
    step = step_mm(dataset)
    moved(every_contour(dataset)[3], lambda points: points + step)


def shift_references_by_a_slice(dataset: Dataset) -> None:
    contours = dataset.ROIContourSequence[0].ContourSequence
    images = [contour.ContourImageSequence for contour in contours]
    for contour, image in zip(contours, images[1:] + images[:1], strict=True):
        contour.ContourImageSequence = image


def shift_all_by_a_slice(dataset: Dataset) -> None:
    """Points and references agree with each other, a slice off."""
    contours, step = dataset.ROIContourSequence[0].ContourSequence, step_mm(dataset)
    images = [contour.ContourImageSequence for contour in contours]
    dataset.ROIContourSequence[0].ContourSequence = contours[:-1]
    for contour, image in zip(contours[:-1], images[1:], strict=True):
        contour.ContourImageSequence = image
        moved(contour, lambda points: points + step)


def exchange_sides(dataset: Dataset) -> None:
    for roi, other in zip(dataset.ROIContourSequence, (3, 4, 1, 2), strict=True):
        roi.ReferencedROINumber = other


def mirror(dataset: Dataset) -> None:
    for contour in every_contour(dataset):
        moved(contour, lambda points: points * [-1, 1, 1])


def larger(dataset: Dataset) -> None:
    for contour in every_contour(dataset):
        moved(contour, lambda points: points.mean(axis=0) + 1.02 * (points - points.mean(axis=0)))


def sideways(dataset: Dataset) -> None:
    for contour in every_contour(dataset):
        moved(contour, lambda points: points + 0.35 * np.array(OBLIQUE[:3]))


def dented(dataset: Dataset) -> None:
    def dent(points: Points) -> Points:
        points[0] -= 2.5 * np.array(OBLIQUE[3:])
        return points

    moved(every_contour(dataset)[3], dent)


def crossed(dataset: Dataset) -> None:
    moved(every_contour(dataset)[3], lambda points: points[[1, 0, *range(2, len(points))]])


def one_contour_less(dataset: Dataset) -> None:
    dataset.ROIContourSequence[1].ContourSequence = dataset.ROIContourSequence[1].ContourSequence[1:]


def one_contour_twice(dataset: Dataset) -> None:
    contours = dataset.ROIContourSequence[1].ContourSequence
    dataset.ROIContourSequence[1].ContourSequence = [*contours, contours[0]]


def all_contours_less(dataset: Dataset) -> None:
    del dataset.ROIContourSequence[1].ContourSequence


def open_contour(dataset: Dataset) -> None:
    every_contour(dataset)[0].ContourGeometricType = "OPEN_PLANAR"


def other_count(dataset: Dataset) -> None:
    every_contour(dataset)[0].NumberOfContourPoints += 1


def another_frame_of_reference(dataset: Dataset) -> None:
    dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"


def another_frame_of_reference_of_an_roi(dataset: Dataset) -> None:
    dataset.StructureSetROISequence[2].ReferencedFrameOfReferenceUID = "1.2.3"


def another_study(dataset: Dataset) -> None:
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    study.ReferencedSOPInstanceUID = "1.2.3"


def fewer_images(dataset: Dataset) -> None:
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    images = study.RTReferencedSeriesSequence[0].ContourImageSequence
    study.RTReferencedSeriesSequence[0].ContourImageSequence = (
        images[1:] or [*images, *images][:0] or [stranger()]
    )


def stranger() -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
    return reference


def an_image_of_another_series(dataset: Dataset) -> None:
    every_contour(dataset)[0].ContourImageSequence = [stranger()]


def another_colour(dataset: Dataset) -> None:
    dataset.ROIContourSequence[0].ROIDisplayColor = [255, 0, 0]


def another_name(dataset: Dataset) -> None:
    dataset.StructureSetROISequence[0].ROIName = "GPe right"


def another_laterality(dataset: Dataset) -> None:
    kind = dataset.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue = "24028007"


def another_type(dataset: Dataset) -> None:
    dataset.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0].CodeValue = "UBERON:0002477"


def another_stated_volume(dataset: Dataset) -> None:
    dataset.StructureSetROISequence[0].ROIVolume = "1.1"


def one_roi_less(dataset: Dataset) -> None:
    dataset.StructureSetROISequence = dataset.StructureSetROISequence[1:]


def another_patient(dataset: Dataset) -> None:
    dataset.PatientID = "SECRET"


def another_person(dataset: Dataset) -> None:
    dataset.PatientName = "SECRET^NAME"


def not_research(dataset: Dataset) -> None:
    del dataset.ContentQualification


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (shift_points_by_a_slice, "contour 4 of 8 (GPe left) lies 1.50 mm off the plane of the image"),
        (shift_references_by_a_slice, "contour 1 of 8 (GPe left) lies 1.50 mm off the plane of the image"),
        (shift_all_by_a_slice, "GPe left: contours and label map lie up to"),
        (exchange_sides, "GPe left: the contours' centre of mass is 4"),
        (mirror, "GPe left: the contours' centre of mass is 4"),
        (larger, "GPe left: the contours' volume is 1050"),
        (sideways, "GPe left: the contours' centre of mass is 0.36 mm off"),
        (dented, "GPe left: contours and label map lie up to"),
        (crossed, "GPe left: contours cross themselves or each other"),
        (one_contour_less, "GPi left: contours and label map lie up to inf pixels apart"),
        (one_contour_twice, "GPi left: the contours' volume is"),
        (all_contours_less, "GPi left: the contours' volume is 0.0 mm3"),
        (open_contour, "a contour is not CLOSED_PLANAR"),
        (other_count, "another number of points than it states"),
        (another_frame_of_reference, "the structure set's frame of reference is 1.2.3, the source's is"),
        (another_frame_of_reference_of_an_roi, "ROI 3 (GPe right): its frame of reference is 1.2.3"),
        (another_study, "refers to another study"),
        (fewer_images, "the structure set lists 19 of 20 source instances"),
        (an_image_of_another_series, "contour 1 of 8 (GPe left) names no image of the source"),
        (another_colour, "ROI 1 (GPe left): its colour is (255, 0, 0)"),
        (another_name, "ROI 1 (GPe left): its name is GPe right"),
        (another_laterality, "ROI 1 (GPe left): its laterality is ('24028007', 'SCT')"),
        (another_type, "ROI 1 (GPe left): its type is ('UBERON:0002477', 'UBERON')"),
        (another_stated_volume, "GPe left: ROIVolume is not the label map's volume"),
        (one_roi_less, "ROIs are numbered [2, 3, 4], not [1, 2, 3, 4]"),
        (another_patient, "the structure set's PatientID is not the source's"),
        (another_person, "the structure set's PatientName is not the source's"),
        (not_research, "the structure set does not say that it is RESEARCH"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_structure_set_that_differs_is_stopped_and_the_difference_named(
    written: Written, card: ModelCard, mutant: Callable[[Dataset], None], sentence: str
) -> None:
    said = said_of(changed(written.content, mutant), written.head, card)

    assert sentence in said
    assert "SECRET" not in said


def test_a_contour_that_names_the_next_frame_of_a_multi_frame_source_is_found(
    tmp_path: Path, card: ModelCard
) -> None:
    head = KINDS["enhanced"](tmp_path)
    content = encode(write_rtstruct(head.volume, head.labels, card, JOB))

    said = said_of(changed(content, shift_references_by_a_slice), head, card)

    assert "contour 1 of 8 (GPe left) lies 1.50 mm off the plane of the image it names" in said


def test_a_hole_that_is_filled_is_found(tmp_path: Path, card: ModelCard) -> None:
    head = awkward(draw_head(tmp_path))
    filled = head.labels.labels.copy()
    slices, rows, columns = np.nonzero(filled == 1)
    middle = int(np.median(slices))
    row, column = int(np.median(rows)), int(np.median(columns[slices == middle]))
    filled[middle : middle + 2, row - 3 : row + 4, column - 3 : column + 4] = 1
    other = head.relabelled(filled)

    said = said_of(encode(write_rtstruct(other.volume, other.labels, card, JOB)), head, card)

    assert "GPe left: contours and label map lie up to" in said


def test_bytes_that_are_no_structure_set_are_stopped(written: Written, card: ModelCard) -> None:
    assert "cannot be read back" in said_of(b"", written.head, card)
    assert "cannot be read back" in said_of(written.head.paths[0].read_bytes(), written.head, card)


def test_a_source_that_is_gone_is_the_operators_matter(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    content = encode(write_rtstruct(head.volume, head.labels, card, JOB))
    head.paths[0].unlink()

    with pytest.raises(StorageError, match="cannot be read again"):
        said_of(content, head, card)
