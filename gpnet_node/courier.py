"""The courier pays the outbox: what is owed to a peer goes out on one association, each answer is recorded.

Afterwards it asks those peers that say so whether they keep the objects safe, and it reports to peers on what
they want this node to keep safe (``dimse.commitment``).

What to do after a failure is the outbox's decision: it backs off, gives up, and delivers the job with its
last payment. Here only the peer's answer is told apart (``dimse.sender``).
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from gpnet_node.audit.trail import Trail
from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.dimse.commitment import ask, report
from gpnet_node.dimse.held import find_held
from gpnet_node.dimse.sender import Outcome, Verdict, send
from gpnet_node.errors import ConfigurationError, PeerError, StorageError
from gpnet_node.log import get_logger
from gpnet_node.store.commitments import Commitment, Commitments, Reference
from gpnet_node.store.outbox import Debt, Outbox

_PEERS_AT_ONCE = 8

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Due:
    """What a visit to one peer is for: to send, to ask whether it keeps things safe, to report what we do."""

    debts: tuple[Debt, ...]
    unconfirmed: tuple[Debt, ...]
    reports: tuple[Commitment, ...]


class Courier:
    """Sends what is due. Peers are served side by side, so that one which is slow or away delays no other.

    ``clock`` gives the time with its zone.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        outbox: Outbox,
        commitments: Commitments,
        trail: Trail,
        clock: Callable[[], datetime],
    ) -> None:
        self._configuration = configuration
        self._archive = configuration.node.archive
        self._outbox = outbox
        self._commitments = commitments
        self._trail = trail
        self._clock = clock

    def run(self, stop: threading.Event, *, poll_seconds: float = 1.0) -> None:
        """Pay until ``stop`` is set; what is then on its way to a peer is finished."""
        with ThreadPoolExecutor(_PEERS_AT_ONCE, thread_name_prefix="courier") as pool:
            busy: dict[str, Future[None]] = {}
            while not stop.wait(poll_seconds):
                try:
                    for peer in [peer for peer, visit in busy.items() if visit.done()]:
                        busy.pop(peer).result()  # an error in a visit is raised here, not lost in its thread
                    visits = self._visits()
                except StorageError as exc:
                    log.error("archive or database failed; trying again", reason=str(exc))
                    continue
                for peer in visits.keys() - busy.keys():
                    busy[peer] = pool.submit(self._visit, peer, visits[peer])

    def pay_once(self) -> None:
        """Visit each peer that something is due to, one after the other. Raises StorageError."""
        for peer, visit in self._visits().items():
            self._visit(peer, visit)

    def _visits(self) -> Mapping[str, _Due]:
        now = self._clock()
        confirming = [peer.name for peer in self._configuration.peers if peer.confirm]
        debts, unconfirmed = self._outbox.due(now=now), self._outbox.unconfirmed(confirming, now=now)
        reports = self._commitments.due(now=now)
        peers = {it.peer for it in (*debts, *unconfirmed)} | {it.peer for it in reports}
        return {
            peer: _Due(
                debts=tuple(it for it in debts if it.peer == peer),
                unconfirmed=tuple(it for it in unconfirmed if it.peer == peer),
                reports=tuple(it for it in reports if it.peer == peer),
            )
            for peer in sorted(peers)
        }

    def _visit(self, name: str, due: _Due) -> None:
        try:
            peer = self._configuration.peer(name)
        except ConfigurationError as exc:
            self._put_off(due.debts, str(exc))
            for it in due.reports:
                self._commitments.put_off(it, comment=str(exc), now=self._clock())
            return
        if due.debts:
            self._pay(peer, due.debts)
        if due.unconfirmed:
            self._ask(peer, due.unconfirmed)
        for it in due.reports:
            self._report(peer, it)

    def _ask(self, peer: PeerConfig, debts: Sequence[Debt]) -> None:
        """Ask whether the peer keeps objects safe. Its answer may come later, on another association."""
        transaction_uid = f"2.25.{uuid4().int}" if peer.confirm == "commitment" else None
        self._outbox.asked(debts, transaction_uid, now=self._clock())
        try:
            if transaction_uid is None:
                self._look_there(peer, debts)
                return
            references = [
                Reference(sop_class_uid=it.sop_class_uid, sop_instance_uid=it.sop_instance_uid)
                for it in debts
            ]
            node = self._configuration.node
            ask(peer, transaction_uid, references, node=node, outbox=self._outbox, clock=self._clock)
        except PeerError as exc:
            log.warning("a peer was not asked whether it keeps objects safe", peer=peer.name, reason=str(exc))

    def _look_there(self, peer: PeerConfig, debts: Sequence[Debt]) -> None:
        """Query for each object. Raises PeerError."""
        paths = [self._archive / it.path for it in debts]
        found = find_held(peer, paths, node=self._configuration.node)
        held = [uid for uid, is_held in found.items() if is_held]
        missing = {uid: "a query does not find it there" for uid, is_held in found.items() if not is_held}
        self._outbox.confirmed(peer.name, held, transaction_uid=None, now=self._clock())
        self._outbox.denied(peer.name, missing, transaction_uid=None, now=self._clock())

    def _report(self, peer: PeerConfig, commitment: Commitment) -> None:
        """Examine what a peer wants this node to keep safe, and tell it."""
        faults = self._commitments.examine(commitment.references)
        fields = {"peer": peer.name, "count": len(commitment.references), "failed": len(faults)}
        try:
            report(peer, commitment, faults, node=self._configuration.node)
        except PeerError as exc:
            self._commitments.put_off(commitment, comment=str(exc), now=self._clock())
            log.warning("a report on storage commitment is put off", reason=str(exc), **fields)
            return
        self._commitments.reported(commitment, comment=f"{len(faults)} not kept safe", now=self._clock())
        log.info("a peer was told what is kept safe", **fields)

    def _pay(self, peer: PeerConfig, debts: Sequence[Debt]) -> None:
        """Send on one association, which ends early where an object must not leave any more."""
        paths = [self._archive / debt.path for debt in debts]
        with closing(send(peer, paths, node=self._configuration.node, trail=self._trail)) as outcomes:
            for debt in debts:
                if not self._outbox.is_payable(debt):
                    log.info("an object is withheld", job=debt.job_uid, object=debt.name, peer=debt.peer)
                    return  # what is left is due again at the next visit
                self._record(debt, next(outcomes))

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
