"""The index: which instances, series and associations there are.

The archive is the truth for instances; the index may lag behind it and is filled up by ``store.reindex``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, RowMapping, and_, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from gpnet_node.errors import StorageError
from gpnet_node.store.database import (
    associations,
    instances,
    reading,
    series,
    series_associations,
    series_history,
    writing,
)
from gpnet_node.store.listing import Entry, entry_of, half_listed, list_received, list_whole
from gpnet_node.store.states import (
    Arrival,
    AssociationOutcome,
    Header,
    Instance,
    Series,
    SeriesEvent,
    SeriesState,
)


class Index:
    """The index tables."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- associations ----------------------------------------------------------------------------------------

    def open_association(self, *, calling_ae: str, host: str, owner: str, now: datetime) -> int:
        """Note an accepted association and return its number. ``owner`` names the receiving process."""
        row = {"calling_ae": calling_ae, "host": host, "owner": owner, "opened_at": now}
        with writing(self._engine) as connection:
            statement = insert(associations).values(outcome=AssociationOutcome.OPEN, **row)
            number: int = connection.execute(statement.returning(associations.c.id)).scalar_one()
            return number

    def close_association(self, association_id: int, outcome: AssociationOutcome, *, now: datetime) -> None:
        """Note how an association ended; the first word counts."""
        still_open = and_(associations.c.id == association_id, associations.c.closed_at.is_(None))
        with writing(self._engine) as connection:
            connection.execute(update(associations).where(still_open).values(outcome=outcome, closed_at=now))

    def lose_open_associations(self, *, now: datetime, owners: str = "") -> int:
        """Close as lost what a dead process left open; return how many.

        ``owners``: how the names of those begin whose associations are meant. For a role that holds its lock
        of this archive and has not listened yet.
        """
        left_open = and_(associations.c.closed_at.is_(None), associations.c.owner.startswith(owners))
        change = {"outcome": AssociationOutcome.LOST, "closed_at": now}
        with writing(self._engine) as connection:
            return connection.execute(update(associations).where(left_open).values(change)).rowcount

    # -- instances -------------------------------------------------------------------------------------------

    def record(self, batch: Sequence[Arrival], *, settled: bool = False) -> int:
        """Note instances that are safe in the archive, in one transaction; return how many were new.

        A new one takes its series to ``receiving``, as a new revision if a decision had been made; one that
        is a version beside another is told in the series' history. For one that is noted already nothing
        happens except that its association counts for the series, and a series that was given up as
        ``incomplete`` is looked at again, since its sender has come back. ``settled``: a series that this
        makes is old news, and becomes ``complete`` without a job.
        """
        with writing(self._engine) as connection:
            known = _known(connection, batch)
            new: list[Arrival] = []
            for arrival in batch:
                key = (arrival.header.sop_instance_uid, arrival.version)
                if key not in known:
                    known.add(key)
                    new.append(arrival)
            by_series: dict[str, list[Arrival]] = {}
            for arrival in new:
                by_series.setdefault(arrival.header.series_uid, []).append(arrival)
            for series_uid, more in by_series.items():
                _extend(connection, series_uid, more, settled=settled)
            if new:
                connection.execute(insert(instances), [_row(arrival) for arrival in new])
                list_received(connection, [entry_of(arrival) for arrival in new])
            _link(connection, batch)
            return len(new)

    def versions(self, sop_instance_uid: str) -> tuple[Instance, ...]:
        """Return all kept versions of an instance, oldest first; empty if there is none."""
        query = select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(instances.c.version)).mappings()
            return tuple(map(_instance, rows))

    def instances(
        self, series_uid: str, which: Literal["latest", "first"] = "latest"
    ) -> tuple[Instance, ...]:
        """Return the instances of a series, of each the version that counts, by instance number and UID."""
        order = instances.c.version.desc() if which == "first" else instances.c.version
        query = select(instances).where(instances.c.series_uid == series_uid).order_by(order)
        with reading(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
        counting = {row["sop_instance_uid"]: row for row in rows}  # the last of each UID stays
        ordered = sorted(counting.values(), key=lambda r: (r["instance_number"] or 0, r["sop_instance_uid"]))
        return tuple(map(_instance, ordered))

    def paths(self) -> frozenset[Path]:
        """Return the path of every instance in the index, relative to the archive."""
        with reading(self._engine) as connection:
            return frozenset(Path(path) for path in connection.scalars(select(instances.c.path)))

    def half_listed(self) -> tuple[Entry, ...]:
        """Return what was received or written before the catalogue kept headers, to be read once more."""
        with reading(self._engine) as connection:
            return tuple(half_listed(connection))

    def list_whole(self, entries: Sequence[Entry]) -> None:
        """Note what the headers say; results are listed if they may leave."""
        with writing(self._engine) as connection:
            list_whole(connection, entries)

    # -- series ----------------------------------------------------------------------------------------------

    def series(self, series_uid: str) -> Series:
        """Return one series. Raises StorageError if the index has none of that UID."""
        with reading(self._engine) as connection:
            row = connection.execute(select(series).where(series.c.uid == series_uid)).mappings().first()
        if row is None:
            raise StorageError(f"there is no series {series_uid} in the index")
        return series_from(row)

    def newest_series(self, *, limit: int = 100) -> tuple[Series, ...]:
        """Return the series that were last received, newest first."""
        query = select(series).order_by(series.c.last_received_at.desc()).limit(limit)
        with reading(self._engine) as connection:
            return tuple(map(series_from, connection.execute(query).mappings()))

    def counts(self) -> Mapping[SeriesState, int]:
        """Return how many series are in each state that any is in."""
        query = select(series.c.state, func.count()).group_by(series.c.state)
        with reading(self._engine) as connection:
            return {SeriesState(state): count for state, count in connection.execute(query)}

    def history(self, series_uid: str) -> tuple[SeriesEvent, ...]:
        """Return what happened to a series, oldest first."""
        query = select(series_history).where(series_history.c.series_uid == series_uid)
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(series_history.c.id)).mappings().all()
        names = ("at", "revision", "sentence")
        return tuple(SeriesEvent(state=SeriesState(r["state"]), **{n: r[n] for n in names}) for r in rows)

    def decision(self, series_uid: str, revision: int) -> str:
        """Return why a revision of a series was last decided; empty if it was not.

        What has happened to the series since changes nothing: a result that is written again is the same.
        """
        decided = [
            event.sentence
            for event in self.history(series_uid)
            if event.revision == revision and event.state is not SeriesState.RECEIVING
        ]
        return decided[-1] if decided else ""


