"""Fills the catalogue, always in the transaction in which the thing itself is recorded.

What was received is listed as it is indexed. Results are listed when their job comes to a state in which they
may leave, and taken off when it leaves that: a result that waits for review, was rejected or is superseded
cannot be asked for, nor can what a note rejects, nor that note. Of a patient, study or series the value
received last counts, unless it is empty; a series is in its first study until it is corrected.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Table,
    and_,
    case,
    delete,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from gpnet_node.store.attributes import Level, columns_of
from gpnet_node.store.database import (
    catalogue_instances,
    catalogue_series,
    catalogue_studies,
    jobs,
    rejected_instances,
    results,
)
from gpnet_node.store.states import WITHDRAWAL, Arrival, JobState

# A job with results is ``failed`` only where a peer refused one of them: the others still leave.
MAY_LEAVE = frozenset({JobState.WRITTEN, JobState.DELIVERED, JobState.CONFIRMED, JobState.FAILED})

_STUDY = columns_of(Level.PATIENT, Level.STUDY)
_SERIES = columns_of(Level.SERIES)
_OF_INSTANCE = (*columns_of(Level.IMAGE), "SeriesInstanceUID")
_OWN = ("path", "version", "size_bytes", "job_uid", "whole")  # what a file is, beside what its header says


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One instance for the catalogue. ``attributes``: by keyword, all four UIDs among them.

    ``path`` is relative to the archive. Not ``whole``: the header is still to be read.
    """

    attributes: Mapping[str, str]
    path: str
    version: int
    size_bytes: int
    job_uid: str | None = None
    whole: bool = True


def entry_of(arrival: Arrival) -> Entry:
    """Return what the catalogue has of an instance that was received."""
    header = arrival.header
    known = {
        "SOPInstanceUID": header.sop_instance_uid,
        "SOPClassUID": header.sop_class_uid,
        "SeriesInstanceUID": header.series_uid,
        "StudyInstanceUID": header.study_uid,
        "Modality": header.modality,
        "SeriesDescription": header.description,
        "PatientID": header.patient_id,
        "PatientName": header.patient_name,
        "InstanceNumber": "" if header.instance_number is None else str(header.instance_number),
        "AvailableTransferSyntaxUID": arrival.transfer_syntax_uid,
    }
    return Entry(
        attributes={**header.attributes, **known},
        path=arrival.path.as_posix(),
        version=arrival.version,
        size_bytes=arrival.size_bytes,
    )


def list_received(connection: Connection, entries: Sequence[Entry]) -> None:
    """List instances that were received; one that is a result of this node's is left to its job."""
    uids = [entry.attributes["SOPInstanceUID"] for entry in entries]
    query = select(results.c.sop_instance_uid).where(results.c.sop_instance_uid.in_(uids))
    ours = set(connection.scalars(query))
    _list(connection, [entry for entry in entries if entry.attributes["SOPInstanceUID"] not in ours])


def follow_job(connection: Connection, job_uid: str, before: JobState, after: JobState) -> None:
    """List the results of a job that moves to where they may leave, or take them off where it leaves that."""
    if after in MAY_LEAVE and before not in MAY_LEAVE:
        list_results(connection, job_uid)
    elif before in MAY_LEAVE and after not in MAY_LEAVE:
        take_off(connection, catalogue_instances.c.job_uid == job_uid)


def list_results(connection: Connection, job_uid: str) -> None:
    """List the results of a job, as far as their attributes are known; no note of a withdrawal."""
    shown = and_(results.c.job_uid == job_uid, results.c.kind != WITHDRAWAL)
    known = and_(shown, results.c.attributes.is_not(None))
    entries = [
        Entry(
            attributes=row["attributes"],
            path=row["path"],
            version=1,
            size_bytes=row["size_bytes"] or 0,
            job_uid=job_uid,
        )
        for row in connection.execute(select(results).where(known)).mappings()
    ]
    _list(connection, entries)


def half_listed(connection: Connection) -> Iterator[Entry]:
    """Yield what is known without its header: instances that were received, and results."""
    columns = catalogue_instances.c
    names = ("SOPInstanceUID", "SeriesInstanceUID", "AvailableTransferSyntaxUID")
    for row in connection.execute(select(catalogue_instances).where(~columns.whole)).mappings():
        known = {name: row[name] for name in names}
        yield Entry(attributes=known, whole=False, **{name: row[name] for name in _OWN if name != "whole"})
    for row in connection.execute(select(results).where(results.c.attributes.is_(None))).mappings():
        yield Entry(
            attributes={}, path=row["path"], version=1, size_bytes=0, job_uid=row["job_uid"], whole=False
        )


def list_whole(connection: Connection, entries: Sequence[Entry]) -> None:
    """List entries of ``half_listed`` again, with what their headers say."""
    _list(connection, [entry for entry in entries if entry.job_uid is None])
    for entry in entries:
        if entry.job_uid is not None:
            change = {"attributes": dict(entry.attributes), "size_bytes": entry.size_bytes}
            connection.execute(update(results).where(results.c.path == entry.path).values(change))
    for job_uid in {entry.job_uid for entry in entries if entry.job_uid is not None}:
        state = connection.scalar(select(jobs.c.state).where(jobs.c.uid == job_uid))
        if state in MAY_LEAVE:
            list_results(connection, job_uid)


