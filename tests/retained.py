"""A store with one series that was received long ago, its job in any state, and what is left of both."""

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree

from sqlalchemy import Engine, Table, func, select

from gpnet_node.store.archive import Archive
from gpnet_node.store.commitments import Reference
from gpnet_node.store.database import (
    associations,
    catalogue_instances,
    commitment_instances,
    commitments,
    metadata,
    open_engine,
    reading,
    writing,
)
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.reindex import reindex
from gpnet_node.store.retention import Retention
from gpnet_node.store.revisions import set_state
from gpnet_node.store.states import Arrival, AssociationOutcome, Job, JobState, Outcome, SeriesState
from tests.factories import mr_series
from tests.stores import (
    MR_IMAGE,
    keep,
    new_archive,
    new_commitments,
    new_database,
    new_jobs,
    new_outbox,
    result,
)

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=100)
BEFORE = NOW - timedelta(days=30)  # what is older may go
CONFIRMING = "confirming"  # a peer that is asked whether it keeps results
WITH_OBJECTS = {JobState.WRITTEN, JobState.NEEDS_REVIEW, JobState.DELIVERED, JobState.CONFIRMED}
BY_AGE = {associations, commitments, commitment_instances}  # tables whose rows leave by ``forget``


class Store:
    """What is kept in a folder: one series of two images, received long ago. ``late`` is one more of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive: Archive = new_archive(folder)
        self._use(new_database(folder))
        *self.sent, self.late = mr_series(folder / "sent", slices=3)
        self.series = self.receive(self.sent, at=LONG_AGO)
        self.settle()

    def copy(self, folder: Path) -> "Store":
        """Return an equal one in another folder."""
        copytree(self.folder, folder)
        other = copy(self)
        other.folder, other.archive = folder, Archive(folder / "archive")
        other.sent = [folder / "sent" / path.name for path in self.sent]
        other.late = folder / "sent" / self.late.name
        other._use(open_engine(folder / "node.sqlite"))
        return other

    def _use(self, engine: Engine) -> None:
        self.engine = engine
        self.index = Index(engine)
        self.jobs: Jobs = new_jobs(engine)
        self.outbox = new_outbox(engine)
        self.retention = Retention(engine, self.archive, confirming=(CONFIRMING,))

    def restart(self, *, receiver_first: bool) -> None:
        """Start receiver and courier again, in either order, as far as they touch what is kept."""
        self.engine.dispose()
        self._use(open_engine(self.folder / "node.sqlite"))
        starts = [lambda: reindex(self.archive, self.index, now=datetime.now(UTC)), self.retention.finish]
        for start in starts if receiver_first else starts[::-1]:
            start()

    def receive(self, paths: Sequence[Path], *, at: datetime | None = None) -> str:
        """Keep files and note them, on an association that is then released; return the series' UID."""
        moment = at or datetime.now(UTC)
        arrivals = [keep(self.archive, path, at=moment) for path in paths]
        for it in arrivals if at else ():
            os.utime(self.archive.root / it.path, (moment.timestamp(), moment.timestamp()))
        self.record(arrivals, at=moment)
        return arrivals[0].header.series_uid

    def record(self, arrivals: Sequence[Arrival], *, at: datetime) -> None:
        """Note what was kept."""
        number = self.index.open_association(calling_ae="MR", host="192.0.2.1", owner="test", now=at)
        self.index.record([replace(it, association_id=number) for it in arrivals])
        self.index.close_association(number, AssociationOutcome.RELEASED, now=at)

    def another(self, *, at: datetime | None = None) -> str:
        """Receive another series of the same study; its UID."""
        return self.receive(mr_series(self.folder / "other", slices=2, series="2"), at=at)

    def settle(self, state: SeriesState = SeriesState.COMPLETE, *, series: str | None = None) -> None:
        """Bring the series, or another, to a state."""
        row = self.index.series(series or self.series)
        with writing(self.engine) as connection:
            assert set_state(connection, row, state, revision=row.revision, sentence="so", now=LONG_AGO)

    # -- jobs ------------------------------------------------------------------------------------------------

    def job(self, state: JobState, *, peers: tuple[str, ...] = ("pacs",), at: datetime = LONG_AGO) -> Job:
        """Make a job of the series, and bring it to a state."""
        job = self.jobs.reprocess(self.series, now=at)
        if state is JobState.CANCELLED:
            return self.jobs.cancel(job.uid, now=at)
        if state is JobState.QUEUED:
            return job
        self.jobs.claim("worker", now=at)
        if state is JobState.PARKED:
            self._lose(job, at)
        elif state is not JobState.RUNNING:
            self._finish(job, state, peers, at)
        return self.jobs.get(job.uid)

    def _lose(self, job: Job, at: datetime) -> None:
        while self.jobs.try_again(job.uid, "worker", reason="the disk fails", now=at).state == "queued":
            self.jobs.claim("worker", now=at)

    def _finish(self, job: Job, state: JobState, peers: tuple[str, ...], at: datetime) -> None:
        sent = state in (JobState.DELIVERED, JobState.CONFIRMED)
        made = [result(job, kind) for kind in ("seg", "sr")] if state in WITH_OBJECTS else []
        for it in made:
            self.archive.keep_result(job.uid, it.path.name, b"an object" * 100)
        outcome = Outcome(
            state=JobState.WRITTEN if sent else state,
            sentence="done",
            results=tuple(made),
            owed=tuple((it.name, peer) for it in made for peer in peers),
        )
        self.jobs.finish(job.uid, "worker", outcome, now=at)
        for debt in self.outbox.due(now=at) if sent else ():
            self.outbox.paid(debt, status=0, now=at)
        if state is JobState.CONFIRMED:
            self.outbox.asked(self.outbox.of_job(job.uid), "1.1", now=at)
            uids = [it.sop_instance_uid for it in made]
            for peer in peers:
                self.outbox.confirmed(peer, uids, transaction_uid="1.1", now=at)

    def promise(
        self,
        *uids: str,
        reported: bool = True,
        transaction_uid: str = "2.25.7",
        at: datetime = LONG_AGO,
    ) -> None:
        """A peer asks that instances be kept safe, and may be told that they are."""
        desk = new_commitments(self.engine, self.archive.root)
        wanted = [Reference(sop_class_uid=MR_IMAGE, sop_instance_uid=uid) for uid in uids]
        desk.ask(transaction_uid, peer="console", references=wanted, now=at)
        for it in desk.due(now=at) if reported else ():
            desk.reported(it, comment="", now=at)

    # -- what is there ---------------------------------------------------------------------------------------

    def remove(self) -> int | None:
        """Remove the series as the courier does; None where it stays."""
        expired = self.retention.look(self.series, BEFORE)
        return None if expired is None else self.retention.remove(expired, BEFORE)

    def files(self) -> list[Path]:
        """Every file of instances, results and removals, but for a note that never got its name."""
        folders = [self.archive.root / name for name in ("instances", "results", "removals")]
        found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        return sorted(path for path in found if path.suffix != ".part")

    def rows(self) -> dict[str, int]:
        """How many rows of the series and its jobs each table has, where it has any."""
        tables: list[Table] = [it for it in metadata.sorted_tables if it not in BY_AGE]
        with reading(self.engine) as connection:
            counted = {it.name: connection.scalar(select(func.count()).select_from(it)) or 0 for it in tables}
        return {name: count for name, count in counted.items() if count}

    def listed(self) -> list[Path]:
        """The file of everything that can be asked for."""
        with reading(self.engine) as connection:
            paths = connection.scalars(select(catalogue_instances.c.path)).all()
        return [self.archive.root / path for path in paths]
