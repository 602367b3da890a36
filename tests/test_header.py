from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.header import header_of
from gpnet_node.store.instance import uid_of
from tests.factories import enhanced_mr, mr_series, rejection_note


def test_the_header_keeps_what_listing_and_counting_need(tmp_path: Path) -> None:
    path = mr_series(tmp_path, slices=1, ImagesInAcquisition=80, PatientName="Müller^Zoë")[0]

    header = header_of(dcmread(path, stop_before_pixels=True))

    assert (header.modality, header.patient_name) == ("MR", "Müller^Zoë")
    assert (header.instance_number, header.acquisition_number, header.images_in_acquisition) == (1, 1, 80)
    assert (header.number_of_frames, header.concatenation_uid) == (None, None)


def test_a_multi_frame_image_is_known_by_its_number_of_frames(tmp_path: Path) -> None:
    header = header_of(dcmread(enhanced_mr(tmp_path, slices=7), stop_before_pixels=True))

    assert header.number_of_frames == 7


@pytest.mark.filterwarnings("ignore:The value length")
def test_values_of_the_wrong_kind_are_left_out_and_long_ones_cut(tmp_path: Path) -> None:
    data_set = dcmread(mr_series(tmp_path, slices=1)[0])
    data_set.InstanceNumber = 2**40
    data_set.add_new(0x00201002, "LO", "many")
    data_set.AcquisitionNumber = [1, 2]
    data_set.PatientID = "x" * 1000
    data_set.Modality = None

    header = header_of(data_set)

    assert header.instance_number is None
    assert header.images_in_acquisition is None
    assert header.acquisition_number is None
    assert len(header.patient_id) == 256
    assert header.modality == ""


def test_a_sequence_that_cannot_be_read_where_a_text_should_be_is_left_out(tmp_path: Path) -> None:
    data_set, item = dcmread(mr_series(tmp_path, slices=1)[0]), Dataset()
    patient_id = Tag("PatientID")
    item._dict[patient_id] = RawDataElement(patient_id, "??", 2, b"x ", 0, False, True)
    data_set.add_new(0x00100010, "SQ", [item])

    assert header_of(data_set).patient_name == ""


def test_a_text_that_calls_itself_a_sequence_and_ends_too_early_is_left_out(tmp_path: Path) -> None:
    data_set = dcmread(mr_series(tmp_path, slices=1)[0])
    manufacturer = Tag("Manufacturer")
    data_set._dict[manufacturer] = RawDataElement(manufacturer, "SQ", 2, b"\xfe\xff", 0, False, True)

    assert "Manufacturer" not in header_of(data_set).attributes


def test_a_note_whose_evidence_ends_too_early_is_refused(tmp_path: Path) -> None:
    note = dcmread(rejection_note(tmp_path / "note.dcm", mr_series(tmp_path, slices=1)))
    evidence = Tag("CurrentRequestedProcedureEvidenceSequence")
    note._dict[evidence] = RawDataElement(evidence, "SQ", 2, b"\xfe\xff", 0, False, True)

    with pytest.raises(UnreadableInstanceError, match="the evidence of the rejection note cannot be read"):
        header_of(note)


@pytest.mark.parametrize("vr", ["US", "SQ", "LO", "UN"])
def test_a_uid_is_read_as_one_whatever_it_calls_itself(tmp_path: Path, vr: str) -> None:
    data_set = dcmread(mr_series(tmp_path, slices=1)[0])
    study = Tag("StudyInstanceUID")
    data_set._dict[study] = RawDataElement(study, vr, 4, b"1.1\0", 0, False, True)

    assert header_of(data_set).study_uid == uid_of(data_set, "StudyInstanceUID") == "1.1"
