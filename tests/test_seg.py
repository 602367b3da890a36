import os
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import DataElement, Dataset, config, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.errors import ConfigurationError, SelfCheckError, UnreadableInstanceError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.result_profile import SegForm
from gpnet_node.results.header import encode
from gpnet_node.results.report import write_report
from gpnet_node.results.seg import write_seg
from tests.factories import rewrite
from tests.pallida import JOB, OBLIQUE, content_of, draw_head
from tests.segmenters import MODEL

NAMES = {
    "japanese": ("ISO 2022 IR 6\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "greek": ("ISO_IR 126", "Διονυσιος"),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг"),
    "german": ("ISO_IR 100", "Äneas^Rüdiger"),
    "korean": ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "unicode": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
}


@pytest.fixture
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def read_back(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(encode(dataset)))


def test_segments_stand_in_the_cards_order_with_its_codes_and_colours(
    tmp_path: Path, card: ModelCard
) -> None:
    head = draw_head(tmp_path)

    seg = read_back(write_seg(head.volume, head.labels, card, JOB))

    assert [item.SegmentLabel for item in seg.SegmentSequence] == [
        "GPe left",
        "GPi left",
        "GPe right",
        "GPi right",
    ]
    for item, structure in zip(seg.SegmentSequence, card.structures, strict=True):
        kind, region = item.SegmentedPropertyTypeCodeSequence[0], item.AnatomicRegionSequence[0]
        side = kind.SegmentedPropertyTypeModifierCodeSequence[0]
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == (structure.type.value, "UBERON")
        assert (side.CodeValue, side.CodeMeaning) == (structure.laterality.value, structure.side.title())
        assert (region.CodeValue, region.CodingSchemeDesignator) == ("14738005", "SCT")
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (card.name, card.version)
        assert f"weights_sha256={card.weights_sha256}" in "".join(algorithm.AlgorithmParameters)
        assert len(item.RecommendedDisplayCIELabValue) == 3
    scheme = seg.CodingSchemeIdentificationSequence[0]
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeUID) == ("UBERON", "1.2.840.10008.2.16.6")
    assert seg.SegmentationType == "BINARY"
    assert seg.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_every_object_says_that_it_is_research_and_who_made_it(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)

    seg = read_back(write_seg(head.volume, head.labels, card, JOB))

    assert seg.ContentQualification == "RESEARCH"
    assert "RESEARCH" in seg.ContentLabel
    assert "RESEARCH" in seg.ContentDescription
    assert "RESEARCH" in seg.SeriesDescription
    assert (seg.Manufacturer, seg.ManufacturerModelName) == ("gpnet_node", card.name)
    assert (seg.DeviceSerialNumber, seg.StationName) == ("GPNET", "GPNET")
    acquired, processed = seg.ContributingEquipmentSequence
    assert acquired.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert acquired.Manufacturer == "Example Scanners"
    assert processed.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert processed.Manufacturer == "gpnet_node"


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("omit", [False, True], ids=["all frames", "without empty frames"])
def test_frames_lie_on_the_source_grid_and_refer_to_the_images_they_lie_on(
    tmp_path: Path, card: ModelCard, enhanced: bool, omit: bool
) -> None:
    head = draw_head(tmp_path, orientation=OBLIQUE, enhanced=enhanced)
    of_frame = {(f.sop_instance_uid, f.frame_number): k for k, f in enumerate(head.volume.frames)}

    seg = read_back(write_seg(head.volume, head.labels, card, JOB, SegForm(empty_frames=not omit)))

    assert seg.FrameOfReferenceUID == head.volume.geometry.frame_of_reference_uid
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == pytest.approx(OBLIQUE)
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [1, 1]
    assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 1.5
    filled = sum(bool((head.labels.labels[k] == n).any()) for k in range(20) for n in (1, 2, 3, 4))
    assert seg.NumberOfFrames == (filled if omit else 80)
    for item, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        reference = item.DerivationImageSequence[0].SourceImageSequence[0]
        number = reference.get("ReferencedFrameNumber")
        slice_index = of_frame[reference.ReferencedSOPInstanceUID, None if number is None else int(number)]
        corner = head.volume.geometry.affine @ [slice_index, 0, 0, 1]
        assert reference.SpatialLocationsPreserved == "YES"
        assert list(item.PlanePositionSequence[0].ImagePositionPatient) == pytest.approx(corner[:3], abs=1e-3)
        segment = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert np.array_equal(pixels, head.labels.labels[slice_index] == segment)
    series = seg.ReferencedSeriesSequence[0]
    instances = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert instances == {frame.sop_instance_uid for frame in head.volume.frames}


def test_a_matrix_that_does_not_fill_bytes_is_packed_without_padding(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, shape=(11, 33, 61), spacing_mm=(2.0, 1.5, 1.0))

    seg = read_back(write_seg(head.volume, head.labels, card, JOB))

    for item, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        height_mm = item.PlanePositionSequence[0].ImagePositionPatient[2]
        assert np.array_equal(pixels, head.labels.labels[round((height_mm + 10) / 2)] == number)


