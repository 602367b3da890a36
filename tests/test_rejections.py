"""What no longer counts: rejected instances, corrected ones, and the results that were made of them."""

from pathlib import Path

import pydicom
import pytest

from gpnet_node.errors import StaleJobError, UnreadableInstanceError
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.header import header_of
from gpnet_node.store.index import Index
from gpnet_node.store.reindex import reindex
from gpnet_node.store.states import Arrival, JobState, SeriesState
from tests.factories import mr_series, rejection_note, uid_of
from tests.stores import (
    START,
    after,
    arrival,
    keep,
    new_archive,
    new_database,
    new_job,
    new_jobs,
    new_outbox,
    running_job,
    written,
)

KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


def note_of(*rejected: str, uid: str = "9.1", at: float = 60, title: str = "113001") -> Arrival:
    return arrival(
        uid, series="9", at=after(at), sop_class_uid=KEY_OBJECTS, rejects=rejected, rejection_title=title
    )


def counted(index: Index, series: str = "1.2") -> list[str]:
    return [it.sop_instance_uid for it in index.instances(series)]


@pytest.mark.parametrize("note_first", [True, False], ids=["before its images", "after them"])
def test_a_rejected_instance_does_not_count_whichever_comes_first(tmp_path: Path, note_first: bool) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    images = [arrival("1.2.1"), arrival("1.2.2")]
    for batch in [[note_of("1.2.1")], images] if note_first else [images, [note_of("1.2.1")]]:
        index.record(batch)

    assert counted(index) == ["1.2.2"]
    assert [it.sop_instance_uid for it in index.instances("1.2", rejected_too=True)] == ["1.2.1", "1.2.2"]
    assert [it.sop_instance_uid for it in Catalogue(engine).held(study_uids=["1"])] == ["1.2.2"]
    assert any("note 9.1 of SCANNER" in event.sentence for event in index.history("1.2"))


def test_a_note_takes_a_decided_series_back_and_withholds_its_result_with_the_reason(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index, jobs, outbox = Index(engine), new_jobs(engine), new_outbox(engine)
    job = running_job(engine, jobs)
    jobs.finish(job.uid, "worker", written(job), now=START)

    index.record([note_of("1.2.1")])

    why = "1 of its instances rejected by note 9.1 of SCANNER: Rejected for Quality Reasons (113001, DCM)"
    row = index.series("1.2")
    assert (row.state, index.history("1.2")[-1].sentence) == (SeriesState.RECEIVING, why)
    assert (jobs.get(job.uid).state, jobs.get(job.uid).reason) == (JobState.SUPERSEDED, f"withdrawn: {why}")
    assert outbox.due(now=after(3600)) == ()


def test_a_note_that_comes_while_the_worker_runs_drops_what_it_computes(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = running_job(engine, jobs)

    Index(engine).record([note_of("1.2.1")])

    with pytest.raises(StaleJobError):
        jobs.finish(job.uid, "worker", written(job), now=after(61))
    assert jobs.results(job.uid) == ()


def test_an_object_that_was_on_its_way_when_the_note_came_counts_as_held_and_the_next_is_withheld(
    tmp_path: Path,
) -> None:
    engine = new_database(tmp_path)
    jobs, outbox = new_jobs(engine), new_outbox(engine)
    job = running_job(engine, jobs)
    jobs.finish(job.uid, "worker", written(job), now=START)
    sending, following = outbox.due(now=START)

    Index(engine).record([note_of("1.2.1")])
    outbox.paid(sending, status=0, now=after(61))

    held = jobs.replaced_by(new_job(engine, jobs, at=after(62)))
    assert not outbox.is_payable(following)
    assert ([it.name for it in held.results], held.peers) == ([sending.name], ("pacs",))
    assert held.withdrawn is not None


def test_a_series_that_is_decided_is_left_alone_by_what_was_rejected_before_it_came(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index, jobs = Index(engine), new_jobs(engine)
    index.record([note_of("1.2.2", at=0)])
    job = new_job(engine, jobs)

    index.record([arrival("1.2.2", at=after(5))])

    assert jobs.get(job.uid).state is JobState.QUEUED
    assert counted(index) == ["1.2.1"]


def test_a_note_that_comes_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))
    index.record([arrival("1.2.1"), note_of("1.2.1")])
    before = index.history("1.2")

    index.record([note_of("1.2.1")])
    index.record([note_of("1.2.1", uid="9.2")])

    assert index.history("1.2") == before


def test_a_note_of_more_instances_than_a_statement_has_parameters_is_kept(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))

    index.record([arrival("1.2.1"), note_of("1.2.1", *(f"7.{n}" for n in range(40_000)))])

    assert counted(index) == []