def set_state(
    connection: Connection, row: Series, state: SeriesState, *, revision: int, sentence: str, now: datetime
) -> bool:
    """Move a series from what ``row`` says to ``state``, with its history row, in the caller's transaction.

    Returns False, and changes nothing, if it was decided or extended since ``row`` was read.
    """
    same = and_(
        series.c.uid == row.uid,
        series.c.state == row.state,
        series.c.revision == row.revision,
        series.c.last_received_at == row.last_received_at,
    )
    decided_at = None if state is SeriesState.RECEIVING else now
    change = {"state": state, "revision": revision, "reason": sentence, "decided_at": decided_at}
    if connection.execute(update(series).where(same).values(change)).rowcount != 1:
        return False
    _tell(connection, row.uid, state, revision, sentence, now)
    return True


def series_from(row: RowMapping) -> Series:
    """Return a row of the series table as a value."""
    names = set(Series.__dataclass_fields__) - {"state"}
    return Series(state=SeriesState(row["state"]), **{name: row[name] for name in names})


def _known(connection: Connection, batch: Sequence[Arrival]) -> set[tuple[str, int]]:
    uids = {arrival.header.sop_instance_uid for arrival in batch}
    key = (instances.c.sop_instance_uid, instances.c.version)
    return {(uid, version) for uid, version in connection.execute(select(*key).where(key[0].in_(uids)))}


