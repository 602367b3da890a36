"""Jobs: the only place where one moves from state to state.

A move is one compare-and-set UPDATE and one history row in one IMMEDIATE transaction: it happens whole, once,
and only if the job is still where the mover believes it to be.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    and_,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from gpnet_node.errors import StaleJobError, StorageError
from gpnet_node.store.database import job_history, jobs, outbox, reading, results, series, writing
from gpnet_node.store.debts import forget_notices, owe, owe_again
from gpnet_node.store.listing import follow_job
from gpnet_node.store.states import (
    JOB_ARROWS,
    NOTICES,
    REFUSAL,
    REJECTION,
    STORED,
    WITHDRAWAL,
    Job,
    JobEvent,
    JobState,
    Outcome,
    Replaced,
    ResultObject,
)


class Jobs:
    """The job table. ``new_uid`` makes the names of jobs; a lease runs out after ``lease_seconds`` of
    silence, and a job that ``max_attempts`` attempts came to nothing of is parked.
    """

    def __init__(
        self, engine: Engine, *, new_uid: Callable[[], str], lease_seconds: float, max_attempts: int
    ) -> None:
        self._engine = engine
        self._new_uid = new_uid
        self._lease = timedelta(seconds=lease_seconds)
        self._max_attempts = max_attempts

    # -- made ------------------------------------------------------------------------------------------------

    def create(
        self,
        connection: Connection,
        series_uid: str,
        *,
        revision: int,
        sentence: str,
        now: datetime,
        plan: str | None = None,
        refusal: str | None = None,
    ) -> Job:
        """Queue a job in the caller's transaction; it supersedes every other job of the series.

        ``plan`` and ``refusal``: see :class:`Job`.
        """
        uid = self._new_uid()
        for row in jobs_of_series(connection, series_uid):
            if JobState.SUPERSEDED in JOB_ARROWS[row.state]:
                move(connection, row, JobState.SUPERSEDED, f"superseded by job {uid}", now=now)
        job = Job(
            uid=uid,
            series_uid=series_uid,
            revision=revision,
            state=JobState.QUEUED,
            reason=sentence,
            created_at=now,
            updated_at=now,
            plan=plan,
            refusal=refusal,
        )
        connection.execute(insert(jobs).values(vars(job)))
        _tell(connection, uid, None, JobState.QUEUED, sentence, now=now)
        return job

    def reprocess(self, series_uid: str, *, now: datetime, plan: str | None = None) -> Job:
        """Queue a new job at the operator's word. Raises StorageError if the series is unknown."""
        with writing(self._engine) as connection:
            revision = connection.scalar(select(series.c.revision).where(series.c.uid == series_uid))
            if revision is None:
                raise StorageError(f"there is no series {series_uid} in the index")
            sentence = "reprocess asked by the operator"
            return self.create(
                connection, series_uid, revision=revision, sentence=sentence, now=now, plan=plan
            )

    # -- the worker's side -----------------------------------------------------------------------------------

    def claim(self, owner: str, *, now: datetime) -> Job | None:
        """Give ``owner`` the lease of the oldest job that waits or whose lease ran out, or None.

        A job whose lease ran out for the last time allowed is parked on the way.
        """
        with reading(self._engine) as connection:  # most calls find nothing: leave the write lock alone
            if _oldest_claimable(connection, now) is None:
                return None
        with writing(self._engine) as connection:
            while (job := _oldest_claimable(connection, now)) is not None:
                if job.state is JobState.RUNNING:
                    job = self._lost(connection, job, now=now)
                if job.state is JobState.QUEUED:
                    return move(
                        connection, job, JobState.RUNNING, f"attempt {job.attempts + 1} by {owner}", now=now,
                        values={"attempts": job.attempts + 1, "lease_owner": owner,
                                "lease_expires_at": now + self._lease},
                    )  # fmt: skip
        return None

    def recover(self, *, now: datetime) -> tuple[Job, ...]:
        """Take every running job from its worker and return them as they now are: queued, or parked.

        For the one process that holds the worker's lock of this archive: it knows that all other workers are
        dead, and need not wait for their leases to run out.
        """
        with writing(self._engine) as connection:
            rows = connection.execute(select(jobs).where(jobs.c.state == JobState.RUNNING)).mappings().all()
            return tuple(self._lost(connection, _job(row), now=now) for row in rows)

    def heartbeat(self, job_uid: str, owner: str, *, now: datetime) -> None:
        """Extend the lease. Raises StaleJobError if ``owner`` does not hold it any more."""
        held = and_(jobs.c.uid == job_uid, jobs.c.state == JobState.RUNNING, jobs.c.lease_owner == owner)
        with writing(self._engine) as connection:
            done = connection.execute(update(jobs).where(held).values(lease_expires_at=now + self._lease))
            if done.rowcount != 1:
                raise StaleJobError(f"job {job_uid} is no longer held by {owner}")

    def give_back(self, job_uid: str, owner: str, *, sentence: str, now: datetime) -> Job:
        """Queue a running job again without counting the attempt (a drain, say). Raises StaleJobError."""
        with writing(self._engine) as connection:
            job = _held(connection, job_uid, owner)
            values = {"attempts": job.attempts - 1, **_NO_LEASE}
            return move(connection, job, JobState.QUEUED, sentence, now=now, values=values)

    def finish(self, job_uid: str, owner: str, outcome: Outcome, *, now: datetime) -> Job:
        """Record how the run ended, what was written and what is owed to whom, in one transaction.

        Raises StaleJobError if ``owner`` does not hold the job any more: superseded, cancelled, lease lost.
        """
        with writing(self._engine) as connection:
            job = _held(connection, job_uid, owner)
            values = {
                "route": outcome.route,
                "model": outcome.model,
                "label_digest": outcome.label_digest,
                **_NO_LEASE,
            }
            forget_notices(connection, job_uid, NOTICES, paid_too=True)  # of an attempt before this one
            for result in outcome.results:
                row = {**vars(result), "job_uid": job_uid, "path": result.path.as_posix()}
                connection.execute(insert(results).values(row))
            job = move(connection, job, outcome.state, outcome.sentence, now=now, values=values)
            owe(connection, job_uid, outcome.owed, now=now)
            return job

    def try_again(self, job_uid: str, owner: str, *, reason: str, now: datetime) -> Job:
        """The attempt came to nothing: queue the job again, or park it after the last one that is allowed.

        Raises StaleJobError.
        """
        with writing(self._engine) as connection:
            return self._try_again(connection, _held(connection, job_uid, owner), reason, now=now)

    def _lost(self, connection: Connection, job: Job, *, now: datetime) -> Job:
        return self._try_again(connection, job, f"its worker {job.lease_owner} was lost", now=now)

    def _try_again(self, connection: Connection, job: Job, reason: str, *, now: datetime) -> Job:
        if job.attempts >= self._max_attempts:
            sentence = f"{reason}; parked after {job.attempts} attempts"
            return move(connection, job, JobState.PARKED, sentence, now=now, values=_NO_LEASE)
        return move(connection, job, JobState.QUEUED, reason, now=now, values=_NO_LEASE)

    # -- the operator's side ---------------------------------------------------------------------------------

    def retry(self, job_uid: str, *, now: datetime) -> Job:
        """Let a failed or parked job go on: from its archived objects if it has any, else from the start.

        Raises StaleJobError if it is in another state.
        """
        with writing(self._engine) as connection:
            job = _in_state(connection, job_uid, "retried", JobState.FAILED, JobState.PARKED)
            if not _has_results(connection, job_uid):
                values = {"attempts": 0, **_NO_LEASE}
                return move(
                    connection, job, JobState.QUEUED, "retried by the operator", now=now, values=values
                )
            owe_again(connection, job_uid, now=now)
            return move(connection, job, JobState.WRITTEN, "sending retried by the operator", now=now)

    def release(self, job_uid: str, *, now: datetime) -> Job:
        """Let the objects of a job that needed review leave.

        Raises StaleJobError, and StorageError if there are none.
        """
        with writing(self._engine) as connection:
            job = _in_state(connection, job_uid, "released", JobState.NEEDS_REVIEW)
            if not _has_results(connection, job_uid):
                raise StorageError(f"job {job_uid} wrote no objects: there is nothing to release")
            forget_notices(connection, job_uid, {REFUSAL}, paid_too=False)
            owe_again(connection, job_uid, now=now)
            return move(connection, job, JobState.WRITTEN, "released by the operator", now=now)

    def reject(self, job_uid: str, *, now: datetime) -> Job:
        """Keep the objects of a job that needed review from leaving. Raises StaleJobError."""
        with writing(self._engine) as connection:
            job = _in_state(connection, job_uid, "rejected", JobState.NEEDS_REVIEW)
            return move(connection, job, JobState.REJECTED, "rejected by the operator", now=now)

    def cancel(self, job_uid: str, *, now: datetime) -> Job:
        """Stop a job that has not reached its end; nothing more of it is sent. Raises StaleJobError."""
        stoppable = [state for state, arrows in JOB_ARROWS.items() if JobState.CANCELLED in arrows]
        with writing(self._engine) as connection:
            job = _in_state(connection, job_uid, "cancelled", *stoppable)
            sentence = "cancelled by the operator"
            return move(connection, job, JobState.CANCELLED, sentence, now=now, values=_NO_LEASE)

    # -- questions -------------------------------------------------------------------------------------------

    def get(self, job_uid: str) -> Job:
        """Return one job. Raises StorageError if there is none of that name."""
        with reading(self._engine) as connection:
            return get_job(connection, job_uid)

    def newest(self, *, series_uid: str | None = None, limit: int = 100) -> tuple[Job, ...]:
        """Return the newest jobs, newest first, of one series or of all."""
        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.uid).limit(limit)
        if series_uid is not None:
            query = query.where(jobs.c.series_uid == series_uid)
        with reading(self._engine) as connection:
            return tuple(map(_job, connection.execute(query).mappings()))

    def counts(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state that any is in."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with reading(self._engine) as connection:
            return {JobState(state): count for state, count in connection.execute(query)}

    def history(self, job_uid: str) -> tuple[JobEvent, ...]:
        """Return what happened to a job, oldest first."""
        query = select(job_history).where(job_history.c.job_uid == job_uid).order_by(job_history.c.id)
        with reading(self._engine) as connection:
            return tuple(_event(row) for row in connection.execute(query).mappings())

    def results(self, job_uid: str) -> tuple[ResultObject, ...]:
        """Return the objects that a job wrote."""
        query = select(results).where(results.c.job_uid == job_uid).order_by(results.c.name)
        with reading(self._engine) as connection:
            return tuple(map(_result, connection.execute(query).mappings()))

    def replaced_by(self, job: Job) -> Replaced:
        """Return what peers hold of the latest earlier job of the series that anything was delivered of."""
        with reading(self._engine) as connection:
            return replaced(connection, job.series_uid, by=job.uid)


def replaced(connection: Connection, series_uid: str, *, by: str = "") -> Replaced:
    """Return what peers hold of the latest job but ``by``; nothing where a note has withdrawn that."""
    paid = and_(outbox.c.job_uid == results.c.job_uid, outbox.c.name == results.c.name)
    query = (
        select(results, outbox.c.peer, jobs.c.withdrawn)
        .join(outbox, paid)
        .join(jobs, jobs.c.uid == results.c.job_uid)
        .where(jobs.c.series_uid == series_uid, jobs.c.uid != by, ~_is_withdrawn_by_note(by))
        .where(outbox.c.state.in_(STORED), results.c.kind.not_in([*NOTICES, REJECTION]))
        .order_by(jobs.c.created_at.desc(), results.c.name)
    )
    rows = connection.execute(query).mappings().all()
    latest = [row for row in rows if row["job_uid"] == rows[0]["job_uid"]]
    return Replaced(
        results=tuple({row["name"]: _result(row) for row in latest}.values()),
        peers=tuple(dict.fromkeys(row["peer"] for row in latest)),
        withdrawn=latest[0]["withdrawn"] if latest else None,
    )


def _is_withdrawn_by_note(by: str) -> ColumnElement[bool]:
    """Whether a later job than that of ``jobs``, and not ``by``, has written that its result is withdrawn."""
    later, notes = jobs.alias(), results.alias()
    return exists().where(
        notes.c.job_uid == later.c.uid,
        notes.c.kind == WITHDRAWAL,
        later.c.series_uid == jobs.c.series_uid,
        later.c.created_at > jobs.c.created_at,
        later.c.uid != by,
    )


def _result(row: RowMapping) -> ResultObject:
    names = set(ResultObject.__dataclass_fields__) - {"path"}
    return ResultObject(path=Path(row["path"]), **{name: row[name] for name in names})


def _has_results(connection: Connection, job_uid: str) -> bool:
    """Whether a job wrote more than notices."""
    own = and_(results.c.job_uid == job_uid, results.c.kind.not_in(NOTICES))
    return bool(connection.scalar(select(func.count()).where(own)))


_NO_LEASE: Mapping[str, None] = {"lease_owner": None, "lease_expires_at": None}


def move(
    connection: Connection,
    job: Job,
    to: JobState,
    sentence: str,
    *,
    now: datetime,
    values: Mapping[str, Any] = {},
) -> Job:
    """Move ``job`` from the state in which it was read to ``to``, with its history row.

    Its results become or cease to be something that can be asked for.

    Raises StaleJobError if it is no longer in that state, ValueError if there is no such arrow.
    """
    if to not in JOB_ARROWS[job.state]:
        raise ValueError(f"no arrow from {job.state} to {to}")
    same = and_(jobs.c.uid == job.uid, jobs.c.state == job.state)
    change = {**values, "state": to, "reason": sentence, "updated_at": now}
    if connection.execute(update(jobs).where(same).values(change)).rowcount != 1:
        raise StaleJobError(f"job {job.uid} is no longer {job.state}")
    _tell(connection, job.uid, job.state, to, sentence, now=now)
    follow_job(connection, job.uid, job.state, to)
    return Job(**{**vars(job), **change})


def _tell(
    connection: Connection,
    uid: str,
    before: JobState | None,
    after: JobState,
    sentence: str,
    *,
    now: datetime,
) -> None:
    row = {"job_uid": uid, "at": now, "from_state": before, "to_state": after, "sentence": sentence}
    connection.execute(insert(job_history).values(row))


def _oldest_claimable(connection: Connection, now: datetime) -> Job | None:
    lost = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_expires_at < now)
    query = select(jobs).where(or_(jobs.c.state == JobState.QUEUED, lost))
    row = connection.execute(query.order_by(jobs.c.created_at, jobs.c.uid).limit(1)).mappings().first()
    return None if row is None else _job(row)