@pytest.mark.parametrize("language", NAMES)
def test_a_patients_name_survives_in_any_character_set(
    tmp_path: Path, card: ModelCard, language: str
) -> None:
    character_set, name = NAMES[language]
    head = draw_head(tmp_path, shape=(4, 48, 60), spacing_mm=(3.0, 1.0, 1.0))
    for path in head.paths:
        encode_text(path, character_set, name)

    written = encode(write_seg(head.volume, head.labels, card, JOB))

    seg = dcmread(BytesIO(written))
    assert str(seg.PatientName) == name
    assert seg.StudyDescription == name.partition("=")[0]
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert name.encode("utf-8") in written


def encode_text(path: Path, character_set: str, name: str) -> None:
    dataset = dcmread(path)
    dataset.SpecificCharacterSet = character_set.split("\\")
    dataset.PatientName = name
    dataset.StudyDescription = name.partition("=")[0]
    dataset.save_as(path, enforce_file_format=True)


def test_plain_text_needs_no_character_set(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)

    seg = read_back(write_seg(head.volume, head.labels, card, JOB))

    assert "SpecificCharacterSet" not in seg


def test_patient_and_study_are_the_sources(tmp_path: Path, card: ModelCard) -> None:
    attributes: dict[str, Any] = {"PatientComments": "x", "StudyDescription": "DBS", "PatientSize": 1.8}
    head = draw_head(tmp_path, **attributes)
    source = dcmread(head.paths[0])

    seg = read_back(write_seg(head.volume, head.labels, card, JOB))

    for keyword in (
        *attributes,
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
    ):
        assert seg[keyword].value == source[keyword].value
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert seg.SeriesNumber == 501


def test_a_source_that_leaves_out_what_it_should_not_is_still_written(
    tmp_path: Path, card: ModelCard
) -> None:
    head = draw_head(tmp_path, shape=(4, 48, 60), spacing_mm=(3.0, 1.0, 1.0))
    type_2 = (
        "PatientName",
        "PatientID",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
    )
    gone = dict.fromkeys(
        (*type_2, "ReferringPhysicianName", "Manufacturer", "SeriesNumber", "SliceThickness")
    )
    for path in head.paths:
        rewrite(path, **gone, PatientBirthDate="")

    seg = read_back(write_seg(head.volume, head.labels, card, JOB))

    assert [str(seg[keyword].value) for keyword in (*type_2, "PatientBirthDate")] == [""] * 8
    assert seg.SeriesNumber == 1
    assert len(seg.ContributingEquipmentSequence) == 1


@pytest.mark.parametrize(
    ("number", "result"),
    [(0, 1), (21474835, 2147483501), (21474836, 1), (99_999_999, 1), (2**31 - 1, 1), (-3, 1)],
)
def test_the_series_number_is_a_hundredfold_of_the_sources_where_that_fits_an_integer_string(
    tmp_path: Path, card: ModelCard, number: int, result: int
) -> None:
    head = draw_head(tmp_path, shape=(4, 48, 60), spacing_mm=(3.0, 1.0, 1.0), SeriesNumber=number)

    seg = write_seg(head.volume, head.labels, card, JOB)
    report = write_report(content_of(head, card), seg)

    assert read_back(seg).SeriesNumber == result
    assert read_back(report).SeriesNumber == result + 1
    assert result + 1 < 2**31  # PS3.5 6.2, IS


def test_a_source_compressed_with_loss_is_said_so(tmp_path: Path, card: ModelCard) -> None:
    lossy: dict[str, Any] = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 8.5,
        "LossyImageCompressionMethod": "ISO_15444_1",
    }
    head = draw_head(tmp_path, **lossy)

    seg = read_back(write_seg(head.volume, head.labels, card, JOB))

    assert {keyword: seg[keyword].value for keyword in lossy} == lossy


def test_values_that_break_their_vr_are_copied_as_they_are(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, shape=(4, 48, 60), spacing_mm=(3.0, 1.0, 1.0))
    broken = {"PatientBirthDate": "1.2.1970", "StudyTime": "noon", "PatientSex": "female", "PatientAge": "56"}
    for path in head.paths:
        dataset = dcmread(path)
        for keyword, value in broken.items():
            vr = dictionary_VR(keyword)
            dataset.add(DataElement(keyword, vr, value, validation_mode=config.IGNORE))
        dataset.save_as(path, enforce_file_format=True)

    with warnings.catch_warnings(action="ignore"):  # pydicom's, on these very values
        seg = read_back(write_seg(head.volume, head.labels, card, JOB))
        found = {keyword: str(seg[keyword].value) for keyword in broken}

    assert found == broken


