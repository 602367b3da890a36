"""Looks at the series that are being received, and decides on each whose time has come (``verdict``).

The decision is a row of the series, and its job is made in the same transaction: a restart keeps both. What
arrives while a series is looked at drops the decision.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, Engine, RowMapping, func, or_, select

from gpnet_node.config import NodeConfig
from gpnet_node.errors import GpnetError
from gpnet_node.imaging.elements import PARSE_FAILURES
from gpnet_node.imaging.frames import PLANE_CLASSES
from gpnet_node.log import get_logger
from gpnet_node.store.database import associations, instances, reading, series, series_associations, writing
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs, replaced
from gpnet_node.store.looks import TOO_OFTEN, Looks
from gpnet_node.store.rejections import is_rejected
from gpnet_node.store.revisions import series_from, set_state
from gpnet_node.store.states import AssociationOutcome, Instance, Series, SeriesState
from gpnet_node.store.steps import ended_steps, named_whole
from gpnet_node.verdict import (
    Count,
    Evidence,
    Geometry,
    Touch,
    Verdict,
    conclude,
    count_images,
    examine,
    judge,
)

# Per call, so that ten thousand series at once do not hold up the one that is ripe.
SERIES_TAKEN_UP = 500
SERIES_LOOKED_INTO = 50
_MANY_IMAGES = 1000  # of a series whose headers are worth a stop of the receiver to be rid of
_SERIES_IN_MEMORY = 500  # of those that wait, at a time
_RECEIVING = series.c.state == SeriesState.RECEIVING

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided of a series, and the job that came of it."""

    series_uid: str
    revision: int
    state: SeriesState
    sentence: str
    job_uid: str | None


@dataclass(kw_only=True)
class _Look:
    """What is remembered of a waiting series between two calls, so that its files are read once."""

    row: Series
    images: tuple[Instance, ...]  # of each the version that counts
    rows: tuple[int, int]  # all versions of all its instances, and how many of them are rejected
    count: Count
    geometry: Geometry | None = None


