"""Tells the index what arrived, in batches and in order, behind the receiver's back.

The archive already holds what is told here, so nothing is lost if the process dies first: the index is filled
up from the archive at the next start. An association is told to have ended only after everything that came on
it, so a series is never judged before its instances are known.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gpnet_node.errors import StorageError
from gpnet_node.log import get_logger
from gpnet_node.store.index import Index
from gpnet_node.store.states import Arrival, AssociationOutcome

_BATCH = 256
_MOST_WAITING = 20_000
_GATHER_SECONDS = 0.5
_END_SECONDS = 0.05
_RETRY_SECONDS = 1.0

log = get_logger(__name__)


class Association:
    """One accepted association; its row is made when the first instance comes."""

    def __init__(self, *, calling_ae: str, host: str, opened_at: datetime) -> None:
        self.calling_ae = calling_ae
        self.host = host
        self.opened_at = opened_at
        self.number: int | None = None  # in the index


@dataclass(frozen=True, kw_only=True)
class _Arrived:
    association: Association
    arrival: Arrival


@dataclass(frozen=True, kw_only=True)
class _Ended:
    association: Association
    outcome: AssociationOutcome
    at: datetime


class Indexer:
    """One thread that writes to the index; ``owner`` names this process there."""

    def __init__(self, index: Index, *, owner: str) -> None:
        self._index = index
        self._owner = owner
        self._items: queue.SimpleQueue[_Arrived | _Ended | None] = queue.SimpleQueue()
        self._waited_for = threading.Event()  # set when somebody may wait for what came
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether what arrives will be written: not before the start, nor after a bug or the stop."""
        return self._thread.is_alive()

    @property
    def takes_more(self) -> bool:
        """Whether what arrives will be written, and what waits for that is not too much to keep in memory."""
        return self.is_alive and self._items.qsize() < _MOST_WAITING

    def arrived(self, association: Association, arrival: Arrival) -> None:
        """Note an instance that is safe in the archive."""
        self._items.put(_Arrived(association=association, arrival=arrival))

    def ended(self, association: Association, outcome: AssociationOutcome, *, at: datetime) -> None:
        """Note that an association ended, after all that came on it."""
        self._items.put(_Ended(association=association, outcome=outcome, at=at))
        self._waited_for.set()

    def stop(self, *, seconds: float) -> bool:
        """Write what is waiting, for at most so long; whether all of it was written."""
        self._items.put(None)
        self._waited_for.set()
        self._thread.join(seconds)
        self._stopped.set()  # a thread that waits for the database to come back gives up
        return not self._thread.is_alive()

    def _run(self) -> None:
        ends = False
        while not ends:
            batch = self._next_batch()
            ends = batch[-1] is None
            items = [item for item in batch if item is not None]
            while not (self._stopped.is_set() or self._write(items)):
                self._stopped.wait(_RETRY_SECONDS)

    def _next_batch(self) -> list[_Arrived | _Ended | None]:
        """Wait for something, then for the end of an association, or a moment: a transaction costs as much as
        a hundred rows, and to wake for each of them keeps those waiting who receive.
        """
        batch = [self._items.get()]
        if self._items.qsize() < _BATCH and self._waited_for.wait(_GATHER_SECONDS):
            self._waited_for.clear()
            time.sleep(_END_SECONDS)  # others may end, too
        with contextlib.suppress(queue.Empty):
            while batch[-1] is not None and len(batch) < _BATCH:
                batch.append(self._items.get_nowait())
        return batch

    def _write(self, items: Sequence[_Arrived | _Ended]) -> bool:
        """Write the arrivals, then the ends; whether the index could be written."""
        try:
            self._record([item for item in items if isinstance(item, _Arrived)])
            self._close([item for item in items if isinstance(item, _Ended)])
        except StorageError as exc:
            log.error("the index cannot be written; trying again", reason=str(exc), waiting=len(items))
            return False
        return True

    def _close(self, items: Sequence[_Ended]) -> None:
        ended = [
            (item.association.number, item.outcome, item.at)
            for item in items
            if item.association.number is not None
        ]
        if ended:
            self._index.close_associations(ended)

    def _record(self, items: Sequence[_Arrived]) -> None:
        for item in items:
            association = item.association
            if association.number is None:
                association.number = self._index.open_association(
                    calling_ae=association.calling_ae,
                    host=association.host,
                    owner=self._owner,
                    now=association.opened_at,
                )
        if items:
            self._index.record(
                [replace(item.arrival, association_id=item.association.number) for item in items]
            )
