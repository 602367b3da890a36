"""The receiver's role: it looks at what is complete, and forks the processes that receive.

What the processes share is made before they are forked; they meet again in the archive and the database.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from gpnet_node.completeness import Watcher
from gpnet_node.config import Configuration
from gpnet_node.dimse.commitment import CommitmentDesk
from gpnet_node.dimse.indexer import Indexer
from gpnet_node.dimse.performed_step import PerformedSteps
from gpnet_node.dimse.places import Places, new_places
from gpnet_node.dimse.receiver import Receiver
from gpnet_node.dimse.transport import bind, new_listener
from gpnet_node.doors import Doors, forked
from gpnet_node.errors import StorageError
from gpnet_node.lifetime import LOOK_SECONDS, SHARE_OF_DRAIN
from gpnet_node.log import get_logger
from gpnet_node.parts import Parts, Role, attach, now, owner_of
from gpnet_node.store.disk import DiskWatch
from gpnet_node.store.reindex import reindex

log = get_logger(__name__)


def fork_doors(
    configuration: Configuration, stop: threading.Event, ends: ExitStack
) -> tuple[socket.socket, Doors]:
    """Fork the processes, while this one has one thread; return the socket they share, and them.

    They serve once ``receive`` has opened them, until ``stop``; ``ends`` ends them and closes the socket.
    """
    node = configuration.node
    listener = ends.enter_context(new_listener(node.host))
    places = new_places(configuration, processes=node.receiving_processes)
    serve = partial(_stand_at_door, configuration, listener, places, stop)
    return listener, ends.enter_context(forked(node.receiving_processes, serve))


def receive(
    parts: Parts,
    stop: threading.Event,
    on_ready: Callable[[int | None], None],
    listener: socket.socket,
    doors: Doors,
) -> None:
    """Play the role until ``stop``; then let the processes drain. Raises what they do, and StorageError."""
    node = parts.configuration.node
    port = bind(listener, node.host, node.port)
    parts.index.lose_open_associations(now=now(), owners=Role.RECEIVER)
    parts.archive.discard_unfinished("incoming")
    found = reindex(parts.archive, parts.index, now=now())
    log.info("the index holds what the archive holds", count=found.added, total=found.found)
    for path in found.unreadable:
        log.error("a file of the archive cannot be read", path=str(path))
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
    while not stop.wait(LOOK_SECONDS):
        doors.tend()
        disk.look()
        _look(watcher)
    log.info("draining: no new associations", role=Role.RECEIVER)
    if not doors.close(seconds=node.drain_seconds * SHARE_OF_DRAIN + LOOK_SECONDS):
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
    parts = attach(configuration, owner=owner_of(Role.RECEIVER))
    receiver = build_receiver(parts)
    receiver.start(listener, places[number])
    ready()
    seconds = 0.0  # after a fault: an open association would keep the process from ending
    try:
        while not stop.wait(LOOK_SECONDS):
            receiver.tend()
        seconds = configuration.node.drain_seconds * SHARE_OF_DRAIN
    finally:
        if not receiver.drain(seconds=seconds) and seconds:
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
