from pathlib import Path

import pytest
from sqlalchemy import Engine

from gpnet_node.config import RetryConfig
from gpnet_node.errors import StorageError
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.outbox import Debt, Outbox
from gpnet_node.store.states import DebtState, Job, JobState, Outcome
from tests.stores import START, after, new_database, new_jobs, result, running_job, written

RETRY = RetryConfig(first_seconds=10, factor=3, max_seconds=100, jitter=0.5, give_up_hours=1)


class Box:
    """An outbox whose one job owes two objects to each of some peers."""

    def __init__(self, folder: Path, *, peers: tuple[str, ...] = ("pacs",), chance: float = 0.0) -> None:
        self.engine: Engine = new_database(folder)
        self.jobs: Jobs = new_jobs(self.engine)
        self.job: Job = running_job(self.engine, self.jobs)
        self.outbox = Outbox(self.engine, retry=RETRY, chance=lambda: chance)
        self.jobs.finish(self.job.uid, "worker", written(self.job, peers=peers), now=START)

    def debts(self, seconds: float = 0) -> tuple[Debt, ...]:
        return self.outbox.due(now=after(seconds))

    def state(self) -> JobState:
        return self.jobs.get(self.job.uid).state


def test_every_object_is_owed_to_every_peer_with_its_archived_file(tmp_path: Path) -> None:
    box = Box(tmp_path, peers=("pacs", "station"))

    debts = box.debts()

    assert [(d.peer, d.name) for d in debts] == [
        ("pacs", "seg"), ("pacs", "sr"), ("station", "seg"), ("station", "sr")
    ]  # fmt: skip
    assert debts[0].path == Path("results", box.job.uid, "seg.dcm")
    assert debts[0].sop_instance_uid == result(box.job, "seg").sop_instance_uid


def test_a_job_is_delivered_when_the_last_debt_is_paid_and_not_before(tmp_path: Path) -> None:
    box = Box(tmp_path)
    seg, sr = box.debts()

    box.outbox.paid(seg, status=0x0000, now=after(1))
    assert box.state() is JobState.WRITTEN
    box.outbox.paid(sr, status=0x0000, now=after(2))

    assert box.state() is JobState.DELIVERED
    assert box.jobs.get(box.job.uid).reason == "2 objects stored by pacs"
    assert box.debts(1000) == ()


def test_a_warning_of_the_peer_is_kept_and_told(tmp_path: Path) -> None:
    box = Box(tmp_path)
    seg, sr = box.debts()
    box.outbox.paid(seg, status=0xB000, comment="coerced", now=after(1))
    box.outbox.paid(sr, status=0x0000, now=after(2))

    assert box.state() is JobState.DELIVERED
    assert box.jobs.get(box.job.uid).reason.endswith("seg at pacs: warning 0xB000 coerced")
    assert box.outbox.of_job(box.job.uid)[0].status == 0xB000


def test_what_is_put_off_waits_longer_each_time_up_to_the_longest_wait(tmp_path: Path) -> None:
    box = Box(tmp_path)
    waits = []
    now = 0.0
    for _ in range(4):
        debt = next(d for d in box.debts(now) if d.name == "seg")
        box.outbox.put_off(debt, comment="no connection", now=after(now))
        due = next(d for d in box.outbox.of_job(box.job.uid) if d.name == "seg").next_attempt_at
        waits.append((due - after(now)).total_seconds())
        now += waits[-1]

    assert waits == [10, 30, 90, 100]


def test_chance_lengthens_the_wait_so_that_nodes_do_not_knock_together(tmp_path: Path) -> None:
    box = Box(tmp_path, chance=0.5)
    box.outbox.put_off(box.debts()[0], comment="no connection", now=START)

    assert box.outbox.of_job(box.job.uid)[0].next_attempt_at == after(10 * 1.25)


def test_what_is_put_off_is_not_due_before_its_time_and_is_after_a_restart(tmp_path: Path) -> None:
    box = Box(tmp_path)
    for debt in box.debts():
        box.outbox.put_off(debt, comment="no connection", status=0xA700, now=START)
    box.engine.dispose()
    restarted = Outbox(new_database(tmp_path), retry=RETRY, chance=lambda: 0.0)

    assert restarted.due(now=after(9.9)) == ()
    assert [(d.attempts, d.status) for d in restarted.due(now=after(10))] == [(1, 0xA700), (1, 0xA700)]