def test_dates_are_the_jobs_in_the_sources_time_zone_which_the_result_names_too(
    tmp_path: Path, card: ModelCard
) -> None:
    head = draw_head(tmp_path, TimezoneOffsetFromUTC="+0930")

    seg = read_back(write_seg(head.volume, head.labels, card, JOB))

    for event in ("InstanceCreation", "Series", "Content"):
        assert (seg[f"{event}Date"].value, seg[f"{event}Time"].value) == ("20260304", "143607.000890")
    assert seg.TimezoneOffsetFromUTC == "+0930"  # it holds for the study's date too (PS3.3 C.12.1.1.8)
    assert seg.ContributingEquipmentSequence[1].ContributionDateTime == "20260304050607.000890+0000"


@pytest.mark.parametrize("offset", [None, "", "Z", "+2500", "+1060", "-1300", "+01000", "UTC+1"])
def test_without_a_time_zone_in_the_source_dates_are_the_jobs_own_and_no_zone_is_named(
    tmp_path: Path, card: ModelCard, offset: str | None
) -> None:
    head = draw_head(tmp_path, shape=(4, 48, 60), spacing_mm=(3.0, 1.0, 1.0), TimezoneOffsetFromUTC=offset)
    amsterdam = replace(JOB, created_at=JOB.created_at.astimezone(timezone(timedelta(hours=1))))

    seg = read_back(write_seg(head.volume, head.labels, card, amsterdam))

    for event in ("InstanceCreation", "Series", "Content"):
        assert (seg[f"{event}Date"].value, seg[f"{event}Time"].value) == ("20260304", "060607.000890")
    assert "TimezoneOffsetFromUTC" not in seg
    assert seg.ContributingEquipmentSequence[1].ContributionDateTime == "20260304060607.000890+0100"


def test_two_writings_are_byte_identical(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, orientation=OBLIQUE)

    assert encode(write_seg(head.volume, head.labels, card, JOB)) == encode(
        write_seg(head.volume, head.labels, card, JOB)
    )


def test_another_process_at_another_time_writes_the_same_bytes(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path / "in")
    here = encode(write_seg(head.volume, head.labels, card, JOB))
    script = """
import sys
import warnings
from pathlib import Path

from gpnet_node.model.card import read_card
from gpnet_node.results.header import encode
from gpnet_node.results.measure import measure
from gpnet_node.results.report import write_report
from gpnet_node.results.seg import write_seg
from tests.pallida import JOB, draw_head

head = draw_head(Path(sys.argv[1]))
card = read_card(Path(sys.argv[2]))
Path(sys.argv[3]).write_bytes(encode(write_seg(head.volume, head.labels, card, JOB)))
"""
    out = tmp_path / "seg.dcm"
    repository = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", script, tmp_path / "in", MODEL, out]
    environment = {**os.environ, "PYTHONHASHSEED": "99", "TZ": "Asia/Tokyo", "PYTHONPATH": str(repository)}

    subprocess.run([str(part) for part in command], env=environment, check=True, timeout=120)

    assert out.read_bytes() == here


def test_other_content_has_other_uids(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    moved = head.labels.labels.copy()
    moved[1, 1, 1] = 1

    first = write_seg(head.volume, head.labels, card, JOB)
    second = write_seg(head.volume, head.relabelled(moved).labels, card, JOB)
    shorter = write_seg(head.volume, head.labels, card, JOB, SegForm(empty_frames=False))

    assert len({seg.SOPInstanceUID for seg in (first, second, shorter)}) == 3
    assert len({seg.SeriesInstanceUID for seg in (first, second, shorter)}) == 3


def test_a_label_that_the_card_does_not_name_is_an_error(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    labels = head.labels.labels.copy()
    labels[0, 0, 0] = 5

    with pytest.raises(SelfCheckError, match="holds 5"):
        write_seg(head.volume, head.relabelled(labels).labels, card, JOB)


def test_a_label_map_on_another_grid_is_an_error(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path / "a")
    tilted = draw_head(tmp_path / "b", orientation=OBLIQUE)

    with pytest.raises(SelfCheckError, match="not on the grid"):
        write_seg(head.volume, tilted.labels, card, JOB)


def test_a_card_that_does_not_number_from_one_is_the_operators_matter(
    tmp_path: Path, card: ModelCard
) -> None:
    head = draw_head(tmp_path)
    last = card.structures[3].model_copy(update={"number": 9})
    other = card.model_copy(update={"structures": (*card.structures[:3], last)})
    labels = np.where(head.labels.labels == 4, 9, head.labels.labels).astype(np.uint8)

    with pytest.raises(ConfigurationError, match="numbers its structures"):
        write_seg(head.volume, head.relabelled(labels).labels, other, JOB)


def test_a_file_that_became_another_instance_is_named(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    rewrite(head.paths[3], SOPInstanceUID="1.2.3")

    with pytest.raises(UnreadableInstanceError, match=head.volume.frames[3].sop_instance_uid):
        write_seg(head.volume, head.labels, card, JOB)


def test_frames_that_are_all_empty_are_written_rather_than_none(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    nothing = head.relabelled(np.zeros_like(head.labels.labels))

    seg = read_back(write_seg(nothing.volume, nothing.labels, card, JOB, SegForm(empty_frames=False)))

    assert seg.NumberOfFrames == 80
    assert not any(seg.PixelData)
