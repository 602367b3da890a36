"""The courier pays the outbox: what is owed to a peer goes out on one association, each answer is recorded.

What to do after a failure is the outbox's decision: it backs off, gives up, and delivers the job with its
last payment. Here only the peer's answer is told apart (``dimse.sender``).
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from itertools import groupby

from gpnet_node.config import Configuration
from gpnet_node.dimse.sender import Outcome, Verdict, send
from gpnet_node.errors import ConfigurationError, StorageError
from gpnet_node.log import get_logger
from gpnet_node.store.outbox import Debt, Outbox

_PEERS_AT_ONCE = 8

log = get_logger(__name__)


class Courier:
    """Sends what is due. Peers are served side by side, so that one which is slow or away delays no other.

    ``clock`` gives the time with its zone.
    """

    def __init__(
        self, *, configuration: Configuration, outbox: Outbox, clock: Callable[[], datetime]
    ) -> None:
        self._configuration = configuration
        self._archive = configuration.node.archive
        self._outbox = outbox
        self._clock = clock

    def run(self, stop: threading.Event, *, poll_seconds: float = 1.0) -> None:
        """Pay until ``stop`` is set; what is then on its way to a peer is finished."""
        with ThreadPoolExecutor(_PEERS_AT_ONCE, thread_name_prefix="courier") as pool:
            busy: dict[str, Future[None]] = {}
            while not stop.wait(poll_seconds):
                try:
                    for peer in [peer for peer, visit in busy.items() if visit.done()]:
                        busy.pop(peer).result()  # an error in a visit is raised here, not lost in its thread
                    due = self._due()
                except StorageError as exc:
                    log.error("archive or database failed; trying again", reason=str(exc))
                    continue
                for peer in due.keys() - busy.keys():
                    busy[peer] = pool.submit(self._visit, peer, due[peer])

    def pay_once(self) -> None:
        """Visit each peer that something is due to, one after the other. Raises StorageError."""
        for peer, debts in self._due().items():
            self._visit(peer, debts)

    def _due(self) -> Mapping[str, Sequence[Debt]]:
        debts = self._outbox.due(now=self._clock())
        return {peer: tuple(group) for peer, group in groupby(debts, key=lambda debt: debt.peer)}

    def _visit(self, name: str, debts: Sequence[Debt]) -> None:
        try:
            peer = self._configuration.peer(name)
        except ConfigurationError as exc:
            self._put_off(debts, str(exc))
            return
        paths = [self._archive / debt.path for debt in debts]
        for debt, outcome in zip(debts, send(peer, paths, node=self._configuration.node), strict=True):
            self._record(debt, outcome)

    def _put_off(self, debts: Iterable[Debt], comment: str) -> None:
        for debt in debts:
            log.error("an object cannot be sent", job=debt.job_uid, peer=debt.peer, reason=comment)
            self._outbox.put_off(debt, comment=comment, now=self._clock())

    def _record(self, debt: Debt, outcome: Outcome) -> None:
        fields = {
            "job": debt.job_uid,
            "object": debt.name,
            "peer": debt.peer,
            "instance": debt.sop_instance_uid,
        }
        now = self._clock()
        if outcome.verdict is Verdict.DELIVERED and outcome.status is not None:
            self._outbox.paid(debt, status=outcome.status, comment=outcome.warning, now=now)
            log.info("an object was delivered", warning=outcome.warning, **fields)
        elif outcome.verdict is Verdict.TRANSIENT:
            self._outbox.put_off(debt, comment=outcome.text, status=outcome.status, now=now)
            log.warning("an object is put off", reason=outcome.text, **fields)
        elif outcome.verdict is Verdict.NOT_TAKEN:
            self._outbox.left_out(debt, comment=outcome.text, status=outcome.status, now=now)
            log.warning("an object is left out", reason=outcome.text, **fields)
        else:
            self._outbox.failed(debt, comment=outcome.text, status=outcome.status, now=now)
            log.error("an object will never be delivered", reason=outcome.text, **fields)
