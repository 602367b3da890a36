"""The composition root: builds every part once from the configuration, and plays one role with them.

Each role is a process of its own, so that inference never starves the receiver; ``supervisor`` starts and
restarts them. They meet in the archive and the database, nowhere else. Only the worker loads torch.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, partial
from importlib.metadata import version
from random import SystemRandom
from uuid import uuid4

from sqlalchemy import Engine

from gpnet_node.audit.trail import Trail, open_trail
from gpnet_node.completeness import Watcher
from gpnet_node.config import Configuration, RouteConfig
from gpnet_node.courier import Courier
from gpnet_node.dimse.commitment import CommitmentDesk
from gpnet_node.dimse.indexer import Indexer
from gpnet_node.dimse.performed_step import PerformedSteps
from gpnet_node.dimse.places import Places, new_places
from gpnet_node.dimse.receiver import Receiver
from gpnet_node.dimse.transport import bind, new_listener
from gpnet_node.doors import Doors, forked
from gpnet_node.errors import ConfigurationError, DamagedDatabaseError, StorageError
from gpnet_node.log import get_logger
from gpnet_node.pipeline import Segmenter
from gpnet_node.retention import Remover
from gpnet_node.store.archive import Archive
from gpnet_node.store.backup import back_up
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.commitments import Commitments
from gpnet_node.store.database import journal_in_use, journal_mode, open_engine, require_current, upgrade
from gpnet_node.store.disk import DiskWatch
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.mending import is_damaged, mend
from gpnet_node.store.outbox import Outbox
from gpnet_node.store.reindex import reindex
from gpnet_node.store.retention import Retention
from gpnet_node.store.steps import Steps
from gpnet_node.worker import Worker

_LOOK_SECONDS = 0.5
_RETENTION_SECONDS = 3600.0
_SHARE_OF_DRAIN = 0.7  # what open associations get of the drain time; the rest is for the index
BACKUP = "backup/node.sqlite"  # relative to the archive

SegmenterFor = Callable[[RouteConfig | None], Segmenter]
SegmentersOf = Callable[[Configuration], SegmenterFor]

log = get_logger(__name__)


class Role(StrEnum):
    """What one process of the node does."""

    RECEIVER = "receiver"
    """Takes in what peers send, and decides when a series is complete."""
    WORKER = "worker"
    """Segments one series after the other."""
    COURIER = "courier"
    """Sends the results, backs up the database, and removes what is old."""
    WEB = "web"
    """Answers DICOMweb; played where ``[web]`` in node.toml is enabled."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What roles and commands work with, built once. ``owner`` names this process where it holds a thing."""

    configuration: Configuration
    engine: Engine
    archive: Archive
    index: Index
    catalogue: Catalogue
    steps: Steps
    jobs: Jobs
    outbox: Outbox
    commitments: Commitments
    retention: Retention
    trail: Trail
    owner: str

    def close(self) -> None:
        """Let go of the database, and write what audit messages wait."""
        self.engine.dispose()
        self.trail.close()


def roles_of(configuration: Configuration) -> tuple[Role, ...]:
    """Return the roles that this configuration asks for."""
    return tuple(role for role in Role if role is not Role.WEB or configuration.node.web.enabled)


def now() -> datetime:
    """The clock of the node."""
    return datetime.now(UTC)


def build(configuration: Configuration, *, owner: str) -> Parts:
    """Open archive and database, made and brought up to date if need be. Raises StorageError."""
    node = configuration.node
    archive = Archive(node.archive)
    archive.prepare()
    engine = open_engine(node.database)
    upgrade(engine)
    return _parts(configuration, engine, owner)


def mend_database(configuration: Configuration) -> None:
    """Replace a damaged database by its last copy; for a node none of whose roles has begun.

    Raises ConfigurationError if another process plays one of them, and StorageError.
    """
    node = configuration.node
    if not is_damaged(node.database):
        return
    archive = Archive(node.archive)
    with ExitStack() as locks:
        for role in Role:
            locks.enter_context(archive.lock(role))
        log.error(mend(node.database, archive.root / BACKUP, now=now()), path=str(node.database))


def attach(configuration: Configuration, *, owner: str) -> Parts:
    """Open what a node has made, and make nothing. Raises StorageError, also if no node has run."""
    engine = open_engine(configuration.node.database, make=False)
    require_current(engine)
    return _parts(configuration, engine, owner)


def _parts(configuration: Configuration, engine: Engine, owner: str) -> Parts:
    node = configuration.node
    archive = Archive(node.archive, reserve_bytes=node.min_free_bytes)
    confirming = [peer.name for peer in configuration.peers if peer.confirm]
    return Parts(
        configuration=configuration,
        engine=engine,
        archive=archive,
        index=Index(engine, which_version=node.which_version),
        catalogue=Catalogue(engine),
        steps=Steps(engine),
        jobs=Jobs(
            engine,
            new_uid=lambda: f"2.25.{uuid4().int}",
            lease_seconds=node.lease_seconds,
            max_attempts=node.max_attempts,
        ),
        outbox=Outbox(engine, retry=node.retry, chance=SystemRandom().random),
        commitments=Commitments(engine, node.archive, retry=node.retry, chance=SystemRandom().random),
        retention=Retention(engine, archive, confirming=confirming),
        trail=open_trail(node, owner=owner, clock=now),
        owner=owner,
    )


