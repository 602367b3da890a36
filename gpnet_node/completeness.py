"""Decides that a series is complete, or will not become so, and says why.

A series is complete when it is quiet, the associations that touched it are over, and its geometry has no
gap. Quiet is short where the headers tell the number of images and it is reached, longer where they do not: a
cut-off end leaves no gap. They tell it in two ways:

- classic images: all state the same Images in Acquisition (0020,1002) and one Acquisition Number
  (PS3.3 C.7.6.1);
- multi-frame images: a single one holds all its frames, and a concatenation states the number of its parts
  (PS3.3 C.7.6.16).

A gap waits longer, and so does an aborted association: its sender may come again. An abort is made good when
the headers' count is reached, or by an association that was opened after it, touched the series and was
released. An association that never closes holds a series up for a limited time only. What is no volume for
another reason than a gap is complete: waiting does not mend it, and the job will refuse it by name.

The decision is a row of the series; its job is made in the same transaction.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, RowMapping, func, select

from gpnet_node.config import NodeConfig
from gpnet_node.errors import InputError, MissingSlicesError, StorageError
from gpnet_node.imaging.frames import PLANE_CLASSES
from gpnet_node.imaging.series import read_headers, sort, split
from gpnet_node.store.database import associations, instances, reading, series, series_associations, writing
from gpnet_node.store.index import Index, series_from, set_state
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.states import AssociationOutcome, Instance, Series, SeriesState

# Per call, so that ten thousand series at once do not hold up the one that is ripe.
SERIES_TAKEN_UP = 500
SERIES_LOOKED_INTO = 50


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided of a series, and the job that came of it."""

    series_uid: str
    revision: int
    state: SeriesState
    sentence: str
    job_uid: str | None


@dataclass(frozen=True, kw_only=True)
class Touch:
    """One association that touched a series."""

    association_id: int
    outcome: AssociationOutcome
    opened_at: datetime
    closed_at: datetime | None
    last_at: datetime  # when it last brought an instance of the series


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many images of a series are there, of how many that the headers tell (None: they do not)."""

    there: int
    told: int | None

    @property
    def reached(self) -> bool:
        """Whether the headers tell the number, and it is the number that is there."""
        return self.told == self.there


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What the positions of a series' images say."""

    sentence: str
    has_images: bool = True
    has_gap: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """That a series should now be decided."""

    state: SeriesState
    sentence: str


def judge(
    node: NodeConfig, row: Series, touches: Sequence[Touch], count: Count, *, now: datetime
) -> str | None:
    """Say what a series still waits for, or None if its geometry should be looked at."""
    quiet = now - last_activity(row, touches)
    held = any(touch.outcome is AssociationOutcome.OPEN for touch in touches)
    if held and quiet < timedelta(seconds=node.open_association_limit_seconds):
        return "an association that touched it is open"
    wanted = node.quiet_seconds_counted if count.reached else node.quiet_seconds_uncounted
    if quiet < timedelta(seconds=wanted):
        return f"it must be quiet for {wanted:g} s"
    return None


def conclude(
    node: NodeConfig,
    row: Series,
    touches: Sequence[Touch],
    count: Count,
    geometry: Geometry,
    *,
    now: datetime,
) -> Verdict | None:
    """Decide on a quiet series whose geometry is known, or None: it may still mend itself."""
    if not geometry.has_images:
        return Verdict(state=SeriesState.COMPLETE, sentence=geometry.sentence)
    aborts = [] if count.reached else aborts_not_made_good(touches)
    since = max([last_activity(row, touches), *(touch.closed_at for touch in aborts if touch.closed_at)])
    if geometry.has_gap or aborts:
        if now - since < timedelta(seconds=node.gap_wait_seconds):
            return None
        sentences = [geometry.sentence] if geometry.has_gap else []
        if aborts:
            numbers = ", ".join(str(touch.association_id) for touch in aborts)
            sentences.append(f"association {numbers} was aborted and its sender has not come again")
        return Verdict(state=SeriesState.INCOMPLETE, sentence="; ".join(sentences))
    sentences = [geometry.sentence, _counted(count)]
    if any(touch.outcome is AssociationOutcome.OPEN for touch in touches):
        limit = node.open_association_limit_seconds
        sentences.append(f"an association was still open after {limit:g} s of quiet")
    return Verdict(state=SeriesState.COMPLETE, sentence="; ".join(sentences))


def last_activity(row: Series, touches: Iterable[Touch]) -> datetime:
    """Return when an instance of the series last arrived, known before or not."""
    return max([row.last_received_at, *(touch.last_at for touch in touches)])


def aborts_not_made_good(touches: Sequence[Touch]) -> list[Touch]:
    """Return the aborted associations after which no other one was opened and released."""
    released = [touch.opened_at for touch in touches if touch.outcome is AssociationOutcome.RELEASED]
    return [
        touch
        for touch in touches
        if touch.outcome is AssociationOutcome.ABORTED
        and not any(touch.closed_at is not None and opened_at >= touch.closed_at for opened_at in released)
    ]


def _counted(count: Count) -> str:
    if count.told is None:
        return f"{count.there} images, the headers do not tell how many to expect"
    return f"{count.there} images of the {count.told} that the headers tell"


@dataclass(kw_only=True)
class _Look:
    """What is remembered of a waiting series between two calls, so that its files are read once."""

    row: Series
    images: tuple[Instance, ...]  # of each the version that counts
    rows: int  # all versions of all its instances
    count: Count
    geometry: Geometry | None = None


