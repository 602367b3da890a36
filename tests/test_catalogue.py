"""What can be asked of the catalogue, and what it answers."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from sqlalchemy import Engine

from gpnet_node.errors import QueryError
from gpnet_node.store.catalogue import Catalogue, Level
from gpnet_node.store.index import Index
from gpnet_node.store.states import Arrival
from tests.factories import enhanced_mr, mr_series
from tests.stores import arrival, keep, new_archive, new_database

NAMES = ("Doe^John", "Doe^Jane", "Müller^Zoë=山田^太郎", "O'Neil^Ann", "")
DATES = ("20240101", "20240131", "20240215", "20250101", "")
MODALITIES = ("MR", "CT", "SEG")


def keys(**values: object) -> Dataset:
    """An identifier, by keyword; None asks for a value."""
    identifier = Dataset()
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    return identifier


def made(study: int, series: int, image: int) -> Arrival:
    """One instance of a population in which each study differs in name, date and modalities."""
    return arrival(
        f"1.{study}.{series}.{image}",
        series=f"1.{study}.{series}",
        study_uid=f"1.{study}",
        patient_id=f"P{study // 2}",
        patient_name=NAMES[study % len(NAMES)],
        modality=MODALITIES[(study + series) % 3],
        instance_number=image,
        attributes={
            "StudyDate": DATES[study // 5 % len(DATES)],
            "StudyTime": f"{study:02d}15",
            "AccessionNumber": f"A{study:02d}",
            "SeriesNumber": str(series + 1),
            "ImageType": "ORIGINAL\\PRIMARY" if image else "DERIVED\\SECONDARY",
        },
    )


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """24 studies of 2 series of 3 images, two studies a patient."""
    engine = new_database(tmp_path_factory.mktemp("catalogue"))
    for study in range(24):
        Index(engine).record([made(study, series, image) for series in range(2) for image in range(3)])
    return Catalogue(engine)


def uids(answers: Sequence[Dataset]) -> list[str]:
    return [str(answer.StudyInstanceUID) for answer in answers]


@given(
    name=st.sampled_from(["", "*", "d*", "?OE^*", "*o'n*", "MULLER^ZOE", "=山*"]),
    days=st.tuples(st.sampled_from(DATES), st.sampled_from(DATES)).filter(any),
    accession=st.sampled_from(["", "A0?", "*3", "A07", "a07"]),
    modality=st.sampled_from(["", "MR", "CT\\SEG", "XX"]),
)
def test_studies_match_where_a_plain_reading_of_the_keys_says(
    catalogue: Catalogue, name: str, days: tuple[str, str], accession: str, modality: str
) -> None:
    with_name = {
        "": NAMES, "*": NAMES, "d*": NAMES[:2], "?OE^*": NAMES[:2], "*o'n*": NAMES[3:4],
        "MULLER^ZOE": NAMES[2:3], "=山*": NAMES[2:3],
    }  # fmt: skip

    def expected(study: int) -> bool:
        date, number = DATES[study // 5 % len(DATES)], f"A{study:02d}"
        plain = {"": True, "A0?": study < 10, "*3": number.endswith("3"), "A07": study == 7, "a07": False}
        its = {MODALITIES[(study + series) % 3] for series in range(2)}
        return (
            NAMES[study % len(NAMES)] in with_name[name]
            and (days[0] or "0") <= date <= (days[1] or "9")
            and plain[accession]
            and (not modality or bool(its & set(modality.split("\\"))))
        )

    identifier = keys(
        PatientName=name,
        StudyDate=f"{days[0]}-{days[1]}",
        AccessionNumber=accession,
        ModalitiesInStudy=modality.split("\\"),
    )
    found = uids(list(catalogue.find(Level.STUDY, identifier)))

    assert sorted(found) == sorted(f"1.{study}" for study in range(24) if expected(study))


def test_a_patient_is_answered_once_as_its_newest_study_knows_it(catalogue: Catalogue) -> None:
    wanted = keys(
        PatientID="P3", PatientName=None, NumberOfPatientRelatedStudies=None,
        NumberOfPatientRelatedSeries=None, NumberOfPatientRelatedInstances=None,
    )  # fmt: skip

    (patient,) = catalogue.find(Level.PATIENT, wanted)

    assert (patient.NumberOfPatientRelatedStudies, patient.NumberOfPatientRelatedSeries) == (2, 4)
    assert patient.NumberOfPatientRelatedInstances == 12
    assert patient.PatientName == NAMES[7 % 5]
    assert patient.QueryRetrieveLevel == "PATIENT"


def test_a_patient_without_an_id_is_nobody_to_ask_for(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    Index(engine).record([arrival(patient_name="Doe^John")])

    assert list(Catalogue(engine).find(Level.PATIENT, keys(PatientName=None))) == []
    assert len(list(Catalogue(engine).find(Level.STUDY, keys(PatientName="Doe*")))) == 1


def test_counts_and_lists_are_of_what_lies_below(catalogue: Catalogue) -> None:
    wanted = keys(
        StudyInstanceUID="1.4", ModalitiesInStudy=None, SOPClassesInStudy=None,
        NumberOfStudyRelatedSeries=None, NumberOfStudyRelatedInstances=None,
    )  # fmt: skip

    (study,) = catalogue.find(Level.STUDY, wanted)

    assert study.ModalitiesInStudy == ["CT", "SEG"]
    assert study.SOPClassesInStudy == "1.2.840.10008.5.1.4.1.1.4"
    assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (2, 6)


def test_series_and_images_come_in_the_order_of_their_numbers_with_what_is_above_them(
    catalogue: Catalogue,
) -> None:
    series = list(
        catalogue.find(Level.SERIES, keys(StudyInstanceUID="1.4", SeriesNumber=None, Modality=None))
    )
    images = list(catalogue.find(Level.IMAGE, keys(SeriesInstanceUID="1.4.1", InstanceNumber=None)))

    assert [(it.SeriesNumber, it.Modality, it.PatientID) for it in series] == [
        (1, "CT", "P2"),
        (2, "SEG", "P2"),
    ]
    assert [it.InstanceNumber for it in images] == [0, 1, 2]
    assert {(it.StudyInstanceUID, it.SeriesInstanceUID) for it in images} == {("1.4", "1.4.1")}


def test_one_of_several_values_is_enough(catalogue: Catalogue) -> None:
    images = list(catalogue.find(Level.IMAGE, keys(StudyInstanceUID="1.4", ImageType="DERIVED")))

    assert [it.SOPInstanceUID for it in images] == ["1.4.0.0", "1.4.1.0"]


def test_keys_without_a_value_are_answered_empty_and_unknown_ones_are_named(catalogue: Catalogue) -> None:
    identifier = keys(
        StudyInstanceUID="1.4", StudyDescription=None, PatientComments=None, SeriesDescription="t2",
        NumberOfStudyRelatedSeries=2, RequestAttributesSequence=[],
    )  # fmt: skip

    (study,) = catalogue.find(Level.STUDY, identifier)

    assert study.StudyDescription == ""
    assert "PatientComments" not in study
    assert set(catalogue.unsupported(Level.STUDY, identifier)) == {
        "PatientComments", "SeriesDescription", "NumberOfStudyRelatedSeries", "RequestAttributesSequence",
    }  # fmt: skip


def test_a_list_of_uids_finds_each_of_them_however_long_it_is(catalogue: Catalogue) -> None:
    wanted = ["1.4", "1.7", *(f"9.{n}" for n in range(40_000))]

    assert sorted(uids(list(catalogue.find(Level.STUDY, keys(StudyInstanceUID=wanted))))) == ["1.4", "1.7"]


def test_pages_follow_each_other_without_gap_or_overlap(catalogue: Catalogue) -> None:
    everything = uids(list(catalogue.find(Level.STUDY, keys())))

    pages = [uids(list(catalogue.find(Level.STUDY, keys(), limit=7, offset=at))) for at in range(0, 28, 7)]

    assert [len(page) for page in pages] == [7, 7, 7, 3]
    assert [uid for page in pages for uid in page] == everything
    assert uids(list(catalogue.find(Level.STUDY, keys(), offset=20))) == everything[20:]


def test_a_date_and_its_time_are_one_moment_only_where_that_is_asked(catalogue: Catalogue) -> None:
    identifier = keys(StudyDate="20240101-20240131", StudyTime="0300-0600")

    apart = uids(list(catalogue.find(Level.STUDY, identifier)))
    combined = uids(list(catalogue.find(Level.STUDY, identifier, combined=True)))

    assert sorted(apart) == ["1.3", "1.4", "1.5"]  # each between three and six, on any day
    assert sorted(combined) == ["1.3", "1.4", "1.5"]
    identifier = keys(StudyDate="20240101-20240131", StudyTime="0300-0200")
    assert uids(list(catalogue.find(Level.STUDY, identifier))) == []
    assert sorted(uids(list(catalogue.find(Level.STUDY, identifier, combined=True)))) == ["1.3", "1.4"]


def test_a_fuzzy_name_is_found_by_the_beginnings_of_its_words(catalogue: Catalogue) -> None:
    identifier = keys(PatientName="jan doe")

    assert list(catalogue.find(Level.STUDY, identifier)) == []
    found = list(catalogue.find(Level.STUDY, identifier, fuzzy=True))
    assert {str(it.PatientName) for it in catalogue.find(Level.STUDY, keys(PatientName="doe^jane"))} == {
        "Doe^Jane"
    }
    assert len(found) == 5


def test_a_name_beyond_ascii_is_answered_in_utf_8(catalogue: Catalogue) -> None:
    foreign = next(iter(catalogue.find(Level.STUDY, keys(PatientName="=山*"))))
    plain = next(iter(catalogue.find(Level.STUDY, keys(PatientName="doe*"))))

    assert (foreign.SpecificCharacterSet, foreign.PatientName) == ("ISO_IR 192", NAMES[2])
    assert "SpecificCharacterSet" not in plain


@pytest.mark.parametrize(
    "identifier", [keys(StudyDate="2024*"), keys(StudyInstanceUID="1.2.x"), keys(StudyTime="10:15-noon")]
)
def test_a_key_that_cannot_be_understood_is_refused_before_anything_is_read(
    catalogue: Catalogue, identifier: Dataset
) -> None:
    with pytest.raises(QueryError):
        catalogue.find(Level.SERIES, identifier)


def test_what_is_held_is_chosen_by_any_of_its_uids(catalogue: Catalogue) -> None:
    assert len(catalogue.held(patient_id="P3")) == 12
    assert len(catalogue.held(study_uids=["1.4", "1.7"])) == 12
    assert [it.sop_instance_uid for it in catalogue.held(series_uids=["1.4.1"])] == [
        "1.4.1.0",
        "1.4.1.1",
        "1.4.1.2",
    ]
    assert catalogue.held(study_uids=["1.4"], sop_instance_uids=["1.5.0.0"]) == ()
    with pytest.raises(ValueError, match="which instances"):
        catalogue.held()


def test_of_an_instance_that_came_twice_the_newest_version_is_held(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival("1.2.3", patient_name="Old^Name", attributes={"StudyDescription": "head"})])
    index.record([arrival("1.2.3", version=2, patient_name="New^Name")])

    (held,) = Catalogue(engine).held(sop_instance_uids=["1.2.3"])
    (study,) = Catalogue(engine).find(Level.STUDY, keys(PatientName=None, StudyDescription=None))

    assert held.path.name == "1.2.3.2.dcm"
    assert (study.PatientName, study.StudyDescription) == (
        "New^Name",
        "head",
    )  # nothing is lost to an empty value


def test_a_real_header_is_found_by_what_it_says(tmp_path: Path) -> None:
    engine: Engine = new_database(tmp_path)
    archive = new_archive(tmp_path)
    paths = [
        *mr_series(tmp_path / "classic", slices=2),
        enhanced_mr(tmp_path / "enhanced", slices=4, series="2"),
    ]
    Index(engine).record([keep(archive, path) for path in paths])
    wanted = keys(Rows="16", NumberOfFrames=None, ImageType="DIS3D", BitsAllocated=None,
                  SOPClassUID=None, AvailableTransferSyntaxUID=None, StudyDate="20240131",
                  ManufacturerModelName="Sev*")  # fmt: skip

    images = list(Catalogue(engine).find(Level.IMAGE, wanted))

    assert [it.NumberOfFrames for it in images] == [None, None, 4]
    assert {it.BitsAllocated for it in images} == {16}
    assert {it.AvailableTransferSyntaxUID for it in images} == {"1.2.840.10008.1.2.1"}
    held = Catalogue(engine).held(study_uids=[images[0].StudyInstanceUID])
    assert all((archive.root / it.path).is_file() for it in held)
    assert [it.instance_number for it in held if it.sop_class_uid == images[0].SOPClassUID] == [1, 2]