@pytest.mark.parametrize(
    ("title", "meaning", "rejects"),
    [
        ("113001", "Rejected for Quality Reasons", True),
        ("113037", "Rejected for Patient Safety Reasons", True),
        ("113038", "Incorrect Modality Worklist Entry", True),
        ("113039", "Data Retention Policy Expired", False),
        ("113000", "Of Interest", False),
    ],
)
def test_the_title_says_whether_key_objects_reject(
    tmp_path: Path, title: str, meaning: str, rejects: bool
) -> None:
    images = mr_series(tmp_path, slices=3)

    header = header_of(
        pydicom.dcmread(rejection_note(tmp_path / "note.dcm", images[:2], title=title, meaning=meaning))
    )

    assert set(header.rejects) == (set(map(uid_of, images[:2])) if rejects else set())


def test_a_note_that_does_not_say_what_it_rejects_is_refused(tmp_path: Path) -> None:
    note = pydicom.dcmread(rejection_note(tmp_path / "note.dcm", mr_series(tmp_path, slices=1)))
    del note.CurrentRequestedProcedureEvidenceSequence

    with pytest.raises(UnreadableInstanceError, match="evidence"):
        header_of(note)


def test_a_lost_index_is_rebuilt_with_what_was_rejected(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    images = mr_series(tmp_path / "series", slices=4)
    for path in [*images, rejection_note(tmp_path / "note.dcm", images[:1])]:
        keep(archive, path)
    index = Index(new_database(tmp_path))

    reindex(archive, index, now=START)

    series = str(pydicom.dcmread(images[0]).SeriesInstanceUID)
    assert set(counted(index, series)) == set(map(uid_of, images[1:]))


def test_another_version_that_counts_withdraws_what_was_made_of_the_first(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index, jobs = Index(engine), new_jobs(engine)
    job = new_job(engine, jobs)

    index.record([arrival("1.2.1", version=2, at=after(5), study_uid="1.99")])

    moved = jobs.get(job.uid)
    assert moved.state is JobState.SUPERSEDED
    assert moved.reason == "withdrawn: 1 of its instances came again with other content"
    assert index.series("1.2").study_uid == "1.99"


def test_where_the_first_version_counts_another_one_disturbs_nothing(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index, jobs = Index(engine, which_version="first"), new_jobs(engine)
    job = new_job(engine, jobs)
    revision = index.series("1.2").revision

    index.record([arrival("1.2.1", version=2, at=after(5))])

    assert jobs.get(job.uid).state is JobState.QUEUED
    assert index.series("1.2").revision == revision
    assert index.history("1.2")[-1].sentence.endswith("kept as version 2")


def test_a_corrected_study_is_where_its_series_is_asked_for_and_the_old_one_is_gone(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival(f"1.2.{n}", study_uid="1") for n in range(2)])

    index.record([arrival(f"1.2.{n}", version=2, study_uid="1.99", at=after(5)) for n in range(2)])

    catalogue = Catalogue(engine)
    assert catalogue.held(study_uids=["1"]) == ()
    assert [it.study_uid for it in catalogue.held(series_uids=["1.2"])] == ["1.99", "1.99"]