def gpnet_segmenters(configuration: Configuration) -> SegmenterFor:
    """Load the model of every route now, so that wrong weights stop the start and no job waits for it.

    Raises ConfigurationError, or WeightsMismatchError for weights that are not the card's.
    """
    from gpnet_node.model.segment import GPNetSegmenter  # noqa: PLC0415  # torch: for the worker alone

    node = configuration.node

    @cache
    def load(model: str) -> Segmenter:
        return GPNetSegmenter(node.model_weights / model, device=node.device)

    for route in configuration.routes:
        load(route.model)
    return lambda route: load((route or configuration.routes[0]).model)


# -- roles ---------------------------------------------------------------------------------------------------


def play(
    role: Role,
    configuration: Configuration,
    *,
    on_ready: Callable[[int | None], None] = lambda port: None,
    segmenters: SegmentersOf = gpnet_segmenters,
) -> None:
    """Play one role in this process until SIGTERM or SIGINT; then drain and return.

    ``on_ready`` is called when the role does its work, the receiver's and the web's with their port. Raises
    ConfigurationError (another process plays the role, say) and StorageError.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.umask(0o077)  # patient data is for the node's own account
    node = configuration.node
    archive = Archive(node.archive)
    archive.prepare()
    with ExitStack() as ends:
        if role is Role.RECEIVER:  # while there is one thread, and no lock that would outlive this process
            listener, doors = _fork_doors(configuration, stop, ends)
        ends.enter_context(archive.lock(role))
        if is_damaged(node.database):
            raise DamagedDatabaseError(f"database {node.database} is damaged")
        parts = build(configuration, owner=_owner(role))
        journal = journal_in_use(parts.engine)
        log.info("a role begins", role=role, journal=journal, path=str(archive.root))
        if journal != journal_mode()[0]:
            log.warning("the database keeps another journal", journal=journal, reason=journal_mode()[1])
        with parts.trail.playing():
            if role is Role.RECEIVER:
                _receive(parts, stop, on_ready, doors, bind(listener, node.host, node.port))
            elif role is Role.WORKER:
                _work(parts, stop, on_ready, segmenters)
            elif role is Role.WEB:
                _answer(parts, stop, on_ready)
            else:
                _deliver(parts, stop, on_ready)
        parts.engine.dispose()
        log.info("a role ends", role=role)


def _owner(role: Role) -> str:
    """Name this process."""
    return f"{role} {socket.gethostname()} {os.getpid()}"


def _fork_doors(
    configuration: Configuration, stop: threading.Event, ends: ExitStack
) -> tuple[socket.socket, Doors]:
    node = configuration.node
    listener = ends.enter_context(new_listener(node.host))
    places = new_places(configuration, processes=node.receiving_processes)
    serve = partial(_stand_at_door, configuration, listener, places, stop)
    return listener, ends.enter_context(forked(node.receiving_processes, serve))


def _receive(
    parts: Parts,
    stop: threading.Event,
    on_ready: Callable[[int | None], None],
    doors: Doors,
    port: int,
) -> None:
    parts.index.lose_open_associations(now=now(), owners=Role.RECEIVER)
    parts.archive.discard_unfinished("incoming")
    found = reindex(parts.archive, parts.index, now=now())
    log.info("the index holds what the archive holds", count=found.added, total=found.found)
    for path in found.unreadable:
        log.error("a file of the archive cannot be read", path=str(path))
    node = parts.configuration.node
    watcher = Watcher(
        parts.engine,
        parts.archive.root,
        node=node,
        jobs=parts.jobs,
        tell_incomplete=parts.configuration.wants("refusal"),
        tell_withdrawn=parts.configuration.wants("rejection"),
    )
    disk = DiskWatch(parts.archive, warn_free_bytes=node.warn_free_bytes)
    doors.open()
    log.info("ready", role=Role.RECEIVER, port=port)
    on_ready(port)
    while not stop.wait(_LOOK_SECONDS):
        doors.tend()
        disk.look()
        _look(watcher)
    log.info("draining: no new associations", role=Role.RECEIVER)
    if not doors.close(seconds=node.drain_seconds * _SHARE_OF_DRAIN + _LOOK_SECONDS):
        log.warning("a process that receives did not drain in time and was ended")


def _stand_at_door(
    configuration: Configuration,
    listener: socket.socket,
    places: Sequence[Places],
    stop: threading.Event,
    number: int,
    ready: Callable[[], None],
) -> None:
    """Receive, in one of the receiver's processes."""
    parts = attach(configuration, owner=_owner(Role.RECEIVER))
    receiver = build_receiver(parts)
    receiver.start(listener, places[number])
    ready()
    seconds = 0.0  # after a fault: an open association would keep the process from ending
    try:
        while not stop.wait(_LOOK_SECONDS):
            receiver.tend()
        seconds = configuration.node.drain_seconds * _SHARE_OF_DRAIN
    finally:
        if not receiver.drain(seconds=seconds):
            log.warning("an association did not end in time and was aborted")
        parts.close()


