"""What is old and done with is removed, everything else stays."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import func, select

from gpnet_node.store.database import associations, commitments, performed_steps, reading
from gpnet_node.store.states import JobState, SeriesState
from gpnet_node.store.steps import Steps, StepStatus
from tests.factories import rejection_note
from tests.retained import BEFORE, CONFIRMING, LONG_AGO, NOW, Store


def uids(store: Store) -> list[str]:
    return [str(dcmread(path).SOPInstanceUID) for path in store.sent]


@pytest.mark.parametrize(
    "state", [JobState.DELIVERED, JobState.CONFIRMED, JobState.REJECTED, JobState.CANCELLED]
)
def test_an_old_series_whose_job_has_ended_goes_with_its_results_and_every_row(
    tmp_path: Path, state: JobState
) -> None:
    store = Store(tmp_path)
    store.job(state)
    size = sum(path.stat().st_size for path in store.files())

    assert store.retention.expired(BEFORE) == (store.series,)
    assert store.remove() == size

    assert (store.files(), store.rows(), store.listed()) == ([], {}, [])


def test_a_job_whose_results_nobody_is_sent_keeps_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(JobState.WRITTEN, peers=())

    assert store.remove() is not None


@pytest.mark.parametrize("state", [SeriesState.COMPLETE, SeriesState.INCOMPLETE])
def test_an_old_series_that_never_had_a_job_goes_too(tmp_path: Path, state: SeriesState) -> None:
    store = Store(tmp_path)
    store.settle(state)

    assert store.remove() is not None
    assert (store.files(), store.rows()) == ([], {})


@pytest.mark.parametrize(
    "state",
    [
        JobState.QUEUED,
        JobState.RUNNING,
        JobState.WRITTEN,
        JobState.NEEDS_REVIEW,
        JobState.FAILED,
        JobState.PARKED,
    ],
)
def test_a_job_that_has_not_ended_keeps_its_series(tmp_path: Path, state: JobState) -> None:
    store = Store(tmp_path)
    store.job(JobState.DELIVERED)
    assert store.job(state).state is state

    assert store.retention.expired(BEFORE) == ()
    assert store.remove() is None


def test_what_an_ended_or_superseded_job_still_owes_is_told_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(JobState.WRITTEN)  # its debts are never paid: the next job takes its place
    store.job(JobState.DELIVERED)

    assert store.remove() is not None


@pytest.mark.parametrize("what", ["it is being received", "received lately", "received again", "worked on"])
def test_what_something_has_happened_to_stays(tmp_path: Path, what: str) -> None:
    store = Store(tmp_path)
    store.job(JobState.DELIVERED, at=NOW if what == "worked on" else LONG_AGO)
    if what == "it is being received":
        store.settle(SeriesState.RECEIVING)
    elif what == "received lately":
        store.receive([store.late])
        store.settle()
    elif what == "received again":
        store.receive(store.sent[:1])
    before = store.files(), store.rows()

    assert store.retention.expired(BEFORE) == ()
    assert store.remove() is None
    assert (store.files(), store.rows()) == before


def test_what_a_peer_that_is_asked_has_not_confirmed_stays_until_it_has(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = store.job(JobState.DELIVERED, peers=("pacs", CONFIRMING))
    assert store.remove() is None

    debts = [it for it in store.outbox.of_job(job.uid) if it.peer == CONFIRMING]
    store.outbox.asked(debts, "1.1", now=LONG_AGO)
    held = [it.sop_instance_uid for it in debts]
    store.outbox.confirmed(CONFIRMING, held, transaction_uid="1.1", now=LONG_AGO)

    assert store.remove() is not None


def test_a_note_that_rejects_images_stays_as_long_as_they_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    images = store.series
    store.series = store.receive([rejection_note(tmp_path / "note.dcm", store.sent[:1])], at=LONG_AGO)
    store.settle()
    assert store.remove() is None

    note, store.series = store.series, images
    store.settle()
    assert store.remove() is not None
    store.series = note
    assert store.remove() is not None
    assert (store.files(), store.rows()) == ([], {})


def test_a_report_that_is_owed_to_a_peer_keeps_what_it_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(JobState.DELIVERED)
    store.promise(uids(store)[0], reported=False)

    assert store.remove() is None


def test_a_result_of_which_a_report_is_owed_keeps_the_series(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = store.job(JobState.DELIVERED)
    store.promise(store.jobs.results(job.uid)[0].sop_instance_uid, reported=False)

    assert store.remove() is None


def test_what_was_promised_is_told_with_its_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = store.job(JobState.DELIVERED)
    made = store.jobs.results(job.uid)[0]
    first = uids(store)[0]
    store.promise(first, made.sop_instance_uid)

    expired = store.retention.look(store.series, BEFORE)

    assert expired is not None
    (version,) = store.index.versions(first)
    assert expired.promised == {first: version.path, made.sop_instance_uid: made.path}


def test_what_is_promised_after_the_look_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(JobState.DELIVERED)
    expired = store.retention.look(store.series, BEFORE)
    assert expired is not None

    store.promise(uids(store)[0])

    assert store.retention.remove(expired, BEFORE) is None
    assert len(store.listed()) == len(store.sent) + 2


def test_a_series_that_is_sent_again_after_its_removal_is_a_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(JobState.DELIVERED)
    store.remove()

    store.receive(store.sent)

    found = store.index.series(store.series)
    assert (found.state, found.revision) == (SeriesState.RECEIVING, 1)
    assert store.jobs.newest() == ()
    assert all(path.is_file() for path in store.listed())
    assert len(store.listed()) == len(store.sent)


def test_another_series_of_the_same_study_stays_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(JobState.DELIVERED)
    other = store.another()

    store.remove()

    assert len(store.listed()) == len(store.index.instances(other)) == 2
    assert all(path.is_file() for path in store.listed())
    assert store.retention.expired(BEFORE) == ()  # it was received today


def test_what_is_told_of_nothing_that_is_here_goes_by_age(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.promise(*uids(store))
    steps = Steps(store.engine)
    steps.begin("1.9", calling_ae="MR", now=LONG_AGO)
    steps.change("1.9", StepStatus.COMPLETED, {store.series: uids(store)}, now=LONG_AGO)
    young = NOW - timedelta(days=1)
    store.promise("1.2.3", transaction_uid="2.25.8", at=young)  # of what is not here
    steps.begin("1.10", calling_ae="MR", now=young)

    forget(store)
    kept = told(store)
    store.remove()
    forget(store)

    assert kept == {"associations": 1, "commitments": 2, "performed_steps": 2}
    assert told(store) == {"associations": 0, "commitments": 1, "performed_steps": 1}


def forget(store: Store) -> None:
    for _ in store.retention.forget(BEFORE):
        pass


def told(store: Store) -> dict[str, int]:
    with reading(store.engine) as connection:
        return {
            it.name: connection.scalar(select(func.count()).select_from(it)) or 0
            for it in (associations, commitments, performed_steps)
        }


def test_a_report_that_is_owed_is_never_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.promise("1.2.3", reported=False)  # of what is not here, which its peer must be told

    forget(store)

    assert told(store)["commitments"] == 1


def test_what_will_become_of_the_old_is_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert vars(store.retention.due(BEFORE)) == {"expired": 1, "promised": 0, "unfinished": 0}

    store.promise(uids(store)[0])
    assert vars(store.retention.due(BEFORE)) == {"expired": 0, "promised": 1, "unfinished": 0}

    store.job(JobState.NEEDS_REVIEW)
    assert vars(store.retention.due(BEFORE)) == {"expired": 0, "promised": 0, "unfinished": 1}
