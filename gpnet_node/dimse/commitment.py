"""Storage commitment, both ways (PS3.4 J): peers ask this node, and this node asks those that have results.

A request is answered when it is noted; its report goes out on an association of its own, in which this node
is the SCP. Reports that come in are taken on any association, also on that of the request.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import cast

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from gpnet_node.config import Configuration, NodeConfig, PeerConfig
from gpnet_node.dimse.normalized import RESOURCE_LIMITATION, SUCCESS, Answer, answer, items, read
from gpnet_node.dimse.sender import associate
from gpnet_node.errors import PermanentPeerError, QueryError, StorageError, TransientPeerError
from gpnet_node.log import get_logger
from gpnet_node.store.commitments import Commitment, Commitments, FailureReason, Reference
from gpnet_node.store.instance import is_safe_uid
from gpnet_node.store.outbox import Outbox
from gpnet_node.store.versions import UNREADABLE

# PS3.7 C, PS3.4 J.3
_INVALID_ARGUMENT = 0x0115
_NO_SUCH_ACTION = 0x0123
_NOT_AUTHORISED = 0x0124
_REQUEST = 1  # Action Type ID
_ALL_SAFE, _SOME_FAILED = 1, 2  # Event Type ID

_SAME_ASSOCIATION_SECONDS = 1.0  # for a report that comes at once

log = get_logger(__name__)


class CommitmentDesk:
    """Answers the N-ACTION and N-EVENT-REPORT requests of peers."""

    def __init__(
        self,
        *,
        configuration: Configuration,
        commitments: Commitments,
        outbox: Outbox,
        clock: Callable[[], datetime],
    ) -> None:
        self._configuration = configuration
        self._commitments = commitments
        self._outbox = outbox
        self._clock = clock

    def asked(self, event: evt.Event) -> Answer:
        """Note what a peer wants to be rid of; the courier examines it and reports."""
        peer = self._configuration.caller(event.assoc.requestor.ae_title)
        request = cast(N_ACTION, event.request)
        if peer is None or not peer.may_commit:
            return answer(_NOT_AUTHORISED)
        if request.ActionTypeID != _REQUEST:
            return answer(_NO_SUCH_ACTION)
        try:
            wanted = read(request.ActionInformation, event)
            transaction_uid, references = _transaction(wanted), _references(wanted, "ReferencedSOPSequence")
            known = self._commitments.ask(
                transaction_uid, peer=peer.name, references=references, now=self._clock()
            )
        except QueryError as exc:
            log.warning("a request for storage commitment was refused", peer=peer.name, why=str(exc))
            return answer(_INVALID_ARGUMENT, str(exc))
        except StorageError as exc:
            log.error("a request for storage commitment could not be kept", reason=str(exc))
            return answer(RESOURCE_LIMITATION)
        log.info("storage commitment was asked for", peer=peer.name, count=len(references))
        return answer(SUCCESS) if known else answer(_INVALID_ARGUMENT, "another request bears this UID")

    def told(self, event: evt.Event) -> Answer:
        """Take a report on what this node asked."""
        ae_title = event.assoc.requestor.ae_title.strip()
        peers = [it for it in self._configuration.peers if it.confirm == "commitment"]
        names = [it.name for it in peers if it.ae_title == ae_title]
        if not names:
            return answer(_NOT_AUTHORISED)
        return take_report(event, names, self._outbox, now=self._clock())


def take_report(event: evt.Event, peers: Sequence[str], outbox: Outbox, *, now: datetime) -> Answer:
    """Take a report of a peer, under whichever of its names in the configuration it was asked."""
    request = cast(N_EVENT_REPORT, event.request)
    try:
        told = read(request.EventInformation, event)
        transaction_uid = _transaction(told)
        safe = [it.sop_instance_uid for it in _references(told, "ReferencedSOPSequence")]
        failed = {
            str(item.ReferencedSOPInstanceUID): f"0x{int(item.get('FailureReason') or 0):04X}"
            for item in items(told, "FailedSOPSequence")
        }
        for peer in peers:
            outbox.confirmed(peer, safe, transaction_uid=transaction_uid, now=now)
            outbox.denied(peer, failed, transaction_uid=transaction_uid, now=now)
    except (QueryError, *UNREADABLE):
        return answer(_INVALID_ARGUMENT)
    except StorageError as exc:
        log.error("a report on storage commitment could not be kept", reason=str(exc))
        return answer(RESOURCE_LIMITATION)
    level = log.warning if failed else log.info
    level("a peer reports on storage commitment", peer=", ".join(peers), count=len(safe), refused=len(failed))
    return answer(SUCCESS)


def ask(
    peer: PeerConfig,
    transaction_uid: str,
    references: Sequence[Reference],
    *,
    node: NodeConfig,
    outbox: Outbox,
    clock: Callable[[], datetime],
) -> None:
    """Ask a peer to take over safekeeping, and wait a moment for a report on the same association.

    Raises TransientPeerError and PermanentPeerError.
    """
    came = threading.Event()

    def told(event: evt.Event) -> Answer:
        taken = take_report(event, [peer.name], outbox, now=clock())
        came.set()
        return taken

    association = _associate(peer, node, handlers=[(evt.EVT_N_EVENT_REPORT, told)])
    try:
        wanted = Dataset()
        wanted.TransactionUID = transaction_uid
        wanted.ReferencedSOPSequence = Items(map(_item, references))
        status, _ = association.send_n_action(
            wanted, _REQUEST, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        _require_success(peer, status)
        came.wait(_SAME_ASSOCIATION_SECONDS)
    finally:
        if association.is_established:
            association.release()


def report(
    peer: PeerConfig,
    commitment: Commitment,
    faults: Mapping[str, FailureReason],
    *,
    node: NodeConfig,
) -> None:
    """Tell a peer what is kept safe here and what is not. Raises TransientPeerError, PermanentPeerError."""
    told = Dataset()
    told.TransactionUID = commitment.transaction_uid
    safe = [it for it in commitment.references if it.sop_instance_uid not in faults]
    if safe:
        told.ReferencedSOPSequence = Items(map(_item, safe))
    failed = []
    for it in commitment.references:
        if it.sop_instance_uid in faults:
            item = _item(it)
            item.FailureReason = int(faults[it.sop_instance_uid])
            failed.append(item)
    if failed:
        told.FailedSOPSequence = Items(failed)
    association = _associate(peer, node, as_scp=True)
    try:
        status, _ = association.send_n_event_report(
            told,
            _SOME_FAILED if failed else _ALL_SAFE,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
        _require_success(peer, status)
    finally:
        if association.is_established:
            association.release()


def _associate(
    peer: PeerConfig,
    node: NodeConfig,
    *,
    as_scp: bool = False,
    handlers: Sequence[evt.EventHandlerType] = (),
) -> Association:
    association = associate(
        peer,
        [build_context(StorageCommitmentPushModel)],
        node,
        scp_of=[StorageCommitmentPushModel] if as_scp else (),
        handlers=handlers,
    )
    if not association.accepted_contexts:
        if association.is_established:
            association.release()
        raise PermanentPeerError(f"peer {peer.name} does not offer storage commitment")
    return association


def _require_success(peer: PeerConfig, status: Dataset) -> None:
    if "Status" not in status:
        raise TransientPeerError(f"peer {peer.name} gave no answer about storage commitment")
    if status.Status != SUCCESS:
        code = f"0x{status.Status:04X}"
        raise TransientPeerError(f"peer {peer.name} refused what was said of storage commitment ({code})")


def _transaction(wanted: Dataset) -> str:
    uid = wanted.get("TransactionUID")
    if not is_safe_uid(uid):
        raise QueryError("TransactionUID is missing or is not a UID")
    return str(uid)


def _references(named: Dataset, sequence: str) -> list[Reference]:
    found = []
    for item in items(named, sequence):
        uids = item.get("ReferencedSOPClassUID"), item.get("ReferencedSOPInstanceUID")
        if not all(map(is_safe_uid, uids)):
            raise QueryError(f"an item of {sequence} lacks a UID")
        found.append(Reference(sop_class_uid=str(uids[0]), sop_instance_uid=str(uids[1])))
    return found


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item
