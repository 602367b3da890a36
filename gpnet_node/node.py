"""Plays one role of the node, with the parts that ``parts`` builds.

Each role is a process of its own, so that inference never starves the receiver; ``supervisor`` starts and
restarts them. They meet in the archive and the database, nowhere else. Only the worker loads torch.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import cache
from importlib.metadata import version

from gpnet_node.config import Configuration, RouteConfig
from gpnet_node.courier import Courier
from gpnet_node.errors import ConfigurationError, DamagedDatabaseError, StorageError
from gpnet_node.lifetime import LOOK_SECONDS, SHARE_OF_DRAIN
from gpnet_node.log import get_logger
from gpnet_node.parts import Parts, Role, build, now, owner_of
from gpnet_node.pipeline import Segmenter
from gpnet_node.receiving import fork_doors, receive
from gpnet_node.retention import Remover
from gpnet_node.store.archive import Archive
from gpnet_node.store.backup import back_up
from gpnet_node.store.database import journal_in_use, journal_mode
from gpnet_node.store.mending import is_damaged, mend
from gpnet_node.worker import Worker

_RETENTION_SECONDS = 3600.0
BACKUP = "backup/node.sqlite"  # relative to the archive

SegmenterFor = Callable[[RouteConfig | None], Segmenter]
SegmentersOf = Callable[[Configuration], SegmenterFor]

log = get_logger(__name__)


def roles_of(configuration: Configuration) -> tuple[Role, ...]:
    """Return the roles that this configuration asks for."""
    return tuple(role for role in Role if role is not Role.WEB or configuration.node.web.enabled)


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
            listener, doors = fork_doors(configuration, stop, ends)
        ends.enter_context(archive.lock(role))
        if is_damaged(node.database):
            raise DamagedDatabaseError(f"database {node.database} is damaged")
        parts = build(configuration, owner=owner_of(role))
        journal = journal_in_use(parts.engine)
        log.info("a role begins", role=role, journal=journal, path=str(archive.root))
        if journal != journal_mode()[0]:
            log.warning("the database keeps another journal", journal=journal, reason=journal_mode()[1])
        with parts.trail.playing():
            if role is Role.RECEIVER:
                receive(parts, stop, on_ready, listener, doors)
            elif role is Role.WORKER:
                _work(parts, stop, on_ready, segmenters)
            elif role is Role.WEB:
                _answer(parts, stop, on_ready)
            else:
                _deliver(parts, stop, on_ready)
        parts.engine.dispose()
        log.info("a role ends", role=role)


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
    courier.run(stop, poll_seconds=LOOK_SECONDS)


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
    while not stop.wait(LOOK_SECONDS):
        server.tend()
    log.info("draining: no new requests", role=Role.WEB)
    if not server.drain(seconds=node.drain_seconds * SHARE_OF_DRAIN):
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
