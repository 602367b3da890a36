"""The index: which instances, series and associations there are.

The archive is the truth for instances; the index may lag behind it and is filled up by ``store.reindex``.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from gpnet_node.store.listing import (
    Entry,
    entry_of,
    half_listed,
    list_received,
    list_whole,
    take_off_rejected,
)
from gpnet_node.store.rejections import is_rejected, reject, rejected_among, withdraw
from gpnet_node.store.revisions import begin, correct, series_from, set_state, take_back, tell, touch
from gpnet_node.store.states import (
    Arrival,
    AssociationOutcome,
    Instance,
    Series,
    SeriesEvent,
    SeriesState,
)


class Index:
    """The index tables. ``which_version`` of an instance counts, where it came with different content."""

    def __init__(self, engine: Engine, *, which_version: Literal["latest", "first"] = "latest") -> None:
        self._engine = engine
        self._which_version = which_version

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
        self.close_associations([(association_id, outcome, now)])

    def close_associations(self, ended: Sequence[tuple[int, AssociationOutcome, datetime]]) -> None:
        """Note how associations ended, and when, in one transaction."""
        with writing(self._engine) as connection:
            for association_id, outcome, at in ended:
                still_open = and_(associations.c.id == association_id, associations.c.closed_at.is_(None))
                change = {"outcome": outcome, "closed_at": at}
                connection.execute(update(associations).where(still_open).values(change))

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

        A new one that counts takes its series to ``receiving``, as a new revision if a decision had been
        made; one that is a version beside another is told in the series' history. What no longer counts,
        since another version takes its place or a rejection note names it, withdraws its results. For one
        that is noted already nothing happens except that its association counts for the series, and a series
        that was given up as ``incomplete`` is looked at again, since its sender has come back. ``settled``: a
        series that this makes is old news, and becomes ``complete`` without a job.
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
            rejected = rejected_among(connection, [arrival.header.sop_instance_uid for arrival in new])
            for series_uid, more in by_series.items():
                self._extend(connection, series_uid, more, rejected, settled=settled)
            if new:
                connection.execute(insert(instances), [_row(arrival) for arrival in new])
                shown = [it for it in new if it.header.sop_instance_uid not in rejected]
                list_received(connection, [entry_of(it) for it in shown if not it.header.rejects])
            for note in new:
                if note.header.rejects:
                    _reject(connection, note, settled=settled)
            _link(connection, batch)
            return len(new)

    def versions(self, sop_instance_uid: str) -> tuple[Instance, ...]:
        """Return all kept versions of an instance, oldest first; empty if there is none."""
        query = select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(instances.c.version)).mappings()
            return tuple(map(_instance, rows))

    def instances(self, series_uid: str, *, rejected_too: bool = False) -> tuple[Instance, ...]:
        """Return what counts of a series, by instance number and UID: of each instance one version.

        ``rejected_too``: also what rejection notes name.
        """
        order = instances.c.version.desc() if self._which_version == "first" else instances.c.version
        query = select(instances).where(instances.c.series_uid == series_uid).order_by(order)
        if not rejected_too:
            query = query.where(~is_rejected())
        with reading(self._engine) as connection:
            found = map(_instance, connection.execute(query).mappings())
            counting = {it.sop_instance_uid: it for it in found}  # the last of each UID stays
        return tuple(sorted(counting.values(), key=lambda it: (it.instance_number or 0, it.sop_instance_uid)))

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

    def _extend(
        self,
        connection: Connection,
        series_uid: str,
        arrivals: Sequence[Arrival],
        rejected: Mapping[str, str],
        *,
        settled: bool,
    ) -> None:
        """Make the series' row, or take it back to ``receiving``."""
        now = max(arrival.received_at for arrival in arrivals)
        found = connection.execute(select(series).where(series.c.uid == series_uid)).mappings().first()
        if found is None:
            begin(connection, arrivals[0].header, now, settled=settled)
            found = connection.execute(select(series).where(series.c.uid == series_uid)).mappings().one()
        row = series_from(found)
        count = [it for it in arrivals if it.header.sop_instance_uid not in rejected and self._counts(it)]
        corrected = [arrival for arrival in count if arrival.version > 1]
        if count and not settled:
            row = take_back(connection, row, f"{len(count)} more instances after it was {row.state}", now)
        if corrected:
            row = correct(connection, row, corrected[-1].header)
            why = f"{len(corrected)} of its instances came again with other content"
            withdraw(connection, series_uid, why, now=now)
        touch(connection, row, now)
        for sentence in _remarks(row, arrivals, rejected):
            tell(connection, series_uid, row.state, row.revision, sentence, now)

    def _counts(self, arrival: Arrival) -> bool:
        """Whether it takes the place of what was there, or there was nothing."""
        return arrival.version == 1 or self._which_version == "latest"

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


def _known(connection: Connection, batch: Sequence[Arrival]) -> set[tuple[str, int]]:
    uids = {arrival.header.sop_instance_uid for arrival in batch}
    key = (instances.c.sop_instance_uid, instances.c.version)
    return {(uid, version) for uid, version in connection.execute(select(*key).where(key[0].in_(uids)))}


def _reject(connection: Connection, note: Arrival, *, settled: bool) -> None:
    """Take what a note names from its series, and withdraw the results that were made of it."""
    for series_uid, sentence in reject(connection, note).items():
        query = select(series).where(series.c.uid == series_uid)
        row = series_from(connection.execute(query).mappings().one())
        now = note.received_at
        if settled or row.state is SeriesState.RECEIVING:
            tell(connection, series_uid, row.state, row.revision, sentence, now)
        else:
            row = take_back(connection, row, sentence, now)
        touch(connection, row, now)
        withdraw(connection, series_uid, sentence, now=now)
    take_off_rejected(connection, note.header.sop_instance_uid)


def _remarks(row: Series, arrivals: Sequence[Arrival], rejected: Mapping[str, str]) -> Iterator[str]:
    for arrival in arrivals:
        uid = arrival.header.sop_instance_uid
        if uid in rejected:
            yield f"instance {uid} came after it was rejected by {rejected[uid]}"
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