class Watcher:
    """Looks at the series that are being received; one process does, the receiver.

    ``tell_incomplete``, ``tell_withdrawn``: whether any peer wants to know that a series is not segmented, or
    that a result of it no longer holds. ``look_into`` reads the headers of a series' images.
    """

    def __init__(
        self,
        engine: Engine,
        archive_root: Path,
        *,
        node: NodeConfig,
        jobs: Jobs,
        tell_incomplete: bool = False,
        tell_withdrawn: bool = False,
        look_into: Callable[[Sequence[Path]], Geometry] | None = None,
    ) -> None:
        self._engine = engine
        self._index = Index(engine, which_version=node.which_version)
        self._root = archive_root
        self._node = node
        self._jobs = jobs
        self._tell_incomplete = tell_incomplete
        self._tell_withdrawn = tell_withdrawn
        self._look_into = look_into or examine
        self._looks: dict[str, _Look] = {}
        self._notes = Looks(archive_root)

    def look(self, now: datetime) -> list[Decision]:
        """Decide on every series whose time has come, and return the decisions; call it about once a second.

        Raises StorageError.
        """
        before, self._looks = self._looks, {}
        ripe: list[tuple[_Look, Verdict]] = []
        taken_up = looked_into = 0
        for it in self._waiting(now):
            look = before.get(it.row.uid)
            if look is None or look.row != it.row:
                if taken_up == SERIES_TAKEN_UP:
                    continue
                taken_up += 1
                look = self._take_up(it.row)
            self._looks[it.row.uid] = look
            if judge(self._node, it, look.count, now=now) is not None:
                continue
            if look.geometry is None:
                if looked_into == SERIES_LOOKED_INTO:
                    continue
                looked_into += 1
                look.geometry = self._looked_into(look)
            verdict = conclude(self._node, it, look.count, look.geometry, now=now)
            if isinstance(verdict, Verdict):
                ripe.append((look, verdict))
        return self._decide(ripe, now)

    def explain(self, now: datetime) -> Mapping[str, str]:
        """Say what each series that has been quiet for a moment still waits for, by its UID.

        Of the first ``SERIES_LOOKED_INTO`` the headers are read. Raises StorageError.
        """
        first = islice(self._waiting(now), SERIES_LOOKED_INTO)
        return {it.row.uid: self._explained(it, now) for it in first}

    def _explained(self, it: Evidence, now: datetime) -> str:
        look = self._take_up(it.row)
        wait = judge(self._node, it, look.count, now=now)
        if wait is None:
            found = conclude(self._node, it, look.count, self._geometry(look), now=now)
            if isinstance(found, Verdict):
                return "it is being decided"
            wait = found
        return f"{wait.sentence}; next look {self._node.local(wait.until):%H:%M:%S}"

    def _waiting(self, now: datetime) -> Iterator[Evidence]:
        """Yield series being received that were quiet for the shortest time, or that an ended step lists.

        The longest quiet comes first. Only some are held in memory: ten thousand may wait.
        """
        node = self._node
        shortest = timedelta(seconds=min(node.quiet_seconds_counted, node.quiet_seconds_uncounted))
        with reading(self._engine) as connection:
            received = select(series.c.uid).where(_RECEIVING)
            listed, named = ended_steps(connection, received), named_whole(connection, received)
            quiet = or_(series.c.last_received_at <= now - shortest, series.c.uid.in_(listed))
            uids = connection.scalars(received.where(quiet).order_by(series.c.last_received_at)).all()
        for at in range(0, len(uids), _SERIES_IN_MEMORY):
            for row, touches in self._received(uids[at : at + _SERIES_IN_MEMORY]):
                yield Evidence(
                    row=row, touches=touches, listed=listed.get(row.uid), named_whole=row.uid in named
                )

    def _received(self, uids: Sequence[str]) -> list[tuple[Series, tuple[Touch, ...]]]:
        """Return these series in their order, and what touched them; but none that has moved on."""
        columns = (associations, series_associations.c.series_uid, series_associations.c.last_at)
        touching = select(*columns).select_from(series_associations).join(associations)
        with reading(self._engine) as connection:
            found = select(series).where(_RECEIVING, series.c.uid.in_(uids))
            rows = {row["uid"]: series_from(row) for row in connection.execute(found).mappings()}
            touches: dict[str, list[Touch]] = {uid: [] for uid in rows}
            these = series_associations.c.series_uid.in_(list(rows))
            for row in connection.execute(touching.where(these)).mappings():
                touches[row["series_uid"]].append(_touch(row))
        return [(rows[uid], tuple(touches[uid])) for uid in uids if uid in rows]

    def _take_up(self, row: Series) -> _Look:
        with reading(self._engine) as connection:  # counted first: what comes in between drops the verdict
            rows = _rows(connection, row.uid)
        images = everything = _planes(self._index.instances(row.uid))
        _, rejected = rows
        if rejected:
            everything = _planes(self._index.instances(row.uid, rejected_too=True))
        count = count_images(everything)
        count = replace(count, rejected=count.there - len(images))
        return _Look(row=row, images=images, rows=rows, count=count)

    def _looked_into(self, look: _Look) -> Geometry:
        with self._notes.into(look.row.uid) as may_look:
            if may_look:
                found = self._geometry(look)
                if len(look.images) > _MANY_IMAGES:
                    gc.collect()  # their headers refer to each other, and would stay for long
                return found
        log.error("a series ended the receiver each time it was looked into", series=look.row.uid)
        return Geometry(sentence=f"no volume: {TOO_OFTEN} times the receiver ended while it read the headers")

    def _geometry(self, look: _Look) -> Geometry:
        """Look into a series; what cannot be read is a fault of this one, of which its job will fail."""
        try:
            return self._look_into([self._root / image.path for image in look.images])
        except GpnetError as exc:
            return Geometry(sentence=f"no volume: {exc}")
        except PARSE_FAILURES as exc:  # past the readers' own translation, so its place is worth a line
            log.error("the headers of a series cannot be read", series=look.row.uid, exc_info=exc)
            return Geometry(sentence=f"no volume: its headers cannot be read ({type(exc).__name__})")

    def _decide(self, ripe: Sequence[tuple[_Look, Verdict]], now: datetime) -> list[Decision]:
        """Write the verdicts and their jobs; one whose series has moved on meanwhile is dropped."""
        if not ripe:
            return []
        decisions = []
        with writing(self._engine) as connection:
            for look, verdict in ripe:
                if decision := self._decide_one(connection, look, verdict, now):
                    decisions.append(decision)
        for look, _ in ripe:
            del self._looks[look.row.uid]
        return decisions

    def _decide_one(
        self, connection: Connection, look: _Look, verdict: Verdict, now: datetime
    ) -> Decision | None:
        row = look.row
        if _rows(connection, row.uid) != look.rows or not set_state(
            connection, row, verdict.state, revision=row.revision, sentence=verdict.sentence, now=now
        ):
            return None
        return Decision(
            series_uid=row.uid,
            revision=row.revision,
            state=verdict.state,
            sentence=verdict.sentence,
            job_uid=self._make_job(connection, look, verdict, now),
        )

    def _make_job(self, connection: Connection, look: _Look, verdict: Verdict, now: datetime) -> str | None:
        """Queue what is to be done for a decided series, and return its name; it may only have to report."""
        has_images = look.geometry is not None and look.geometry.has_images
        complete = verdict.state is SeriesState.COMPLETE
        refusal = None
        if not (has_images and complete):
            if not (has_images and self._tell_incomplete) and not self._must_withdraw(connection, look.row):
                return None
            refusal = verdict.sentence if complete else f"the series is incomplete: {verdict.sentence}"
        job = self._jobs.create(
            connection,
            look.row.uid,
            revision=look.row.revision,
            sentence=verdict.sentence,
            refusal=refusal,
            now=now,
        )
        return job.uid

    def _must_withdraw(self, connection: Connection, row: Series) -> bool:
        return self._tell_withdrawn and replaced(connection, row.uid).withdrawn is not None


def _planes(found: Sequence[Instance]) -> tuple[Instance, ...]:
    return tuple(instance for instance in found if instance.sop_class_uid in PLANE_CLASSES)


def _rows(connection: Connection, series_uid: str) -> tuple[int, int]:
    query = select(func.count(), func.count().filter(is_rejected())).where(
        instances.c.series_uid == series_uid
    )
    rows, rejected = connection.execute(query).one()
    return rows, rejected


def _touch(row: RowMapping) -> Touch:
    return Touch(
        association_id=row["id"],
        calling_ae=row["calling_ae"],
        outcome=AssociationOutcome(row["outcome"]),
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
        last_at=row["last_at"],
    )