def jobs_of_series(connection: Connection, series_uid: str) -> Sequence[Job]:
    """Return every job of a series in the caller's transaction."""
    rows = connection.execute(select(jobs).where(jobs.c.series_uid == series_uid)).mappings()
    return [_job(row) for row in rows]


def get_job(connection: Connection, job_uid: str) -> Job:
    """Return one job in the caller's transaction. Raises StorageError if there is none of that name."""
    row = connection.execute(select(jobs).where(jobs.c.uid == job_uid)).mappings().first()
    if row is None:
        raise StorageError(f"there is no job {job_uid}")
    return _job(row)


def _held(connection: Connection, job_uid: str, owner: str) -> Job:
    job = get_job(connection, job_uid)
    if job.state is not JobState.RUNNING or job.lease_owner != owner:
        raise StaleJobError(f"job {job_uid} is {job.state} and no longer held by {owner}")
    return job


def _in_state(connection: Connection, job_uid: str, verb: str, *states: JobState) -> Job:
    job = get_job(connection, job_uid)
    if job.state not in states:
        wanted = " or ".join(states)
        raise StaleJobError(f"job {job_uid} is {job.state}; only one that is {wanted} can be {verb}")
    return job


def _job(row: RowMapping) -> Job:
    return Job(**{**row, "state": JobState(row["state"])})


def _event(row: RowMapping) -> JobEvent:
    before = None if row["from_state"] is None else JobState(row["from_state"])
    return JobEvent(
        at=row["at"], from_state=before, to_state=JobState(row["to_state"]), sentence=row["sentence"]
    )