def test_after_the_hours_granted_it_is_given_up_and_the_job_fails_naming_the_last_answer(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    debt = box.debts()[0]

    box.outbox.put_off(debt, comment="connection refused", now=after(3600))

    assert box.state() is JobState.FAILED
    reason = box.jobs.get(box.job.uid).reason
    assert reason == (
        f"seg {debt.sop_instance_uid} cannot be delivered to pacs: "
        "given up after 1 h; last: connection refused"
    )


def test_a_refused_object_fails_the_job_by_name_and_the_others_are_still_sent(tmp_path: Path) -> None:
    box = Box(tmp_path)
    seg, sr = box.debts()

    box.outbox.failed(seg, status=0x0122, comment="0x0122 SOP class not supported", now=after(1))

    assert box.state() is JobState.FAILED
    assert "0x0122" in box.jobs.get(box.job.uid).reason
    assert [d.name for d in box.debts(2)] == ["sr"]
    box.outbox.paid(sr, status=0x0000, now=after(3))
    assert box.state() is JobState.FAILED


def test_retry_of_a_failed_delivery_sends_the_archived_objects_that_are_unpaid(tmp_path: Path) -> None:
    box = Box(tmp_path)
    seg, sr = box.debts()
    box.outbox.paid(sr, status=0x0000, now=after(1))
    box.outbox.failed(seg, comment="refused", now=after(1))

    box.jobs.retry(box.job.uid, now=after(10_000))

    assert box.state() is JobState.WRITTEN
    (again,) = box.debts(10_000)
    assert (again.kind, again.attempts, again.owed_since) == ("seg", 0, after(10_000))
    box.outbox.paid(again, status=0x0000, now=after(10_001))
    assert box.state() is JobState.DELIVERED


def test_nothing_leaves_of_a_job_that_needs_review_until_it_is_released(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    jobs = new_jobs(engine)
    job = running_job(engine, jobs)
    doubtful = Outcome(
        state=JobState.NEEDS_REVIEW, sentence="?", results=(result(job),), owed=(("seg", "pacs"),)
    )
    jobs.finish(job.uid, "worker", doubtful, now=START)
    outbox = Outbox(engine, retry=RETRY, chance=lambda: 0.0)
    assert outbox.due(now=after(1000)) == ()

    jobs.release(job.uid, now=after(2000))

    assert [d.name for d in outbox.due(now=after(2000))] == ["seg"]


@pytest.mark.parametrize("end", ["cancelled", "superseded"])
def test_nothing_more_leaves_of_a_job_that_is_cancelled_or_superseded(tmp_path: Path, end: str) -> None:
    box = Box(tmp_path)
    if end == "cancelled":
        box.jobs.cancel(box.job.uid, now=after(1))
    else:
        box.jobs.reprocess(box.job.series_uid, now=after(1))

    assert box.debts(2) == ()


def test_an_answer_that_comes_after_the_job_was_cancelled_is_recorded_and_moves_nothing(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    seg, sr = box.debts()
    box.jobs.cancel(box.job.uid, now=after(1))

    box.outbox.paid(seg, status=0x0000, now=after(2))
    box.outbox.failed(sr, comment="refused", now=after(2))

    assert box.state() is JobState.CANCELLED
    assert [d.state for d in box.outbox.of_job(box.job.uid)] == [DebtState.PAID, DebtState.FAILED]


def test_a_debt_cannot_be_paid_twice(tmp_path: Path) -> None:
    box = Box(tmp_path)
    debt = box.debts()[0]
    box.outbox.paid(debt, status=0x0000, now=after(1))

    with pytest.raises(StorageError, match="no longer owed"):
        box.outbox.paid(debt, status=0x0000, now=after(2))


def test_a_job_that_owes_nothing_stays_written(tmp_path: Path) -> None:
    assert Box(tmp_path, peers=()).state() is JobState.WRITTEN


def test_a_peer_away_for_very_long_cannot_overflow_the_back_off(tmp_path: Path) -> None:
    box = Box(tmp_path)
    forever = RetryConfig(factor=10, give_up_hours=1e6)
    outbox = Outbox(box.engine, retry=forever, chance=lambda: 0.0)
    debt = Debt(**{**vars(box.debts()[0]), "attempts": 100_000})

    outbox.put_off(debt, comment="no connection", now=START)

    assert outbox.of_job(box.job.uid)[0].next_attempt_at == after(forever.max_seconds)


# -- storage commitment --------------------------------------------------------------------------------------


def asked(box: Box, transaction_uid: str | None, *, at: float) -> list[str]:
    """Ask about what was paid and is still to be asked about; the SOP instances."""
    debts = box.outbox.unconfirmed(["pacs"], now=after(at))
    box.outbox.asked(debts, transaction_uid, now=after(at))
    return [debt.sop_instance_uid for debt in debts]


def delivered(folder: Path) -> Box:
    box = Box(folder)
    for debt in box.debts():
        box.outbox.paid(debt, status=0x0000, now=after(1))
    return box


def states(box: Box) -> list[DebtState]:
    return [debt.state for debt in box.outbox.of_job(box.job.uid)]


def test_a_job_of_which_the_peer_lost_one_object_is_confirmed_once_it_has_both(tmp_path: Path) -> None:
    box = delivered(tmp_path)
    seg, sr = asked(box, "1.1", at=2)

    box.outbox.confirmed("pacs", [seg], transaction_uid="1.1", now=after(3))
    box.outbox.denied("pacs", {sr: "0x0112"}, transaction_uid="1.1", now=after(3))
    assert (box.state(), states(box)) == (JobState.WRITTEN, [DebtState.CONFIRMED, DebtState.OWED])
    (again,) = box.debts(1000)
    box.outbox.paid(again, status=0x0000, now=after(1000))
    assert box.state() is JobState.DELIVERED
    assert asked(box, "1.2", at=1001) == [sr]
    box.outbox.confirmed("pacs", [sr], transaction_uid="1.2", now=after(1002))

    assert box.state() is JobState.CONFIRMED


@pytest.mark.parametrize(("held", "now"), [("1.1", "1.2"), ("1.2", None), (None, "1.1")])
def test_an_answer_to_anything_but_the_last_question_changes_nothing(
    tmp_path: Path, held: str | None, now: str | None
) -> None:
    box = delivered(tmp_path)
    seg, sr = asked(box, held, at=2)

    box.outbox.confirmed("pacs", [seg], transaction_uid=now, now=after(3))
    box.outbox.denied("pacs", {sr: "0x0112"}, transaction_uid=now, now=after(3))

    assert (box.state(), states(box)) == (JobState.DELIVERED, [DebtState.PAID] * 2)


def test_a_peer_that_stores_and_loses_until_the_hours_are_over_fails_the_job(tmp_path: Path) -> None:
    box = delivered(tmp_path)
    _, sr = asked(box, "1.1", at=2)

    box.outbox.denied("pacs", {sr: "0x0110"}, transaction_uid="1.1", now=after(3600))

    assert (box.state(), states(box)) == (JobState.FAILED, [DebtState.PAID, DebtState.FAILED])
    assert "0x0110" in box.jobs.get(box.job.uid).reason


def test_a_question_without_an_answer_is_asked_again_later_and_not_for_ever(tmp_path: Path) -> None:
    box = delivered(tmp_path)

    assert len(asked(box, "1.1", at=2)) == 2
    assert asked(box, "1.2", at=101) == []
    assert len(asked(box, "1.2", at=103)) == 2
    assert asked(box, "1.3", at=3700) == []


def test_what_is_confirmed_is_not_sent_again_by_a_retry_and_is_replaced_by_the_next_result(
    tmp_path: Path,
) -> None:
    box = delivered(tmp_path)
    seg, sr = asked(box, "1.1", at=2)
    box.outbox.confirmed("pacs", [seg], transaction_uid="1.1", now=after(3))
    box.outbox.denied("pacs", {sr: "0x0110"}, transaction_uid="1.1", now=after(3600))

    box.jobs.retry(box.job.uid, now=after(3601))

    assert states(box) == [DebtState.CONFIRMED, DebtState.OWED]
    following = box.jobs.reprocess(box.job.series_uid, now=after(3602))
    assert [it.sop_instance_uid for it in box.jobs.replaced_by(following).results] == [seg]
