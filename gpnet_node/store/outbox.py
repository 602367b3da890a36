"""The outbox: which written object is owed to which peer, and how often it was tried.

A debt is due only while its job is ``written``, or ``failed`` because another object of it was refused: a job
that needs review, is superseded or cancelled sends nothing, but for the report which says why (a refusal) and
the note that rejects an older result which no longer holds (a withdrawal): that leaves whatever became of its
job.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, Select, and_, or_, select, update

from gpnet_node.config import RetryConfig
from gpnet_node.errors import StorageError
from gpnet_node.store.database import jobs, outbox, reading, results, writing
from gpnet_node.store.jobs import get_job, move
from gpnet_node.store.states import REFUSAL, STORED, WITHDRAWAL, DebtState, JobState


@dataclass(frozen=True, kw_only=True)
class Debt:
    """One object owed to one peer; ``path`` is relative to the archive, ``status`` the last DIMSE status."""

    id: int
    job_uid: str
    name: str
    kind: str
    peer: str
    state: DebtState
    attempts: int
    owed_since: datetime
    next_attempt_at: datetime
    status: int | None
    comment: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path


class Outbox:
    """The outbox table. ``chance`` draws from [0, 1) for the jitter of the back-off."""

    def __init__(self, engine: Engine, *, retry: RetryConfig, chance: Callable[[], float]) -> None:
        self._engine = engine
        self._retry = retry
        self._chance = chance

    def due(self, *, now: datetime, limit: int = 1000) -> tuple[Debt, ...]:
        """Return what should be sent now, ordered by peer, job and kind: one association per peer will do."""
        due = and_(outbox.c.state == DebtState.OWED, outbox.c.next_attempt_at <= now, _payable())
        query = _debts().where(due).order_by(outbox.c.peer, jobs.c.created_at, outbox.c.id).limit(limit)
        with reading(self._engine) as connection:
            return tuple(_debt(row) for row in connection.execute(query).mappings())

    def is_payable(self, debt: Debt) -> bool:
        """Whether a debt may still be paid: its job may have been superseded since it was found due."""
        query = _debts().where(_still_owed(debt), _payable())
        with reading(self._engine) as connection:
            return connection.execute(query).first() is not None

    def of_job(self, job_uid: str) -> tuple[Debt, ...]:
        """Return every debt of a job, paid or not."""
        query = _debts().where(outbox.c.job_uid == job_uid).order_by(outbox.c.peer, outbox.c.id)
        with reading(self._engine) as connection:
            return tuple(_debt(row) for row in connection.execute(query).mappings())

    def paid(self, debt: Debt, *, status: int, comment: str = "", now: datetime) -> None:
        """The peer stored it (0x0000, or a warning, which is kept); the last payment delivers the job."""
        with writing(self._engine) as connection:
            _settle(connection, debt, DebtState.PAID, status, comment, now)
            _close(connection, debt.job_uid, now)

    def left_out(self, debt: Debt, *, comment: str, status: int | None = None, now: datetime) -> None:
        """The peer does not take such objects; it gets the others. A peer that takes none fails the job."""
        with writing(self._engine) as connection:
            _settle(connection, debt, DebtState.LEFT_OUT, status, comment, now)
            _close(connection, debt.job_uid, now)

    def put_off(self, debt: Debt, *, comment: str, status: int | None = None, now: datetime) -> None:
        """It may work later: wait longer each time, and give up after the configured hours."""
        if now - debt.owed_since >= timedelta(hours=self._retry.give_up_hours):
            hours = f"{self._retry.give_up_hours:g} h"
            self.failed(debt, status=status, comment=f"given up after {hours}; last: {comment}", now=now)
            return
        later = now + self._retry.delay(debt.attempts, self._chance())
        change = {
            "attempts": debt.attempts + 1, "next_attempt_at": later, "status": status, "comment": comment,
            "updated_at": now,
        }  # fmt: skip
        with writing(self._engine) as connection:
            connection.execute(update(outbox).where(_still_owed(debt)).values(change))

    def failed(self, debt: Debt, *, comment: str, status: int | None = None, now: datetime) -> None:
        """The peer will never take it: the job fails and says why; its other objects are still sent."""
        with writing(self._engine) as connection:
            _settle(connection, debt, DebtState.FAILED, status, comment, now)
            job = get_job(connection, debt.job_uid)
            if job.state is JobState.WRITTEN:
                sentence = (
                    f"{debt.name} {debt.sop_instance_uid} cannot be delivered to {debt.peer}: {comment}"
                )
                move(connection, job, JobState.FAILED, sentence, now=now)

    # -- storage commitment (PS3.4 J) ------------------------------------------------------------------------

    def unconfirmed(self, peers: Collection[str], *, now: datetime) -> tuple[Debt, ...]:
        """Return what these peers stored and were not asked about yet, or long ago without an answer."""
        long_ago = now - timedelta(seconds=self._retry.max_seconds)
        too_late = now - timedelta(hours=self._retry.give_up_hours)
        query = _debts().where(
            jobs.c.state == JobState.DELIVERED,
            outbox.c.peer.in_(peers),
            outbox.c.state == DebtState.PAID,
            outbox.c.updated_at > too_late,
            or_(outbox.c.asked_at.is_(None), outbox.c.asked_at <= long_ago),
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(outbox.c.peer, outbox.c.id)).mappings()
            return tuple(map(_debt, rows))

    def asked(self, debts: Sequence[Debt], transaction_uid: str | None, *, now: datetime) -> None:
        """Note that a peer is about to be asked; kept before it is, since its report may come at once."""
        change = {"transaction_uid": transaction_uid, "asked_at": now}
        with writing(self._engine) as connection:
            ids = [debt.id for debt in debts]
            connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(change))

    def confirmed(
        self, peer: str, instances: Collection[str], *, transaction_uid: str | None, now: datetime
    ) -> None:
        """The peer keeps these SOP instances safe; the last one of a job confirms it.

        Only what was asked last counts, ``transaction_uid`` (None: by query): an older answer may be untrue.
        """
        with writing(self._engine) as connection:
            rows = _asked(connection, peer, instances, transaction_uid)
            for row in rows:
                change = {"state": DebtState.CONFIRMED, "updated_at": now}
                connection.execute(update(outbox).where(outbox.c.id == row["id"]).values(change))
            for job_uid in {row["job_uid"] for row in rows}:
                _confirm(connection, job_uid, now)

    def denied(
        self, peer: str, instances: Mapping[str, str], *, transaction_uid: str | None, now: datetime
    ) -> None:
        """The peer does not hold these after all, for the reasons given: they are owed again.

        One that it went on losing until the configured hours were over has failed.
        """
        with writing(self._engine) as connection:
            for row in _asked(connection, peer, instances, transaction_uid):
                comment = f"stored, but not kept safe by the peer: {instances[row['sop_instance_uid']]}"
                over = now - row["owed_since"] >= timedelta(hours=self._retry.give_up_hours)
                state = DebtState.FAILED if over else DebtState.OWED
                change = {
                    "state": state, "comment": comment, "asked_at": None,
                    "next_attempt_at": now + self._retry.delay(row["attempts"], self._chance()),
                    "updated_at": now,
                }  # fmt: skip
                connection.execute(update(outbox).where(outbox.c.id == row["id"]).values(change))
                _lose(connection, row, comment, over=over, now=now)


def _asked(
    connection: Connection, peer: str, instances: Collection[str], transaction_uid: str | None
) -> Sequence[RowMapping]:
    """What the peer stored and was asked about in this transaction."""
    query = _debts().where(
        outbox.c.peer == peer,
        outbox.c.state == DebtState.PAID,
        outbox.c.transaction_uid.is_(None)
        if transaction_uid is None
        else outbox.c.transaction_uid == transaction_uid,
        results.c.sop_instance_uid.in_(instances),
    )
    return connection.execute(query).mappings().all()


def _lose(connection: Connection, row: RowMapping, comment: str, *, over: bool, now: datetime) -> None:
    """Take the job back, since a peer does not hold what it stored; it fails where that went on too long."""
    job = get_job(connection, row["job_uid"])
    if job.state is JobState.DELIVERED:
        sentence = f"{row['name']} is owed to {row['peer']} again: {comment}"
        job = move(connection, job, JobState.WRITTEN, sentence, now=now)
    if over and job.state is JobState.WRITTEN:
        sentence = f"{row['name']} cannot be delivered to {row['peer']}: {comment}"
        move(connection, job, JobState.FAILED, sentence, now=now)


def _confirm(connection: Connection, job_uid: str, now: datetime) -> None:
    job = get_job(connection, job_uid)
    states = select(outbox.c.state).where(outbox.c.job_uid == job_uid)
    left = set(connection.scalars(states)) - {DebtState.CONFIRMED, DebtState.LEFT_OUT}
    if job.state is JobState.DELIVERED and not left:
        move(connection, job, JobState.CONFIRMED, "every peer keeps what it was sent safe", now=now)


def _debts() -> Select[Any]:
    same = and_(results.c.job_uid == outbox.c.job_uid, results.c.name == outbox.c.name)
    query = select(
        outbox, results.c.kind, results.c.sop_class_uid, results.c.sop_instance_uid, results.c.path
    )
    return query.join(results, same).join(jobs, jobs.c.uid == outbox.c.job_uid)


def _payable() -> ColumnElement[bool]:
    return or_(
        jobs.c.state.in_([JobState.WRITTEN, JobState.FAILED]),
        and_(results.c.kind == REFUSAL, jobs.c.state.in_([JobState.NEEDS_REVIEW, JobState.REJECTED])),
        results.c.kind == WITHDRAWAL,
    )


def _still_owed(debt: Debt) -> ColumnElement[bool]:
    return and_(outbox.c.id == debt.id, outbox.c.state == DebtState.OWED)


def _settle(
    connection: Connection, debt: Debt, state: DebtState, status: int | None, comment: str, now: datetime
) -> None:
    change = {
        "state": state, "attempts": debt.attempts + 1, "status": status, "comment": comment, "updated_at": now
    }  # fmt: skip
    if connection.execute(update(outbox).where(_still_owed(debt)).values(change)).rowcount != 1:
        raise StorageError(f"outbox: {debt.name} of job {debt.job_uid} is no longer owed to {debt.peer}")


def _close(connection: Connection, job_uid: str, now: datetime) -> None:
    """Once nothing is owed any more, say to whom the objects went, what was left out, and each warning."""
    job = get_job(connection, job_uid)
    query = select(outbox).where(outbox.c.job_uid == job_uid).order_by(outbox.c.peer, outbox.c.id)
    rows = connection.execute(query).mappings().all()
    stored = [row for row in rows if row["state"] in STORED]
    left_out = [row for row in rows if row["state"] == DebtState.LEFT_OUT]
    if job.state is not JobState.WRITTEN or len(stored) + len(left_out) < len(rows):
        return
    peers = sorted({row["peer"] for row in stored})
    without = sorted({row["peer"] for row in left_out} - set(peers))
    parts = [f"{len(stored)} objects stored by {', '.join(peers)}"] if stored else []
    parts += [f"peer {peer} takes none of the objects" for peer in without]
    parts += [f"left out: {comment}" for comment in dict.fromkeys(row["comment"] for row in left_out)]
    parts += [
        f"{row['name']} at {row['peer']}: warning 0x{row['status']:04X} {row['comment']}".rstrip()
        for row in stored
        if row["status"]
    ]
    to = JobState.FAILED if without else JobState.DELIVERED
    move(connection, job, to, "; ".join(parts), now=now)


def _debt(row: RowMapping) -> Debt:
    names = set(Debt.__dataclass_fields__) - {"state", "path"}
    return Debt(state=DebtState(row["state"]), path=Path(row["path"]), **{n: row[n] for n in names})
