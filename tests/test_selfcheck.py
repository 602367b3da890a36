from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pack_bits

from gpnet_node.errors import SelfCheckError, StorageError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.result_profile import SegForm
from gpnet_node.results.header import encode
from gpnet_node.results.selfcheck import check
from gpnet_node.results.written import WrittenObject
from tests.pallida import OBLIQUE, Head, Results, draw_head, write_results


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture(scope="module", params=["classic", "enhanced"])
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, card: ModelCard
) -> Results:
    folder = tmp_path_factory.mktemp(request.param)
    return write_results(draw_head(folder, orientation=OBLIQUE, enhanced=request.param == "enhanced"), card)


def verdict(
    results: Results, card: ModelCard, *, seg: WrittenObject | None = None, sr: WrittenObject | None = None
) -> str:
    """What the self-check says of these objects; empty if it lets them pass."""
    try:
        check((seg or results.seg, sr or results.sr), replace(results.content, card=card))
    except SelfCheckError as error:
        return str(error)
    return ""


def changed(written: WrittenObject, change: Callable[[Dataset], None]) -> WrittenObject:
    dataset = dcmread(BytesIO(written.content))
    change(dataset)
    return replace(written, content=encode(dataset))


def repaint(seg: Dataset, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
    """Replace the pixels of all frames, (frame, row, column)."""
    seg.PixelData = pack_bits(np.ascontiguousarray(change(seg.pixel_array)))


def test_what_was_written_passes(results: Results, card: ModelCard) -> None:
    assert verdict(results, card) == ""


@pytest.mark.parametrize("shape", [(11, 33, 61), (9, 40, 63)])
def test_a_matrix_that_does_not_fill_bytes_passes(
    tmp_path: Path, card: ModelCard, shape: tuple[int, int, int]
) -> None:
    results = write_results(draw_head(tmp_path, shape=shape, spacing_mm=(2.0, 1.5, 1.1)), card)

    assert verdict(results, card) == ""


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_a_wide_image_whose_direction_cosines_have_three_digits_passes(
    tmp_path: Path, card: ModelCard, enhanced: bool
) -> None:
    cosines = (0.743, -0.208, 0.637, 0.243, 0.97, 0.035)  # as far from orthonormal as rounding makes them
    head = draw_head(
        tmp_path, shape=(20, 250, 250), orientation=cosines, spacing_mm=(1.5, 1.0, 1.0), enhanced=enhanced
    )

    assert verdict(write_results(head, card), card) == ""


def rotated(axis: int, angle: float) -> NDArray[np.float64]:
    """Rotation about one patient axis, radians."""
    matrix = np.eye(3)
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


@settings(max_examples=12, deadline=None)
@given(
    turn=st.tuples(*(st.floats(-0.6, 0.6) for _ in range(3))),
    base=st.sampled_from(["axial", "coronal", "sagittal"]),
    spacing=st.tuples(st.floats(0.9, 2), st.floats(0.6, 1.2), st.floats(0.6, 1.2)),
)
def test_any_orientation_and_spacing_passes(
    card: ModelCard, turn: tuple[float, float, float], base: str, spacing: tuple[float, float, float]
) -> None:
    rows_and_columns = {
        "axial": ((1, 0, 0), (0, 1, 0)),
        "coronal": ((1, 0, 0), (0, 0, -1)),
        "sagittal": ((0, 1, 0), (0, 0, -1)),
    }[base]
    rotation = rotated(0, turn[0]) @ rotated(1, turn[1]) @ rotated(2, turn[2])
    orientation = tuple(np.round(np.concatenate([rotation @ axis for axis in rows_and_columns]), 8).tolist())
    rounded = (round(spacing[0], 4), round(spacing[1], 4), round(spacing[2], 4))
    with TemporaryDirectory() as folder:
        head = draw_head(Path(folder), shape=(24, 40, 44), spacing_mm=rounded, orientation=orientation)
        said = verdict(write_results(head, card), card)

    assert said == ""


FORMS = [
    SegForm(labelmap=labelmap, empty_frames=empty, padded_columns=padded)
    for labelmap in (False, True)
    for empty in (False, True)
    for padded in (False, True)
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name or "usual")
def test_every_form_of_the_segmentation_passes_as_itself_and_no_other(
    tmp_path: Path, card: ModelCard, form: SegForm
) -> None:
    results = write_results(draw_head(tmp_path, shape=(20, 48, 61)), card, form=form)

    assert verdict(results, card) == ""
    for other in FORMS:
        if other != form:
            assert verdict(results, card, seg=replace(results.seg, form=other)) != ""


def test_a_label_map_whose_numbers_are_exchanged_is_stopped(tmp_path: Path, card: ModelCard) -> None:
    results = write_results(draw_head(tmp_path), card, form=SegForm(labelmap=True))

    def exchange(seg: Dataset) -> None:
        values = np.frombuffer(seg.PixelData, np.uint8)
        seg.PixelData = np.choose(values, [0, 3, 2, 1, 4]).astype(np.uint8).tobytes()

    assert "GPe left: " in verdict(results, card, seg=changed(results.seg, exchange))


@pytest.mark.parametrize(
    "name", ["Σπυρου^Διονυσιος", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Äneas^Rüdiger"]
)
def test_a_patient_with_a_name_in_another_script_passes(tmp_path: Path, card: ModelCard, name: str) -> None:
    head = draw_head(tmp_path, shape=(5, 48, 60), spacing_mm=(3.0, 1.0, 1.0), PatientName=name)

    assert verdict(write_results(head, card), card) == ""


def test_a_source_that_is_gone_is_the_operators_matter(tmp_path: Path, card: ModelCard) -> None:
    results = write_results(draw_head(tmp_path), card)
    results.head.paths[0].unlink()

    with pytest.raises(StorageError, match="cannot be read again"):
        verdict(results, card)


def test_an_empty_structure_passes(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    labels = np.where(head.labels.labels == 2, 0, head.labels.labels).astype(np.uint8)

    assert verdict(write_results(head.relabelled(labels), card), card) == ""


def test_positions_that_a_scanner_rounded_pass(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path / "exact")
    rng = np.random.default_rng(1)

    def rounded(index: int) -> list[float]:
        exact = head.volume.geometry.affine @ [index, 0, 0, 1]
        return [round(float(x + rng.uniform(-0.004, 0.004)), 4) for x in exact[:3]]

    results = write_results(draw_head(tmp_path / "rounded", ImagePositionPatient=rounded), card)

    assert verdict(results, card) == ""


# Mutants of the segmentation, and what must be said of each.


def flip_left_right(seg: Dataset) -> None:
    repaint(seg, lambda frames: frames[:, :, ::-1])


def shift_one_slice(seg: Dataset) -> None:
    repaint(seg, lambda frames: np.roll(frames, 1, axis=0))


def shift_one_column(seg: Dataset) -> None:
    repaint(seg, lambda frames: np.roll(frames, 1, axis=2))


def move_positions_by_a_slice(seg: Dataset) -> None:
    frames = seg.PerFrameFunctionalGroupsSequence
    step = np.subtract(*(np.array(frames[i].PlanePositionSequence[0].ImagePositionPatient) for i in (1, 0)))
    for frame in frames:
        plane = frame.PlanePositionSequence[0]
        moved = np.array(plane.ImagePositionPatient) + step
        plane.ImagePositionPatient = [f"{value:.6g}" for value in moved]


def exchange_segment_numbers(seg: Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        item = frame.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = {1: 3, 2: 4, 3: 1, 4: 2}[item.ReferencedSegmentNumber]


def exchange_gpi_and_gpe(seg: Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        item = frame.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = {1: 2, 2: 1, 3: 4, 4: 3}[item.ReferencedSegmentNumber]


def exchange_laterality_codes(seg: Dataset) -> None:
    for item in seg.SegmentSequence:
        side = item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
        side.CodeValue = {"7771000": "24028007", "24028007": "7771000"}[side.CodeValue]


def drop_laterality(seg: Dataset) -> None:
    del seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence


def another_frame_of_reference(seg: Dataset) -> None:
    seg.FrameOfReferenceUID = "1.2.3.4"


def drop_derivation(seg: Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence


def empty_derivation_of_one_frame(seg: Dataset) -> None:
    seg.PerFrameFunctionalGroupsSequence[7].DerivationImageSequence = []


def not_preserved(seg: Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved = "NO"


def refer_to_the_neighbours(seg: Dataset) -> None:
    frames = seg.PerFrameFunctionalGroupsSequence
    derivations = [frame.DerivationImageSequence for frame in frames]
    for frame, derivation in zip(frames, derivations[1:] + derivations[:1], strict=True):
        frame.DerivationImageSequence = derivation


def drop_referenced_series(seg: Dataset) -> None:
    del seg.ReferencedSeriesSequence


def wider_pixels(seg: Dataset) -> None:
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1, 1.05]


def turned(seg: Dataset) -> None:
    seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [
        *OBLIQUE[3:],
        *OBLIQUE[:3],
    ]


def one_voxel_more(seg: Dataset) -> None:
    def paint(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        painted = frames.copy()
        painted[0, 0, 0] = 1
        return painted

    repaint(seg, paint)


def another_patient(seg: Dataset) -> None:
    seg.PatientID = "SECRET"


def another_name(seg: Dataset) -> None:
    seg.PatientName = "SECRET^NAME"


def not_research(seg: Dataset) -> None:
    del seg.ContentQualification


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (flip_left_right, "GPe right: the segmentation's centre of mass is 41.61 mm off"),
        (shift_one_slice, "GPe left: the segmentation's centre of mass is 1.50 mm off"),
        (shift_one_column, "GPi right: the segmentation's centre of mass is 1.00 mm off"),
        (move_positions_by_a_slice, "does not refer to the source image that it lies on"),
        (exchange_segment_numbers, "GPe left: the segmentation's centre of mass is 42"),
        (exchange_gpi_and_gpe, "GPi left: the segmentation's volume is"),
        (exchange_laterality_codes, "segment 1 (GPe left): laterality is ('24028007', 'SCT')"),
        (drop_laterality, "segment 1 (GPe left): laterality is None"),
        (another_frame_of_reference, "the segmentation's frame of reference is 1.2.3.4, the source's is"),
        (drop_derivation, "frame 1 of 80 (GPe left) does not refer to the source image"),
        (empty_derivation_of_one_frame, "frame 8 of 80 (GPe left) does not refer to the source image"),
        (not_preserved, "frame 1 of 80 (GPe left) does not refer to the source image"),
        (refer_to_the_neighbours, "frame 1 of 80 (GPe left) does not refer to the source image"),
        (drop_referenced_series, "ReferencedSeriesSequence lists 0 of"),
        (wider_pixels, "the segmentation's spacing is 1.5000 x 1.0000 x 1.0500 mm"),
        (turned, "the segmentation's orientation is not the label map's"),
        (one_voxel_more, "GPe left: 1 voxels differ from the label map"),
        (another_patient, "the segmentation's PatientID is not the source's"),
        (another_name, "the segmentation's PatientName is not the source's"),
        (not_research, "the segmentation does not say that it is RESEARCH"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_segmentation_that_differs_is_stopped_and_the_difference_named(
    results: Results, card: ModelCard, mutant: Callable[[Dataset], None], sentence: str
) -> None:
    said = verdict(results, card, seg=changed(results.seg, mutant))

    assert sentence in said
    assert "SECRET" not in said


# Mutants of the report.


def group(report: Dataset, number: int) -> Dataset:
    container = next(item for item in report.ContentSequence if item.ValueType == "CONTAINER")
    found: Dataset = container.ContentSequence[number - 1]
    return found


def named(parent: Dataset, meaning: str) -> Dataset:
    found: Dataset = next(
        item
        for item in parent.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning.startswith(meaning)
    )
    return found


def wrong_volume(report: Dataset) -> None:
    named(group(report, 1), "Volume").MeasuredValueSequence[0].NumericValue = "1100.0"


def wrong_unit(report: Dataset) -> None:
    unit = named(group(report, 1), "Volume").MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    unit.CodeValue = "cm3"


def wrong_signal(report: Dataset) -> None:
    named(group(report, 2), "MR signal").MeasuredValueSequence[0].NumericValue = "1"


def wrong_point(report: Dataset) -> None:
    point = named(group(report, 1), "Center of Mass")
    point.GraphicData = [-point.GraphicData[0], *point.GraphicData[1:]]


def point_elsewhere(report: Dataset) -> None:
    named(group(report, 1), "Center of Mass").ReferencedFrameOfReferenceUID = "1.2.3"


def drop_point(report: Dataset) -> None:
    content = group(report, 1).ContentSequence
    group(report, 1).ContentSequence = [item for item in content if item.ValueType != "SCOORD3D"]


def drop_asymmetry(report: Dataset) -> None:
    asymmetry = named(group(report, 1), "Left-right")
    content = group(report, 1).ContentSequence
    group(report, 1).ContentSequence = [item for item in content if item is not asymmetry]


def exchange_groups(report: Dataset) -> None:
    for number, other in ((1, 3), (3, 1)):
        reference = named(group(report, number), "Referenced Segment").ReferencedSOPSequence[0]
        reference.ReferencedSegmentNumber = other


def other_side(report: Dataset) -> None:
    site = named(group(report, 1), "Finding Site")
    site.ContentSequence[0].ConceptCodeSequence[0].CodeValue = "24028007"


def another_segmentation(report: Dataset) -> None:
    named(group(report, 1), "Referenced Segment").ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def drop_evidence(report: Dataset) -> None:
    del report.CurrentRequestedProcedureEvidenceSequence


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (wrong_volume, "the report's volume of GPe left is 1100 mm3, the label map's 10"),
        (wrong_unit, "the report's volume of GPe left is 1009.5 cm3, the label map's 1009.5 mm3"),
        (wrong_signal, "the report's mean signal of GPi left is 1 1, the label map's 3"),
        (wrong_point, "the report's centre of GPe left is 42"),
        (point_elsewhere, "the report's centre of GPe left is in another frame of reference"),
        (drop_point, "GPe left: report and label map do not both have its centre of mass"),
        (drop_asymmetry, "GPe left: report and label map do not both have its asymmetry"),
        (exchange_groups, "the report measures segments [3, 2, 1, 4]"),
        (other_side, "the report's laterality of GPe left is ('24028007', 'SCT')"),
        (another_segmentation, "the report's group on GPe left refers to another segmentation"),
        (drop_evidence, "the report's evidence lacks"),
        (another_patient, "the report's PatientID is not the source's"),
        (not_research, "the report does not say that it is RESEARCH"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_report_that_differs_is_stopped_and_the_difference_named(
    results: Results, card: ModelCard, mutant: Callable[[Dataset], None], sentence: str
) -> None:
    said = verdict(results, card, sr=changed(results.sr, mutant))

    assert sentence in said
    assert "SECRET" not in said


def test_objects_of_a_mirrored_label_map_are_stopped_though_they_agree_with_it(
    tmp_path: Path, card: ModelCard
) -> None:
    head = draw_head(tmp_path)
    mirrored = head.relabelled(np.ascontiguousarray(head.labels.labels[:, :, ::-1]))

    said = verdict(write_results(mirrored, card), card)

    assert "GPe left lies to the patient's right of GPe right: sides are exchanged" in said


def test_a_label_that_the_card_does_not_name_is_an_error(results: Results, card: ModelCard) -> None:
    labels = results.head.labels.labels.copy()
    labels[0, 0, 0] = 9
    other = replace(results.content, labels=results.head.relabelled(labels).labels)

    with pytest.raises(SelfCheckError, match="holds 9"):
        check((results.seg, results.sr), other)


def test_measurements_of_another_label_map_are_stopped(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    labels = head.labels.labels.copy()
    labels[np.nonzero(labels == 1)[0][0]] = 0
    results, other = write_results(head, card), write_results(head.relabelled(labels), card)

    with pytest.raises(SelfCheckError, match="GPe left: measured"):
        check((results.seg, results.sr), replace(results.content, measurements=other.content.measurements))


@pytest.mark.parametrize("which", ["seg", "sr"])
def test_bytes_that_are_no_such_object_are_stopped(results: Results, card: ModelCard, which: str) -> None:
    own, other = (results.seg, results.sr) if which == "seg" else (results.sr, results.seg)

    for content in (other.content, b""):
        assert "cannot be read back" in verdict(results, card, **{which: replace(own, content=content)})


def test_a_truncated_segmentation_is_stopped(results: Results, card: ModelCard) -> None:
    def cut(seg: Dataset) -> None:
        seg.PixelData = seg.PixelData[: len(seg.PixelData) // 2 // 2 * 2]

    assert "cannot be read back" in verdict(results, card, seg=changed(results.seg, cut))


def test_many_differences_are_told_in_a_sentence_that_ends(results: Results, card: ModelCard) -> None:
    said = verdict(results, card, seg=changed(results.seg, drop_derivation))

    assert said.endswith("; and 68 more")
    assert len(said) < 2000


def test_the_head_of_the_tests_is_no_mirror_image_of_itself(results: Results) -> None:
    head: Head = results.head
    assert not np.array_equal(head.labels.labels > 0, head.labels.labels[:, :, ::-1] > 0)
