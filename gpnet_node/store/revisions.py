"""A series' row: begun, decided, and taken back as a new revision, each with a row of its history.

All of it happens in the caller's transaction.
"""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, RowMapping, and_, insert, update

from gpnet_node.store.database import series, series_history
from gpnet_node.store.states import Header, Series, SeriesState

_SHOWN = ("study_uid", "modality", "description", "patient_id", "patient_name")  # of any of its instances


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
    tell(connection, row.uid, state, revision, sentence, now)
    return True


def series_from(row: RowMapping) -> Series:
    """Return a row of the series table as a value."""
    names = set(Series.__dataclass_fields__) - {"state"}
    return Series(state=SeriesState(row["state"]), **{name: row[name] for name in names})


def take_back(connection: Connection, row: Series, sentence: str, now: datetime) -> Series:
    """Let a series that was decided be received again, as a new revision."""
    if row.state is SeriesState.RECEIVING:
        return row
    state, revision = SeriesState.RECEIVING, row.revision + 1
    set_state(connection, row, state, revision=revision, sentence=sentence, now=now)
    return replace(row, state=state, revision=revision)


def correct(connection: Connection, row: Series, header: Header) -> Series:
    """The series is of whom its corrected instances say."""
    shown = {name: getattr(header, name) for name in _SHOWN}
    connection.execute(update(series).where(series.c.uid == row.uid).values(shown))
    return replace(row, study_uid=header.study_uid)


def touch(connection: Connection, row: Series, now: datetime) -> None:
    """What changes a series is waited after as what arrives is."""
    later = max(now, row.last_received_at)
    connection.execute(update(series).where(series.c.uid == row.uid).values(last_received_at=later))


def begin(connection: Connection, header: Header, now: datetime, *, settled: bool) -> None:
    """Make the row of a series that an instance belongs to; ``settled``: it is old news, and complete."""
    state = SeriesState.COMPLETE if settled else SeriesState.RECEIVING
    sentence = "recovered from the archive, without a job" if settled else "first instance received"
    row = {
        **{name: getattr(header, name) for name in _SHOWN},
        "uid": header.series_uid,
        "state": state,
        "revision": 1,
        "reason": sentence,
        "created_at": now,
        "last_received_at": now,
        "decided_at": now if settled else None,
    }
    connection.execute(insert(series).values(row))
    tell(connection, header.series_uid, state, 1, sentence, now)


def tell(
    connection: Connection, uid: str, state: SeriesState, revision: int, sentence: str, now: datetime
) -> None:
    """Note in the history of a series what happened, and the state and revision after it."""
    row = {"series_uid": uid, "at": now, "state": state, "revision": revision, "sentence": sentence}
    connection.execute(insert(series_history).values(row))