def build_receiver(parts: Parts) -> Receiver:
    """Build the server of all DIMSE services; it does not listen yet."""
    return Receiver(
        configuration=parts.configuration,
        archive=parts.archive,
        indexer=Indexer(parts.index, owner=parts.owner),
        catalogue=parts.catalogue,
        performed_steps=PerformedSteps(parts.steps, clock=now),
        commitments=CommitmentDesk(
            configuration=parts.configuration,
            commitments=parts.commitments,
            outbox=parts.outbox,
            clock=now,
        ),
        trail=parts.trail,
        clock=now,
    )


def _look(watcher: Watcher) -> None:
    try:
        decisions = watcher.look(now())
    except StorageError as exc:
        log.error("series could not be looked at; trying again", reason=str(exc))
        return
    for it in decisions:
        fields = {"series": it.series_uid, "state": it.state, "job": it.job_uid, "revision": it.revision}
        log.info("a series is decided", reason=it.sentence, **fields)


def _work(
    parts: Parts,
    stop: threading.Event,
    on_ready: Callable[[int | None], None],
    segmenters: SegmentersOf,
) -> None:
    if parts.configuration.node.threads is not None:
        for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
            os.environ[name] = str(parts.configuration.node.threads)  # read when the libraries are loaded
    segmenter_for = segmenters(parts.configuration)
    parts.archive.discard_unfinished("results")
    for job in parts.jobs.recover(now=now()):
        log.warning("a job had lost its worker", job=job.uid, state=job.state, reason=job.reason)
    worker = Worker(
        configuration=parts.configuration,
        archive=parts.archive,
        index=parts.index,
        jobs=parts.jobs,
        segmenter_for=segmenter_for,
        clock=now,
        owner=parts.owner,
        software_version=version("gpnet_node"),
    )
    log.info("ready", role=Role.WORKER)
    on_ready(None)

    def leave() -> None:
        parts.trail.ended(in_order=stop.is_set())
        os._exit(0 if stop.is_set() else 1)

    worker.run(stop, leave=leave)


def _deliver(parts: Parts, stop: threading.Event, on_ready: Callable[[int | None], None]) -> None:
    courier = Courier(
        configuration=parts.configuration,
        outbox=parts.outbox,
        commitments=parts.commitments,
        trail=parts.trail,
        clock=now,
    )
    backup = threading.Thread(target=_back_up, args=(parts, stop), name="backup", daemon=True)
    backup.start()
    retention = threading.Thread(target=_retain, args=(parts, stop), name="retention", daemon=True)
    retention.start()
    log.info("ready", role=Role.COURIER)
    on_ready(None)
    courier.run(stop, poll_seconds=_LOOK_SECONDS)


def _answer(parts: Parts, stop: threading.Event, on_ready: Callable[[int | None], None]) -> None:
    from gpnet_node.web.service import build_service  # noqa: PLC0415  # FastAPI: for the web alone

    node = parts.configuration.node
    if not node.web.enabled:
        raise ConfigurationError("node.toml does not enable the web: set enabled = true under [web]")
    parts.archive.discard_unfinished("stow")
    parts.index.lose_open_associations(now=now(), owners=Role.WEB)
    server = build_service(
        node=node,
        engine=parts.engine,
        archive=parts.archive,
        index=parts.index,
        trail=parts.trail,
        clock=now,
        owner=parts.owner,
    )
    port = server.start()
    log.info("ready", role=Role.WEB, port=port)
    on_ready(port)
    while not stop.wait(_LOOK_SECONDS):
        server.tend()
    log.info("draining: no new requests", role=Role.WEB)
    if not server.drain(seconds=node.drain_seconds * _SHARE_OF_DRAIN):
        log.warning("a request did not end in time and was cut off")


def _back_up(parts: Parts, stop: threading.Event) -> None:
    """Copy the database now and then; the archive itself is not copied."""
    path = parts.archive.root / BACKUP
    period = timedelta(hours=parts.configuration.node.backup_hours).total_seconds()
    age = now().timestamp() - path.stat().st_mtime if path.exists() else period
    wait = min(max(0.0, period - age), period)
    while not stop.wait(wait):
        wait = period
        try:
            back_up(parts.engine, path)
        except StorageError as exc:
            log.error("the database could not be backed up", reason=str(exc))


def _retain(parts: Parts, stop: threading.Event) -> None:
    """Remove what is old, at the start and then hourly."""
    remover = Remover(
        configuration=parts.configuration,
        retention=parts.retention,
        catalogue=parts.catalogue,
        trail=parts.trail,
        clock=now,
    )
    while not stop.is_set():
        try:
            remover.go_round(stop)
        except StorageError as exc:
            log.error("what is old could not be removed; trying again", reason=str(exc))
        stop.wait(_RETENTION_SECONDS)
