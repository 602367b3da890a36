"""When something can be asked for: what was received at once, results only while they may leave."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine, select

from gpnet_node.errors import StaleJobError
from gpnet_node.store.catalogue import Catalogue, Level
from gpnet_node.store.database import (
    catalogue_instances,
    catalogue_series,
    catalogue_studies,
    open_engine,
    reading,
    upgrade,
    writing,
)
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs, move
from gpnet_node.store.reindex import reindex
from gpnet_node.store.states import Job, JobState
from tests.factories import mr_series
from tests.stores import (
    START,
    after,
    arrival,
    keep,
    new_archive,
    new_database,
    new_job,
    new_jobs,
    result,
    running_job,
    written,
)


def listed(engine: Engine) -> list[str]:
    """The modality of each series that can be asked for."""
    wanted = Dataset()
    wanted.Modality = None
    return sorted(it.Modality for it in Catalogue(engine).find(Level.SERIES, wanted))


def finished(engine: Engine, jobs: Jobs, state: JobState = JobState.WRITTEN) -> Job:
    job = running_job(engine, jobs)
    return jobs.finish(job.uid, "worker", replace(written(job), state=state), now=after(1))


def test_results_can_be_asked_for_from_the_moment_they_are_recorded(tmp_path: Path) -> None:
    engine = new_database(tmp_path)

    job = finished(engine, new_jobs(engine))

    assert listed(engine) == ["MR", "SEG", "SR"]
    held = Catalogue(engine).held(study_uids=["1"])
    assert {str(it.path) for it in held if "results" in it.path.parts} == {
        f"results/{job.uid}/seg.dcm", f"results/{job.uid}/sr.dcm"}  # fmt: skip


def test_a_result_that_needs_review_can_be_asked_for_only_after_its_release(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = finished(engine, jobs, JobState.NEEDS_REVIEW)
    before = listed(engine)

    jobs.release(job.uid, now=after(2))

    assert (before, listed(engine)) == (["MR"], ["MR", "SEG", "SR"])


def test_a_result_that_was_rejected_or_cancelled_cannot_be_asked_for(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    doubtful = finished(engine, jobs, JobState.NEEDS_REVIEW)
    jobs.reject(doubtful.uid, now=after(2))
    rejected = listed(engine)

    again = jobs.reprocess("1.2", now=after(3))
    assert jobs.claim("worker", now=after(3)) is not None
    jobs.finish(again.uid, "worker", written(again), now=after(4))
    shown = listed(engine)
    jobs.cancel(again.uid, now=after(5))

    assert (rejected, shown, listed(engine)) == (["MR"], ["MR", "SEG", "SR"], ["MR"])


def test_a_superseded_result_is_taken_off_with_the_series_that_it_was_alone_in(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    finished(engine, jobs)

    new_job(engine, jobs, at=after(9))

    assert listed(engine) == ["MR"]
    with reading(engine) as connection:
        assert len(connection.execute(select(catalogue_series)).all()) == 1
        assert len(connection.execute(select(catalogue_studies)).all()) == 1


def test_a_result_stays_where_a_peer_refused_another_one_of_its_job(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = finished(engine, jobs)

    with writing(engine) as connection:
        move(connection, job, JobState.FAILED, "a peer refuses it", now=after(2))

    assert listed(engine) == ["MR", "SEG", "SR"]


def test_an_outcome_that_comes_too_late_lists_nothing(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = running_job(engine, jobs)
    jobs.cancel(job.uid, now=after(1))

    with pytest.raises(StaleJobError):
        jobs.finish(job.uid, "worker", written(job), now=after(2))

    assert listed(engine) == ["MR"]


@pytest.mark.parametrize("superseded_first", [True, False])
def test_a_result_that_a_pacs_routes_back_goes_by_its_job_nevertheless(
    tmp_path: Path, superseded_first: bool
) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = finished(engine, jobs)
    seg = result(job)

    routed_back = arrival(seg.sop_instance_uid, series=f"{seg.sop_instance_uid}.1", modality="SEG")
    if superseded_first:
        jobs.reprocess("1.2", now=after(9))
    Index(engine).record([routed_back])
    if not superseded_first:
        jobs.reprocess("1.2", now=after(9))

    assert listed(engine) == ["MR"]


def test_a_series_that_comes_in_two_studies_is_listed_in_the_first(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival("1.2.1", study_uid="1", patient_name="First^Person")])

    index.record([arrival("1.2.2", study_uid="2", patient_name="Second^Person")])

    wanted = Dataset()
    wanted.PatientName = wanted.NumberOfStudyRelatedInstances = None
    (study,) = Catalogue(engine).find(Level.STUDY, wanted)
    assert (study.StudyInstanceUID, study.PatientName) == ("1", "First^Person")
    assert study.NumberOfStudyRelatedInstances == 2


def test_an_older_version_that_is_indexed_late_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)

    index.record([arrival("1.2.3", version=2)])
    index.record([arrival("1.2.3", version=1)])

    (held,) = Catalogue(engine).held(study_uids=["1"])
    assert held.path.name == "1.2.3.2.dcm"


def test_what_an_older_version_of_the_program_indexed_is_listed_and_then_made_whole(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    arrivals = [keep(archive, path) for path in mr_series(tmp_path / "sent", slices=3, StudyID="S7")]
    engine = open_engine(tmp_path / "node.sqlite")
    upgrade(engine)
    index = Index(engine)
    index.record(arrivals)
    job = _old_result(engine, archive.root)
    _forget_the_catalogue(engine)
    study_uid = arrivals[0].header.study_uid

    upgrade(engine)
    known = Catalogue(engine).held(study_uids=[study_uid])
    reindex(archive, index, now=after(10))

    assert [it.path for it in known] == [it.path for it in arrivals]
    wanted = Dataset()
    wanted.StudyID = "S7"
    wanted.NumberOfStudyRelatedInstances = None
    (study,) = Catalogue(engine).find(Level.STUDY, wanted)
    assert study.NumberOfStudyRelatedInstances == 4
    assert Path("results", job.uid, "seg.dcm") in {
        it.path for it in Catalogue(engine).held(study_uids=[study_uid])
    }
    assert index.half_listed() == ()


def _old_result(engine: Engine, root: Path) -> Job:
    """A job whose one result lies in the archive, and was recorded without its attributes."""
    jobs = new_jobs(engine)
    with writing(engine) as connection:
        series = connection.scalar(select(catalogue_series.c.SeriesInstanceUID))
        assert series is not None
        jobs.create(connection, series, revision=1, sentence="", now=START)
    claimed = jobs.claim("worker", now=START)
    assert claimed is not None
    (path,) = mr_series(root / "results" / claimed.uid, slices=1, series="results", StudyID="S7")
    path.rename(path.with_name("seg.dcm"))
    known = replace(result(claimed), attributes=None, size_bytes=None)
    outcome = replace(written(claimed, kinds=("seg",), peers=()), results=(known,))
    return jobs.finish(claimed.uid, "worker", outcome, now=after(1))


def _forget_the_catalogue(engine: Engine) -> None:
    """Take the database back to the revision before the catalogue."""
    with writing(engine) as connection:
        for table in (catalogue_instances, catalogue_series, catalogue_studies):
            table.drop(connection)
        for statement in _BACK_TO_0001:
            connection.exec_driver_sql(statement)


_BACK_TO_0001 = (
    "DROP TABLE rejected_instances",
    "ALTER TABLE jobs DROP COLUMN withdrawn",
    "DROP TABLE listed_images",
    "DROP TABLE performed_steps",
    "DROP TABLE commitment_instances",
    "DROP TABLE commitments",
    "ALTER TABLE outbox DROP COLUMN transaction_uid",
    "ALTER TABLE outbox DROP COLUMN asked_at",
    "ALTER TABLE jobs DROP COLUMN plan",
    "ALTER TABLE jobs DROP COLUMN refusal",
    "DROP INDEX outbox_by_debt",
    "ALTER TABLE outbox RENAME COLUMN name TO kind",
    "CREATE UNIQUE INDEX outbox_by_debt ON outbox (job_uid, kind, peer)",
    "ALTER TABLE results RENAME TO named",
    "CREATE TABLE results (job_uid VARCHAR NOT NULL, kind VARCHAR NOT NULL, sop_class_uid VARCHAR NOT NULL, "
    "sop_instance_uid VARCHAR NOT NULL UNIQUE, path VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, "
    "PRIMARY KEY (job_uid, kind), FOREIGN KEY(job_uid) REFERENCES jobs (uid))",
    "INSERT INTO results SELECT job_uid, kind, sop_class_uid, sop_instance_uid, path, sha256 FROM named",
    "DROP TABLE named",
    "UPDATE alembic_version SET version_num = '0001'",
)