def _extend(connection: Connection, series_uid: str, arrivals: Sequence[Arrival], *, settled: bool) -> None:
    """Make the series' row, or take it back to ``receiving``."""
    now = max(arrival.received_at for arrival in arrivals)
    found = connection.execute(select(series).where(series.c.uid == series_uid)).mappings().first()
    if found is None:
        _begin(connection, arrivals[0].header, now, settled=settled)
        found = connection.execute(select(series).where(series.c.uid == series_uid)).mappings().one()
    row = series_from(found)
    if row.state is not SeriesState.RECEIVING and not settled:
        sentence = f"{len(arrivals)} more instances after it was {row.state}"
        set_state(
            connection, row, SeriesState.RECEIVING, revision=row.revision + 1, sentence=sentence, now=now
        )
        row = replace(row, state=SeriesState.RECEIVING, revision=row.revision + 1)
    later = max(now, row.last_received_at)
    connection.execute(update(series).where(series.c.uid == series_uid).values(last_received_at=later))
    for sentence in _remarks(row, arrivals):
        _tell(connection, series_uid, row.state, row.revision, sentence, now)


def _begin(connection: Connection, header: Header, now: datetime, *, settled: bool) -> None:
    state = SeriesState.COMPLETE if settled else SeriesState.RECEIVING
    sentence = "recovered from the archive, without a job" if settled else "first instance received"
    shown = ("study_uid", "modality", "description", "patient_id", "patient_name")
    row = {
        **{name: getattr(header, name) for name in shown},
        "uid": header.series_uid,
        "state": state,
        "revision": 1,
        "reason": sentence,
        "created_at": now,
        "last_received_at": now,
        "decided_at": now if settled else None,
    }
    connection.execute(insert(series).values(row))
    _tell(connection, header.series_uid, state, 1, sentence, now)


def _remarks(row: Series, arrivals: Sequence[Arrival]) -> Iterator[str]:
    for arrival in arrivals:
        uid = arrival.header.sop_instance_uid
        if arrival.version > 1:
            yield f"instance {uid} came again with other content and is kept as version {arrival.version}"
        if arrival.header.study_uid != row.study_uid:
            yield f"instance {uid} belongs to another study, {arrival.header.study_uid}"


def _link(connection: Connection, batch: Sequence[Arrival]) -> None:
    """Note which associations touched which series; look again at one that was given up."""
    touched: dict[tuple[str, int], datetime] = {}
    for arrival in batch:
        if arrival.association_id is not None:
            key = (arrival.header.series_uid, arrival.association_id)
            touched[key] = max(arrival.received_at, touched.get(key, arrival.received_at))
    for (series_uid, association_id), at in touched.items():
        row = {"series_uid": series_uid, "association_id": association_id, "last_at": at}
        statement = upsert(series_associations).values(row)
        connection.execute(statement.on_conflict_do_update(set_={"last_at": at}))
        found = connection.execute(select(series).where(series.c.uid == series_uid)).mappings().one()
        given_up = series_from(found)
        if given_up.state is SeriesState.INCOMPLETE:
            sentence = "looked at again: its sender has come back"
            set_state(
                connection,
                given_up,
                SeriesState.RECEIVING,
                revision=given_up.revision,
                sentence=sentence,
                now=at,
            )


def _tell(
    connection: Connection, uid: str, state: SeriesState, revision: int, sentence: str, now: datetime
) -> None:
    row = {"series_uid": uid, "at": now, "state": state, "revision": revision, "sentence": sentence}
    connection.execute(insert(series_history).values(row))


def _row(arrival: Arrival) -> Mapping[str, object]:
    kept = (
        "version",
        "transfer_syntax_uid",
        "sha256",
        "size_bytes",
        "received_at",
        "association_id",
        "calling_ae",
    )
    shown = (
        "sop_instance_uid", "sop_class_uid", "series_uid", "instance_number", "acquisition_number",
        "images_in_acquisition", "number_of_frames", "concatenation_uid", "in_concatenation_total",
    )  # fmt: skip
    return {
        **{name: getattr(arrival, name) for name in kept},
        **{name: getattr(arrival.header, name) for name in shown},
        "path": arrival.path.as_posix(),
    }


def _instance(row: RowMapping) -> Instance:
    names = set(Instance.__dataclass_fields__) - {"path"}
    return Instance(path=Path(row["path"]), **{name: row[name] for name in names})