def take_off_rejected(connection: Connection, note_uid: str) -> None:
    """Remove what a note rejects of what was received (IHE RAD TF-2 4.66.4.1.3)."""
    named = select(rejected_instances.c.sop_instance_uid).where(rejected_instances.c.note_uid == note_uid)
    columns = catalogue_instances.c
    take_off(connection, and_(columns.SOPInstanceUID.in_(named), columns.job_uid.is_(None)))


def take_off(connection: Connection, which: ColumnElement[bool]) -> None:
    """Take instances off the catalogue, and the series and studies that then hold nothing."""
    instances, series = catalogue_instances.c, catalogue_series.c
    uids = list(connection.scalars(select(instances.SeriesInstanceUID).where(which).distinct()))
    query = select(series.StudyInstanceUID).where(series.SeriesInstanceUID.in_(uids)).distinct()
    study_uids = list(connection.scalars(query))
    connection.execute(delete(catalogue_instances).where(which))
    held = exists().where(instances.SeriesInstanceUID == series.SeriesInstanceUID)
    connection.execute(delete(catalogue_series).where(series.SeriesInstanceUID.in_(uids), ~held))
    _drop_empty_studies(connection, study_uids)


def _drop_empty_studies(connection: Connection, study_uids: Collection[str]) -> None:
    studies = catalogue_studies.c
    held = exists().where(catalogue_series.c.StudyInstanceUID == studies.StudyInstanceUID)
    connection.execute(delete(catalogue_studies).where(studies.StudyInstanceUID.in_(study_uids), ~held))


def _list(connection: Connection, entries: Sequence[Entry]) -> None:
    if not entries:
        return
    uids = {entry.attributes["SeriesInstanceUID"] for entry in entries}
    columns = catalogue_series.c
    query = select(columns.SeriesInstanceUID, columns.StudyInstanceUID).where(
        columns.SeriesInstanceUID.in_(uids)
    )
    study_of: dict[str, str] = {row[0]: row[1] for row in connection.execute(query)}
    before = set(study_of.values())
    studies: dict[str, dict[str, str]] = {}
    series: dict[str, dict[str, str]] = {}
    for entry in entries:
        it = entry.attributes
        uid = it["SeriesInstanceUID"]
        if entry.version > 1:  # corrected: the series belongs where it now says
            study_of[uid] = it["StudyInstanceUID"]
        study_uid = study_of.setdefault(uid, it["StudyInstanceUID"])  # the first study has the series
        if study_uid == it["StudyInstanceUID"]:
            _merge(studies.setdefault(study_uid, dict.fromkeys(_STUDY, "")), it)
        row = series.setdefault(uid, {"StudyInstanceUID": study_uid, **dict.fromkeys(_SERIES, "")})
        _merge(row, {**it, "StudyInstanceUID": study_uid})
    if studies:
        connection.execute(_LIST_STUDIES, list(studies.values()))
    connection.execute(_LIST_SERIES, list(series.values()))
    connection.execute(_LIST_INSTANCES, [_instance_row(entry) for entry in entries])
    _drop_empty_studies(connection, before - set(study_of.values()))


def _instance_row(entry: Entry) -> Mapping[str, object]:
    return {
        **{name: entry.attributes.get(name, "") for name in _OF_INSTANCE},
        **{name: getattr(entry, name) for name in _OWN},
    }


def _merge(row: dict[str, str], attributes: Mapping[str, str]) -> None:
    for name in row:
        if value := attributes.get(name):
            row[name] = value


def _merging(table: Table, key: str) -> Executable:
    """Return the statement that adds rows; where ``key`` is there already, what is not empty replaces it."""
    statement = upsert(table)
    change = {
        column.name: case((new != "", new), else_=column)
        for column, new in zip(table.c, statement.excluded, strict=True)
        if column.name != key
    }
    return statement.on_conflict_do_update(index_elements=[key], set_=change)


def _replacing() -> Executable:
    """Return the statement that lists instances: the newest version counts, and a whole header."""
    statement = upsert(catalogue_instances)
    now, new = catalogue_instances.c, statement.excluded
    newer = or_(new.version > now.version, and_(new.version == now.version, ~now.whole))
    change = {name: new[name] for name in (*_OF_INSTANCE, *_OWN) if name != "SOPInstanceUID"}
    return statement.on_conflict_do_update(index_elements=["SOPInstanceUID"], set_=change, where=newer)


# Made once: to make them takes as long as to execute them.
_LIST_STUDIES = _merging(catalogue_studies, "StudyInstanceUID")
_LIST_SERIES = _merging(catalogue_series, "SeriesInstanceUID")
_LIST_INSTANCES = _replacing()