class Watcher:
    """Looks at the series that are being received; one process does, the receiver.

    ``look_into`` reads the headers of a series' images.
    """

    def __init__(
        self,
        engine: Engine,
        archive_root: Path,
        *,
        node: NodeConfig,
        jobs: Jobs,
        look_into: Callable[[Sequence[Path]], Geometry] | None = None,
    ) -> None:
        self._engine = engine
        self._index = Index(engine)
        self._root = archive_root
        self._node = node
        self._jobs = jobs
        self._look_into = look_into or examine
        self._looks: dict[str, _Look] = {}

    def look(self, now: datetime) -> list[Decision]:
        """Decide on every series whose time has come, and return the decisions; call it about once a second.

        Raises StorageError.
        """
        waiting = self._waiting(now)
        self._looks = {uid: look for uid, look in self._looks.items() if uid in waiting}
        ripe: list[tuple[_Look, Verdict]] = []
        taken_up = looked_into = 0
        for row, touches in waiting.values():
            look = self._looks.get(row.uid)
            if look is None or look.row != row:
                if taken_up == SERIES_TAKEN_UP:
                    continue
                taken_up += 1
                look = self._looks[row.uid] = self._take_up(row)
            if judge(self._node, row, touches, look.count, now=now) is not None:
                continue
            if look.geometry is None:
                if looked_into == SERIES_LOOKED_INTO:
                    continue
                looked_into += 1
                look.geometry = self._look_into([self._root / image.path for image in look.images])
            if verdict := conclude(self._node, row, touches, look.count, look.geometry, now=now):
                ripe.append((look, verdict))
        return self._decide(ripe, now)

    def explain(self, now: datetime) -> Mapping[str, str]:
        """Say what each series that has been quiet for a moment still waits for, by its UID.

        No image is read, so of a gap it only says that there may be one. Raises StorageError.
        """
        return {
            uid: judge(self._node, row, touches, self._take_up(row).count, now=now)
            or "if it has a gap or its association was aborted, the rest may still come"
            for uid, (row, touches) in self._waiting(now).items()
        }

    def _waiting(self, now: datetime) -> Mapping[str, tuple[Series, list[Touch]]]:
        """Series being received that were quiet for the shortest time, with their associations."""
        node = self._node
        shortest = timedelta(seconds=min(node.quiet_seconds_counted, node.quiet_seconds_uncounted))
        receiving = series.c.state == SeriesState.RECEIVING
        quiet = select(series).where(receiving, series.c.last_received_at <= now - shortest)
        columns = (associations, series_associations.c.series_uid, series_associations.c.last_at)
        touching = select(*columns).select_from(series_associations).join(associations).join(series)
        with reading(self._engine) as connection:
            found = connection.execute(quiet.order_by(series.c.last_received_at)).mappings()
            waiting: dict[str, tuple[Series, list[Touch]]] = {
                row["uid"]: (series_from(row), []) for row in found
            }
            for row in connection.execute(touching.where(receiving)).mappings():
                if row["series_uid"] in waiting:
                    waiting[row["series_uid"]][1].append(_touch(row))
        return waiting

    def _take_up(self, row: Series) -> _Look:
        with reading(self._engine) as connection:  # counted first: what comes in between drops the verdict
            rows = _rows(connection, row.uid)
        found = self._index.instances(row.uid, self._node.which_version)
        images = tuple(instance for instance in found if instance.sop_class_uid in PLANE_CLASSES)
        return _Look(row=row, images=images, rows=rows, count=count_images(images))

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
        job = None
        if verdict.state is SeriesState.COMPLETE and look.geometry and look.geometry.has_images:
            job = self._jobs.create(
                connection, row.uid, revision=row.revision, sentence=verdict.sentence, now=now
            )
        return Decision(
            series_uid=row.uid,
            revision=row.revision,
            state=verdict.state,
            sentence=verdict.sentence,
            job_uid=job.uid if job else None,
        )


def examine(paths: Sequence[Path]) -> Geometry:
    """Read the headers of a series' images and look for gaps in each of its stacks."""
    if not paths:
        return Geometry(sentence="it holds no image planes, so there is nothing to segment", has_images=False)
    try:
        stacks = split(read_headers(paths))
    except (InputError, StorageError) as exc:  # the job will fail of it and say so
        return Geometry(sentence=f"no volume: {exc}")
    gaps, faults = [], []
    for stack in stacks:
        try:
            sort(stack)
        except MissingSlicesError as exc:
            gaps.append(str(exc))
        except InputError as exc:
            faults.append(f"no volume: {exc}")
    if gaps:
        return Geometry(sentence="; ".join(gaps), has_gap=True)
    return Geometry(sentence="; ".join(faults or ["no gap between its first and last position"]))


def count_images(images: Sequence[Instance]) -> Count:
    """Count the images of a series, and find out whether the headers tell how many there should be."""
    classic = [image for image in images if image.number_of_frames is None]
    if not classic:
        return Count(there=len(images), told=_told_by_multi_frames(images))
    stated = {(image.images_in_acquisition, image.acquisition_number) for image in classic}
    told = next(iter(stated))[0] if len(stated) == 1 and len(classic) == len(images) else None
    # A number that is exceeded was not the number of the series' images.
    return Count(there=len(images), told=told if told and told >= len(images) else None)


def _told_by_multi_frames(images: Sequence[Instance]) -> int | None:
    if len(images) == 1 and images[0].concatenation_uid is None:
        return 1
    stated = {(image.concatenation_uid, image.in_concatenation_total) for image in images}
    if len(stated) != 1:
        return None
    concatenation_uid, total = stated.pop()
    return total if concatenation_uid and total and total >= len(images) else None


def _rows(connection: Connection, series_uid: str) -> int:
    query = select(func.count()).where(instances.c.series_uid == series_uid)
    return connection.execute(query).scalar_one()


def _touch(row: RowMapping) -> Touch:
    return Touch(
        association_id=row["id"],
        outcome=AssociationOutcome(row["outcome"]),
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
        last_at=row["last_at"],
    )
