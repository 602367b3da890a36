"""What no longer counts: instances that a rejection note names, and the results that were made of them.

A rejection note is a Key Object Selection with one of the titles that reject (PS3.16 CID 7011; IHE RAD TF-2
4.66, Imaging Object Change Management). It counts for a SOP Instance UID, in whichever order the two come.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, exists, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from gpnet_node.store.database import instances, jobs, rejected_instances
from gpnet_node.store.jobs import jobs_of_series, move
from gpnet_node.store.states import JOB_ARROWS, REJECTION_TITLES, Arrival, JobState


def is_rejected() -> ColumnElement[bool]:
    """Whether a row of ``instances`` is named by any note."""
    return exists().where(rejected_instances.c.sop_instance_uid == instances.c.sop_instance_uid)


def rejected_among(connection: Connection, uids: Collection[str]) -> Mapping[str, str]:
    """Return which of the SOP Instance UIDs are rejected, each with a phrase that names a note."""
    named = rejected_instances.c.sop_instance_uid.in_(_values(uids))
    rows = connection.execute(select(rejected_instances).where(named)).mappings()
    return {
        row["sop_instance_uid"]: _phrase(row["note_uid"], row["calling_ae"], row["title"]) for row in rows
    }


def reject(connection: Connection, note: Arrival) -> Mapping[str, str]:
    """Keep what a note rejects; return a sentence for each series that loses instances, by its UID."""
    header = note.header
    taken = (
        select(instances.c.series_uid, func.count(instances.c.sop_instance_uid.distinct()))
        .where(instances.c.sop_instance_uid.in_(_values(header.rejects)), ~is_rejected())
        .group_by(instances.c.series_uid)
    )
    counts = connection.execute(taken).all()
    own = {
        "note_uid": header.sop_instance_uid,
        "title": header.rejection_title,
        "calling_ae": note.calling_ae,
    }
    rows = [{**own, "sop_instance_uid": uid} for uid in header.rejects]
    connection.execute(upsert(rejected_instances).on_conflict_do_nothing(), rows)
    phrase = _phrase(header.sop_instance_uid, note.calling_ae, header.rejection_title)
    return {uid: f"{count} of its instances rejected by {phrase}" for uid, count in counts}


def withdraw(connection: Connection, series_uid: str, why: str, *, now: datetime) -> None:
    """Let nothing more leave of a series' results: what they were made of no longer counts.

    Each job that still has an arrow becomes ``superseded``, and all remember why, so that what peers hold of
    them can be rejected there.
    """
    for job in jobs_of_series(connection, series_uid):
        if JobState.SUPERSEDED in JOB_ARROWS[job.state]:
            move(connection, job, JobState.SUPERSEDED, f"withdrawn: {why}", now=now)
    valid = (jobs.c.series_uid == series_uid, jobs.c.withdrawn.is_(None))
    connection.execute(update(jobs).where(*valid).values(withdrawn=why))


def _phrase(note_uid: str, calling_ae: str, title: str) -> str:
    return f"note {note_uid} of {calling_ae}: {REJECTION_TITLES[title]} ({title}, DCM)"


def _values(texts: Collection[str]) -> Select[tuple[str]]:
    """A list of any length as one parameter: SQLite counts parameters."""
    return select(func.json_each(json.dumps(list(texts))).table_valued("value").c.value)
