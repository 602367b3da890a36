"""A node's parts in one process, over real stores, which dies where it is told to and begins again.

Nothing of a dead process reaches the disk: from its death on every call that would change something raises.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import Engine, event

from gpnet_node.completeness import Watcher
from gpnet_node.config import Configuration
from gpnet_node.courier import Courier
from gpnet_node.dimse.indexer import Association, Indexer
from gpnet_node.intake.keeping import Announced, keep, preamble
from gpnet_node.intake.spool import Spool
from gpnet_node.node import SegmenterFor
from gpnet_node.store.archive import Archive
from gpnet_node.store.database import open_engine
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.outbox import Outbox
from gpnet_node.store.reindex import reindex
from gpnet_node.store.states import Arrival, AssociationOutcome
from gpnet_node.worker import Worker
from tests.peers import data_set_bytes
from tests.stores import new_commitments, silent_trail

CHANGES = ("fsync", "link", "unlink", "rename", "replace")
ATTEMPTS = 1000  # deaths are not to park a job here


class Killed(BaseException):
    """What stands for SIGKILL: no ``except Exception`` stops it."""


@dataclass
class Fate:
    """Counts what changes the disk, and ends the process before the one that is next after ``left``."""

    left: int | None = None
    dead: bool = False

    def meet(self) -> None:
        """Die, if it is time."""
        if self.left is not None:
            self.left -= 1
            self.dead = self.dead or self.left < 0
        if self.dead:
            raise Killed

    def before(self, change: Callable[..., Any]) -> Callable[..., Any]:
        """Return the change, which a dead process does not make."""

        def changed(*args: Any, **settings: Any) -> Any:  # noqa: ANN401  # as those of os
            self.meet()
            return change(*args, **settings)

        return changed


@contextmanager
def fate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fate]:
    """Stand before whatever changes the disk, for the length of the block."""
    fate = Fate()
    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, fate.before(getattr(os, name)))
        patch.setattr(threading, "excepthook", lambda args: None)  # a thread that was killed says nothing
        yield fate


@dataclass(kw_only=True)
class OneProcess:
    """The parts between a scanner and a PACS; ``now`` is its clock, which may be set back."""

    configuration: Configuration
    segmenter_for: SegmenterFor
    fate: Fate
    now: datetime
    acknowledged: dict[str, bytes] = field(default_factory=dict)  # data sets as sent
    deaths: int = 0
    _names: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.archive = Archive(self.configuration.node.archive)
        self.start()

    def start(self) -> None:
        """Build every part anew and do what the roles do at their start."""
        node = self.configuration.node
        self.engine: Engine = open_engine(node.database)
        event.listen(self.engine, "commit", lambda _: self.fate.meet())
        self.archive.prepare()
        self.index = Index(self.engine)
        self.jobs = Jobs(
            self.engine,
            new_uid=lambda: f"2.25.{next(self._names)}",
            lease_seconds=node.lease_seconds,
            max_attempts=ATTEMPTS,
        )
        self.outbox = Outbox(self.engine, retry=node.retry, chance=lambda: 0.0)
        self.index.lose_open_associations(now=self.now)
        self.archive.discard_unfinished("incoming")
        reindex(self.archive, self.index, now=self.now)
        self.archive.discard_unfinished("results")
        self.jobs.recover(now=self.now)
        self.watcher = Watcher(self.engine, self.archive.root, node=node, jobs=self.jobs)

    def survive(self, step: Callable[[], object]) -> None:
        """Take one step; where the process dies of it, begin again on what it left."""
        with suppress(Killed):
            step()
        if self.fate.dead:
            self.deaths += 1
            self.fate.dead, self.fate.left = False, None
            self.restart()

    def restart(self) -> None:
        """Drop every part and begin again."""
        self.engine.dispose()
        self.start()

    def receive(self, paths: Sequence[Path], outcome: AssociationOutcome) -> None:
        """Take in one association, as the receiver does with each request and its end."""
        association = Association(calling_ae="SCANNER", host="192.0.2.1", opened_at=self.now)
        indexer = Indexer(self.index, owner="receiver")
        for path in paths:
            arrival = self._keep(path)
            indexer.arrived(association, arrival)
            self.acknowledged[arrival.header.sop_instance_uid] = data_set_bytes(path)
        indexer.ended(association, outcome, at=self.now)
        indexer.start()
        indexer.stop(seconds=30)

    def _keep(self, path: Path) -> Arrival:
        meta = dcmread(path, stop_before_pixels=True).file_meta
        announced = Announced(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax=meta.TransferSyntaxUID,
            sender="SCANNER",
        )
        spool = Spool(self.archive, lambda: preamble(announced), max_bytes=1 << 20)
        try:
            spool.write(data_set_bytes(path))
            arrival = keep(self.archive, spool, announced, max_bytes=1 << 20, clock=lambda: self.now)
        finally:
            spool.discard()
        moment = self.now.timestamp()  # the file system goes by the same clock
        os.utime(self.archive.root / arrival.path, (moment, moment))
        return arrival

    def look(self) -> None:
        self.watcher.look(self.now)

    def work(self) -> None:
        worker = Worker(
            configuration=self.configuration,
            archive=self.archive,
            index=self.index,
            jobs=self.jobs,
            segmenter_for=self.segmenter_for,
            clock=lambda: self.now,
            owner="worker",
            software_version="0.1.0",
        )
        worker.work_once(threading.Event(), leave=lambda: None)

    def deliver(self) -> None:
        Courier(
            configuration=self.configuration,
            outbox=self.outbox,
            commitments=new_commitments(self.engine, self.archive.root),
            trail=silent_trail(),
            clock=lambda: self.now,
        ).pay_once()

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
