"""Removes series that are old and done with, one after the other (``store.retention``), now and then.

What this node has promised to keep safe (storage commitment, PS3.4 J) leaves only once a query (C-FIND) finds
all that was promised of its series at one of the peers that are named for that.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from gpnet_node.audit.trail import Traced, Trail
from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.dimse.held import find_held
from gpnet_node.errors import PeerError
from gpnet_node.log import get_logger
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.retention import Expired, Retention

_PAUSE_SECONDS = 0.2  # between two transactions, for those who wait for the database

log = get_logger(__name__)


class Remover:
    """Goes through what is old; one process does, the courier. ``clock`` gives the time with its zone."""

    def __init__(
        self,
        *,
        configuration: Configuration,
        retention: Retention,
        catalogue: Catalogue,
        trail: Trail,
        clock: Callable[[], datetime],
    ) -> None:
        self._node = configuration.node
        self._holders = [configuration.peer(name) for name in configuration.node.retention.found_at]
        self._retention = retention
        self._catalogue = catalogue
        self._trail = trail
        self._clock = clock

    def go_round(self, stop: threading.Event) -> None:
        """Finish what was begun, then remove what is old until ``stop`` is set. Raises StorageError."""
        freed = self._retention.finish()
        if freed:
            log.info("a removal that was broken off is finished", bytes=freed)
        before = self._node.retention.before(self._clock())
        if before is None:
            return
        holders = list(self._holders)
        for series_uid in self._retention.expired(before):
            expired = self._retention.look(series_uid, before)
            if expired is not None and self._may_go(expired, holders):
                self._remove(expired, before)
            if stop.wait(_PAUSE_SECONDS):
                return
        for _ in self._retention.forget(before):
            if stop.wait(_PAUSE_SECONDS):
                return

    def _remove(self, expired: Expired, before: datetime) -> None:
        held = self._catalogue.held(series_uids=[expired.series_uid]) if self._trail.is_on else ()
        freed = self._retention.remove(expired, before)
        if freed is None:
            return
        self._trail.removed(Counter(map(Traced.of, held)))
        log.info(
            "a series was removed: it is old and done with",
            series=expired.series_uid,
            instances=len(expired.instances),
            jobs=len(expired.jobs),
            bytes=freed,
        )

    def _may_go(self, expired: Expired, holders: list[PeerConfig]) -> bool:
        """Whether nothing of it was promised, or a peer holds all that was. Who does not answer is let be."""
        if not expired.promised:
            return True
        for peer in tuple(holders):
            try:
                if self._holds(peer, expired.promised):
                    return True
            except PeerError as exc:
                holders.remove(peer)
                log.warning("a peer cannot be asked what it holds", peer=peer.name, reason=str(exc))
        return False

    def _holds(self, peer: PeerConfig, promised: Mapping[str, Path]) -> bool:
        """Query for the first, and for the others only where that is found. Raises PeerError."""
        uids = list(promised)
        return self._finds(peer, promised, uids[:1]) and self._finds(peer, promised, uids[1:])

    def _finds(self, peer: PeerConfig, promised: Mapping[str, Path], uids: Sequence[str]) -> bool:
        if not uids:
            return True
        paths = [self._node.archive / promised[uid] for uid in uids]
        held = find_held(peer, paths, node=self._node)
        return all(held.get(uid, False) for uid in uids)
