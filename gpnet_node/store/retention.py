"""Which series are old and done with, and how they leave: rows from here, files by ``store.removal``."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    Engine,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    true,
    union,
)

from gpnet_node.store.archive import Archive
from gpnet_node.store.database import (
    associations,
    catalogue_instances,
    commitment_instances,
    commitments,
    instances,
    job_history,
    jobs,
    listed_images,
    outbox,
    performed_steps,
    reading,
    rejected_instances,
    results,
    series,
    series_associations,
    series_history,
    writing,
)
from gpnet_node.store.listing import take_off
from gpnet_node.store.removal import Removal, carry_out, is_newer, note, noted, removing
from gpnet_node.store.states import DebtState, JobState, SeriesState

# Nothing is left to do for a job in one of these, if it owes nothing: with no receiver it stays `written`.
# Of the last two nothing leaves, whatever they owe.
_DONE = (JobState.WRITTEN, JobState.DELIVERED, JobState.CONFIRMED, JobState.REJECTED)
_DROPPED = (JobState.SUPERSEDED, JobState.CANCELLED)
_ROWS_AT_ONCE = 2  # deleting an association looks through all instances


@dataclass(frozen=True, kw_only=True)
class Expired:
    """A series that is old and done with. Paths are relative to the archive.

    ``promised``: the file of each SOP instance that a peer was told, or may be told, is kept safe here.
    """

    series_uid: str
    instances: tuple[Path, ...]
    jobs: tuple[str, ...]
    promised: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class Due:
    """How many old series there are: those that go, those promised to a peer, those not done with."""

    expired: int
    promised: int
    unfinished: int


class Retention:
    """What leaves. ``confirming``: the peers that are asked whether they keep results safe."""

    def __init__(self, engine: Engine, archive: Archive, *, confirming: Collection[str]) -> None:
        self._engine = engine
        self._archive = archive
        self._confirming = confirming

    def expired(self, before: datetime) -> tuple[str, ...]:
        """Return the UIDs of series for which nothing is left to do and nothing happened since, oldest first.

        Raises StorageError.
        """
        query = select(series.c.uid).where(*self._conditions(before)).order_by(series.c.last_received_at)
        with reading(self._engine) as connection:
            return tuple(connection.scalars(query))

    def due(self, before: datetime) -> Due:
        """Count what is older. Raises StorageError."""
        with reading(self._engine) as connection:
            old = connection.scalar(select(func.count()).where(series.c.last_received_at < before)) or 0
            done = set(connection.scalars(select(series.c.uid).where(*self._conditions(before))))
            promised = done & set(connection.scalars(_naming(true())))
        return Due(expired=len(done) - len(promised), promised=len(promised), unfinished=old - len(done))

    def look(self, series_uid: str, before: datetime) -> Expired | None:
        """Return the series, or None: it is no longer expired. Raises StorageError."""
        with reading(self._engine) as connection:
            return self._look(connection, series_uid, before)

    def remove(self, expired: Expired, before: datetime) -> int | None:
        """Remove a series, its results and every row of it; return how many bytes that freed.

        None: something has happened to it since it was looked at, and it stays. Raises StorageError.
        """
        removal = Removal(
            series_uid=expired.series_uid, before=before, instances=expired.instances, jobs=expired.jobs
        )
        with removing(self._archive):
            note(self._archive, removal)
            with writing(self._engine) as connection:
                gone = self._look(connection, expired.series_uid, before) == expired and not any(
                    is_newer(self._archive, path, before) for path in expired.instances
                )
                if gone:
                    _delete(connection, expired)
            freed = self._carry_out(removal)
        return freed if gone else None

    def finish(self) -> int:
        """Finish what was broken off; return how many bytes that freed. Raises StorageError."""
        with removing(self._archive):
            return sum(map(self._carry_out, noted(self._archive)))

    def forget(self, before: datetime) -> Iterator[None]:
        """Delete what is told of nothing that is here, and is old: promises, steps (MPPS), associations.

        Yields after each transaction, so that others can have the database. Raises StorageError.
        """
        transaction, step = commitments.c.transaction_uid, performed_steps.c.uid
        named = commitment_instances.c.sop_instance_uid
        held = or_(
            exists().where(instances.c.sop_instance_uid == named),
            exists().where(results.c.sop_instance_uid == named),
        )
        kept = exists().where(commitment_instances.c.transaction_uid == transaction, held)
        told = and_(commitments.c.state != DebtState.OWED, commitments.c.asked_at < before)
        yield from self._forget(transaction, and_(told, ~kept), commitment_instances.c.transaction_uid)
        listed = exists().where(listed_images.c.step_uid == step, listed_images.c.series_uid == series.c.uid)
        yield from self._forget(
            step, and_(performed_steps.c.updated_at < before, ~listed), listed_images.c.step_uid
        )
        touching = associations.c.id.in_(select(series_associations.c.association_id))
        yield from self._forget(associations.c.id, and_(associations.c.closed_at < before, ~touching))

    def _forget(self, key: Column[Any], old: ColumnElement[bool], *children: Column[Any]) -> Iterator[None]:
        with reading(self._engine) as connection:
            keys = list(connection.scalars(select(key).where(old)))
        for first in range(0, len(keys), _ROWS_AT_ONCE):
            with writing(self._engine) as connection:
                still = select(key).where(key.in_(keys[first : first + _ROWS_AT_ONCE]), old)
                found = list(connection.scalars(still))
                for column in (*children, key):
                    connection.execute(delete(column.table).where(column.in_(found)))
            yield

    def _conditions(self, before: datetime) -> tuple[ColumnElement[bool], ...]:
        """What is asked of a series: it is old, it is decided, and nothing is left to do for it."""
        received = exists().where(
            series_associations.c.series_uid == series.c.uid, series_associations.c.last_at >= before
        )
        of_series = jobs.c.series_uid == series.c.uid
        at_work = exists().where(
            of_series, or_(jobs.c.state.not_in((*_DONE, *_DROPPED)), jobs.c.updated_at >= before)
        )
        unpaid = outbox.c.state == DebtState.OWED
        unconfirmed = and_(outbox.c.state == DebtState.PAID, outbox.c.peer.in_(self._confirming))
        owing = exists().where(
            of_series,
            outbox.c.job_uid == jobs.c.uid,
            or_(
                and_(unpaid, jobs.c.state.in_(_DONE)),
                and_(unconfirmed, jobs.c.state == JobState.DELIVERED),
            ),
        )
        note = instances.alias()
        still_rejects = exists().where(
            note.c.series_uid == series.c.uid,
            rejected_instances.c.note_uid == note.c.sop_instance_uid,
            rejected_instances.c.sop_instance_uid == instances.c.sop_instance_uid,
        )
        owed = select(commitments.c.transaction_uid).where(commitments.c.state == DebtState.OWED)
        asked = commitment_instances.c.transaction_uid.in_(owed)
        return (
            series.c.last_received_at < before,
            series.c.state != SeriesState.RECEIVING,
            ~received,
            ~at_work,
            ~owing,
            ~still_rejects,
            series.c.uid.not_in(_naming(asked)),
        )

    def _look(self, connection: Connection, series_uid: str, before: datetime) -> Expired | None:
        conditions = self._conditions(before)
        if connection.scalar(select(series.c.uid).where(series.c.uid == series_uid, *conditions)) is None:
            return None
        received = select(instances.c.sop_instance_uid, instances.c.path).where(
            instances.c.series_uid == series_uid
        )
        made = (
            select(results.c.sop_instance_uid, results.c.path)
            .join(jobs)
            .where(jobs.c.series_uid == series_uid)
        )
        files = connection.execute(received.order_by(instances.c.path)).all()
        named = select(commitment_instances.c.sop_instance_uid)
        promised = connection.execute(
            union(
                received.where(instances.c.sop_instance_uid.in_(named)),
                made.where(results.c.sop_instance_uid.in_(named)),
            )
        )
        of_series = select(jobs.c.uid).where(jobs.c.series_uid == series_uid).order_by(jobs.c.uid)
        return Expired(
            series_uid=series_uid,
            instances=tuple(Path(path) for _, path in files),
            jobs=tuple(connection.scalars(of_series)),
            promised={uid: Path(path) for uid, path in promised},
        )

    def _carry_out(self, removal: Removal) -> int:
        paths = select(instances.c.path).where(instances.c.series_uid == removal.series_uid)
        with reading(self._engine) as connection:
            spared: set[Path | str] = set(map(Path, connection.scalars(paths)))
            spared.update(connection.scalars(select(jobs.c.uid).where(jobs.c.uid.in_(removal.jobs))))
        return carry_out(self._archive, removal, spared=spared)


def _naming(which: ColumnElement[bool]) -> CompoundSelect[tuple[str]]:
    """The series of which a request for storage commitment names an instance, or a result."""
    named = select(commitment_instances.c.sop_instance_uid).where(which)
    return union(
        select(instances.c.series_uid).where(instances.c.sop_instance_uid.in_(named)),
        select(jobs.c.series_uid).join(results).where(results.c.sop_instance_uid.in_(named)),
    )


def _delete(connection: Connection, expired: Expired) -> None:
    """Delete every row of a series, its jobs and their results: what was promised of it is told by age."""
    uid, listed = expired.series_uid, catalogue_instances.c
    received = and_(listed.SeriesInstanceUID == uid, listed.job_uid.is_(None))
    take_off(connection, or_(received, listed.job_uid.in_(expired.jobs)))
    notes = select(instances.c.sop_instance_uid).where(instances.c.series_uid == uid)
    connection.execute(delete(rejected_instances).where(rejected_instances.c.note_uid.in_(notes)))
    for table in (outbox, results, job_history):
        connection.execute(delete(table).where(table.c.job_uid.in_(expired.jobs)))
    for table in (jobs, instances, series_associations, series_history):
        connection.execute(delete(table).where(table.c.series_uid == uid))
    connection.execute(delete(series).where(series.c.uid == uid))
