from datetime import datetime
from pathlib import Path

import pytest

from gpnet_node.errors import StaleJobError, StorageError
from gpnet_node.store.database import writing
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs, move
from gpnet_node.store.states import JOB_ARROWS, Job, JobState, Outcome
from tests.stores import START, after, arrival, new_database, new_job, new_jobs, result, running_job, written


def reviewed(job: Job) -> Outcome:
    return Outcome(
        state=JobState.NEEDS_REVIEW,
        sentence="GPi left is smaller than it should be",
        results=(result(job),),
        owed=(("seg", "pacs"),),
    )


def in_state(jobs: Jobs, job: Job, state: JobState) -> Job:
    """Bring a running job to a state by the way that the program takes."""
    match state:
        case JobState.RUNNING:
            return job
        case JobState.QUEUED:
            return jobs.give_back(job.uid, "worker", sentence="draining", now=START)
        case JobState.WRITTEN:
            return jobs.finish(job.uid, "worker", written(job), now=START)
        case JobState.NEEDS_REVIEW:
            return jobs.finish(job.uid, "worker", reviewed(job), now=START)
        case JobState.CANCELLED:
            return jobs.cancel(job.uid, now=START)
        case _:
            return jobs.finish(job.uid, "worker", Outcome(state=state, sentence="because"), now=START)


def test_every_state_says_in_one_sentence_what_it_is() -> None:
    source = Path(__file__).parents[1] / "gpnet_node" / "store" / "states.py"

    for state in JobState:
        line = f'    {state.name} = "{state.value}"\n    """'
        assert line in source.read_text()


def test_every_state_has_its_arrows_and_two_have_none() -> None:
    assert set(JOB_ARROWS) == set(JobState)
    assert {s for s, arrows in JOB_ARROWS.items() if not arrows} == {JobState.SUPERSEDED, JobState.CANCELLED}


@pytest.mark.parametrize(
    ("before", "to"), [(a, b) for a in JobState for b in JobState if b not in JOB_ARROWS[a]]
)
def test_a_move_without_an_arrow_is_a_programming_error(before: JobState, to: JobState) -> None:
    job = Job(
        uid="j", series_uid="1", revision=1, state=before, reason="", created_at=START, updated_at=START
    )

    with pytest.raises(ValueError, match="no arrow"):
        move(None, job, to, "", now=START)  # type: ignore[arg-type]  # refused before it is used


def test_a_move_from_a_state_that_the_job_has_left_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    queued = new_job(engine, jobs)
    jobs.cancel(queued.uid, now=START)

    with pytest.raises(StaleJobError), writing(engine) as connection:
        move(connection, queued, JobState.RUNNING, "too late", now=START)

    assert jobs.get(queued.uid).state is JobState.CANCELLED
    assert [event.to_state for event in jobs.history(queued.uid)] == [JobState.QUEUED, JobState.CANCELLED]


def test_each_move_leaves_a_row_in_the_history_with_time_and_sentence(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = new_job(engine, jobs)
    jobs.claim("worker", now=after(1))
    jobs.finish(job.uid, "worker", Outcome(state=JobState.REJECTED, sentence="TE 3 ms"), now=after(2))

    told = [(event.at, event.from_state, event.to_state, event.sentence) for event in jobs.history(job.uid)]

    assert told == [
        (START, None, JobState.QUEUED, "the series is complete"),
        (after(1), JobState.QUEUED, JobState.RUNNING, "attempt 1 by worker"),
        (after(2), JobState.RUNNING, JobState.REJECTED, "TE 3 ms"),
    ]


def test_the_oldest_waiting_job_is_claimed_first_and_each_only_once(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    younger = new_job(engine, jobs, series="1.1", at=after(5))
    older = new_job(engine, jobs, series="1.2", at=after(1))

    claimed = [jobs.claim("worker", now=after(9)) for _ in range(3)]

    assert [job and job.uid for job in claimed] == [older.uid, younger.uid, None]


def test_a_worker_that_keeps_its_lease_keeps_its_job(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine, lease_seconds=60)
    job = running_job(engine, jobs)
    jobs.heartbeat(job.uid, "worker", now=after(50))

    assert jobs.claim("another", now=after(100)) is None


def test_a_job_whose_lease_ran_out_goes_to_the_next_worker_and_the_first_can_write_no_more(
    tmp_path: Path,
) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine, lease_seconds=60)
    job = running_job(engine, jobs)

    taken = jobs.claim("another", now=after(61))

    assert taken is not None
    assert (taken.uid, taken.attempts, taken.lease_owner) == (job.uid, 2, "another")
    assert taken.created_at == job.created_at
    with pytest.raises(StaleJobError):
        jobs.heartbeat(job.uid, "worker", now=after(62))
    with pytest.raises(StaleJobError):
        jobs.finish(job.uid, "worker", written(job), now=after(62))
    assert jobs.results(job.uid) == ()


def test_a_job_that_loses_its_worker_too_often_is_parked_and_the_next_one_is_claimed(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine, lease_seconds=60, max_attempts=2)
    poison = running_job(engine, jobs)
    jobs.claim("worker", now=after(61))
    other = new_job(engine, jobs, series="1.9", at=after(70))

    claimed = jobs.claim("worker", now=after(122))

    assert claimed is not None
    assert claimed.uid == other.uid
    assert jobs.get(poison.uid).state is JobState.PARKED
    assert jobs.get(poison.uid).reason == "its worker worker was lost; parked after 2 attempts"


def test_a_worker_that_starts_alone_takes_back_what_the_dead_one_left_without_waiting(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine, lease_seconds=600)
    job = running_job(engine, jobs, owner="dead")

    recovered = jobs.recover(now=after(1))

    assert [j.uid for j in recovered] == [job.uid]
    claimed = jobs.claim("worker", now=after(1))
    assert claimed is not None
    assert (claimed.uid, claimed.attempts) == (job.uid, 2)


def test_an_attempt_that_came_to_nothing_counts_and_the_last_one_parks_the_job(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine, max_attempts=2)
    job = running_job(engine, jobs)

    waiting = jobs.try_again(job.uid, "worker", reason="the disk is full", now=after(1))
    jobs.claim("worker", now=after(2))
    parked = jobs.try_again(job.uid, "worker", reason="the disk is full", now=after(3))

    assert (waiting.state, waiting.attempts, waiting.lease_owner) == (JobState.QUEUED, 1, None)
    assert (parked.state, parked.reason) == (JobState.PARKED, "the disk is full; parked after 2 attempts")
    with pytest.raises(StaleJobError):
        jobs.try_again(job.uid, "worker", reason="once more", now=after(4))


def test_a_job_given_back_waits_again_and_the_attempt_does_not_count(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = running_job(engine, jobs)

    jobs.give_back(job.uid, "worker", sentence="draining", now=after(1))

    waiting = jobs.get(job.uid)
    assert (waiting.state, waiting.attempts, waiting.lease_owner) == (JobState.QUEUED, 0, None)


def test_what_was_written_is_recorded_with_the_state_or_not_at_all(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = running_job(engine, jobs)
    broken = Outcome(
        state=JobState.WRITTEN, sentence="twice the same object", results=(result(job), result(job))
    )

    with pytest.raises(StorageError):
        jobs.finish(job.uid, "worker", broken, now=after(1))

    assert jobs.get(job.uid).state is JobState.RUNNING
    assert jobs.results(job.uid) == ()
    done = jobs.finish(job.uid, "worker", written(job), now=after(2))
    assert (done.state, done.route, done.label_digest) == (JobState.WRITTEN, "gpnet", "1" * 64)
    assert [r.kind for r in jobs.results(job.uid)] == ["seg", "sr"]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.DELIVERED, JobState.PARKED])
def test_a_run_cannot_end_in_a_state_that_is_not_an_end_of_a_run(state: JobState) -> None:
    with pytest.raises(ValueError, match="cannot end"):
        Outcome(state=state, sentence="")


def test_an_object_that_was_not_written_cannot_be_owed() -> None:
    with pytest.raises(ValueError, match="not written"):
        Outcome(state=JobState.WRITTEN, sentence="", owed=(("seg", "pacs"),))


@pytest.mark.parametrize(
    ("state", "superseded"),
    [
        (JobState.QUEUED, True),
        (JobState.RUNNING, True),
        (JobState.WRITTEN, True),
        (JobState.REJECTED, True),
        (JobState.NEEDS_REVIEW, True),
        (JobState.FAILED, True),
        (JobState.CANCELLED, False),
    ],
)
def test_a_newer_job_supersedes_the_older_ones_of_its_series(
    tmp_path: Path, state: JobState, superseded: bool
) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    old = in_state(jobs, running_job(engine, jobs), state)

    new = jobs.reprocess(old.series_uid, now=after(1))

    assert new.state is JobState.QUEUED
    assert (jobs.get(old.uid).state is JobState.SUPERSEDED) == superseded


def test_a_superseded_worker_cannot_record_what_it_computed(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    old = running_job(engine, jobs)
    jobs.reprocess(old.series_uid, now=after(1))

    with pytest.raises(StaleJobError, match="superseded"):
        jobs.finish(old.uid, "worker", written(old), now=after(2))


def test_reprocessing_a_series_that_nobody_sent_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no series 1\.9"):
        new_jobs(new_database(tmp_path)).reprocess("1.9", now=START)


def test_retry_starts_a_failed_job_again_with_fresh_attempts(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = in_state(jobs, running_job(engine, jobs), JobState.FAILED)

    again = jobs.retry(job.uid, now=after(1))

    assert (again.state, again.attempts) == (JobState.QUEUED, 0)


def test_release_lets_a_doubtful_result_leave_and_reject_keeps_it(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    good = in_state(jobs, running_job(engine, jobs, series="1.1"), JobState.NEEDS_REVIEW)
    bad = in_state(jobs, running_job(engine, jobs, series="1.2"), JobState.NEEDS_REVIEW)

    assert jobs.release(good.uid, now=after(1)).state is JobState.WRITTEN
    assert jobs.reject(bad.uid, now=after(1)).state is JobState.REJECTED


def test_a_job_that_wrote_nothing_cannot_be_released(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = running_job(engine, jobs)
    jobs.finish(job.uid, "worker", Outcome(state=JobState.NEEDS_REVIEW, sentence="?"), now=START)

    with pytest.raises(StorageError, match="nothing to release"):
        jobs.release(job.uid, now=after(1))


@pytest.mark.parametrize("verb", ["retry", "release", "reject"])
def test_an_operators_verb_on_a_job_in_another_state_names_that_state(tmp_path: Path, verb: str) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = new_job(engine, jobs)

    with pytest.raises(StaleJobError, match=f"{job.uid} is queued; only one that is"):
        getattr(jobs, verb)(job.uid, now=START)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.WRITTEN, JobState.FAILED])
def test_cancel_stops_a_job_wherever_it_is_before_its_end(tmp_path: Path, state: JobState) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = in_state(jobs, running_job(engine, jobs), state)

    assert jobs.cancel(job.uid, now=after(1)).state is JobState.CANCELLED
    assert jobs.claim("worker", now=after(1000)) is None


def test_a_job_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no job x"):
        new_jobs(new_database(tmp_path)).get("x")


def test_counts_and_the_newest_jobs_are_told_for_the_status(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    moments: list[datetime] = [after(1), after(3), after(2)]
    for number, moment in enumerate(moments):
        new_job(engine, jobs, series=f"1.{number}", at=moment)
    jobs.claim("worker", now=after(9))

    assert jobs.counts() == {JobState.QUEUED: 2, JobState.RUNNING: 1}
    assert [job.series_uid for job in jobs.newest(limit=2)] == ["1.1", "1.2"]
    assert [job.uid for job in jobs.newest(series_uid="1.0")] == ["job-1"]


def test_a_job_survives_a_restart_with_its_lease(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    job = running_job(engine, new_jobs(engine))
    engine.dispose()

    assert new_jobs(new_database(tmp_path)).get(job.uid) == job


def test_a_job_of_a_newer_revision_carries_its_number(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    first = new_job(engine, jobs)
    with writing(engine) as connection:
        second = jobs.create(connection, first.series_uid, revision=2, sentence="late slices", now=after(1))
    Index(engine).record([arrival("1.2.9", at=after(2))])

    assert jobs.get(second.uid).revision == 2
    assert jobs.get(first.uid).reason == f"superseded by job {second.uid}"
