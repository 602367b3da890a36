"""C-STORE and C-ECHO SCU: archived files go to one peer on one association, byte for byte (PS3.4 B)."""

import socket
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pydicom
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import, from a table

from gpnet_node.audit.trail import Traced, Trail
from gpnet_node.audit.trail import peer as party
from gpnet_node.config import NodeConfig, PeerConfig
from gpnet_node.errors import ConfigurationError, PermanentPeerError, TransientPeerError
from gpnet_node.store.instance import is_safe_uid
from gpnet_node.store.versions import UNREADABLE
from gpnet_node.tls import calling

_SUCCESS = 0x0000
_STUDY_INSTANCE_UID = 0x0020000D  # Patient ID stands before it
_CLASS_NOT_SUPPORTED = 0x0122
_STORED_WITH_WARNING = {
    0xB000: "the peer coerced data elements",
    0xB006: "the peer discarded data elements",
    0xB007: "the peer finds that the data set does not match its SOP class",
}
_SYNTAX_REFUSED = 4
_REFUSED = {
    1: "refuses presentation contexts of SOP class {sop_class}",
    2: "refuses SOP class {sop_class} without a reason",
    3: "does not take SOP class {sop_class}",
    _SYNTAX_REFUSED: "takes SOP class {sop_class}, but not in transfer syntax {transfer_syntax}",
}


class Verdict(Enum):
    """What became of one object."""

    DELIVERED = "delivered"  # the peer holds it
    TRANSIENT = "transient"  # not now: try again later
    NOT_TAKEN = "not taken"  # the peer does not take its class at all
    PERMANENT = "permanent"  # the peer will never take it as it is


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One object's verdict; ``text`` names peer and status, ``status`` is None where no answer came."""

    path: Path
    sop_instance_uid: str
    verdict: Verdict
    status: int | None
    text: str
    warning: str = ""  # stored, but the peer says that it changed something


@dataclass(frozen=True, kw_only=True)
class _Item:
    path: Path
    sop_class_uid: UID
    sop_instance_uid: UID
    transfer_syntax_uid: UID


def send(
    peer: PeerConfig, paths: Sequence[Path], *, node: NodeConfig, trail: Trail
) -> Generator[Outcome, None, None]:
    """Send each file on one association and yield its outcome as soon as it is known, in the order given.

    What follows a lost association is transient. A file that cannot be read holds no other up: transient, if
    the system does not give it out; permanent, if it is not a DICOM file.
    """
    read = [_read_item(path) for path in paths]
    items = [item for item in read if isinstance(item, _Item)]
    if not items:
        yield from (it for it in read if isinstance(it, Outcome))
        return
    try:
        association = associate(peer, _contexts(items), node)
    except (TransientPeerError, PermanentPeerError) as exc:
        verdict = Verdict.TRANSIENT if isinstance(exc, TransientPeerError) else Verdict.PERMANENT
        yield from (it if isinstance(it, Outcome) else _outcome(it, verdict, None, str(exc)) for it in read)
        return
    traced = {it.path: _traced(it) for it in items} if trail.is_on else {}
    to, left = party(peer.ae_title, peer.host or ""), Counter(traced[it.path] for it in items if traced)
    trail.begins_to_send(to, left)
    sent: Counter[Traced] = Counter()
    try:
        for number, it in enumerate(read, start=1):
            outcome = it if isinstance(it, Outcome) else _store(association, peer, it, number)
            if outcome.verdict is Verdict.DELIVERED and it.path in traced:
                sent[traced[it.path]] += 1
            yield outcome
    finally:
        trail.sent(to, sent, failed=left - sent)
        if association.is_established:
            association.release()


def _traced(item: _Item) -> Traced:
    """Read whose it is; what cannot be read is of nobody."""
    try:
        with item.path.open("rb") as file:
            header = read_partial(file, stop_when=lambda tag, _vr, _length: tag > _STUDY_INSTANCE_UID)
        study_uid, patient_id = header.get("StudyInstanceUID"), header.get("PatientID")
    except (OSError, *UNREADABLE):
        study_uid = patient_id = None
    return Traced(
        study_uid=str(study_uid or ""), patient_id=str(patient_id or ""), sop_class_uid=item.sop_class_uid
    )


def echo(peer: PeerConfig, *, node: NodeConfig) -> None:
    """Verify the peer by C-ECHO (PS3.4 A). Raises TransientPeerError or PermanentPeerError."""
    association = associate(peer, [build_context(Verification)], node)
    try:
        if not association.accepted_contexts:
            raise PermanentPeerError(f"peer {peer.name} does not answer C-ECHO")
        status = association.send_c_echo()
        if "Status" not in status:
            raise TransientPeerError(f"peer {peer.name} did not answer the C-ECHO in time")
        if status.Status != _SUCCESS:
            raise PermanentPeerError(f"peer {peer.name} answered the C-ECHO with 0x{status.Status:04X}")
    finally:
        if association.is_established:
            association.release()


def _read_item(path: Path) -> _Item | Outcome:
    """Read the file meta information, which says how the data set is to be proposed (PS3.10 7.1)."""
    uids: tuple[UID, ...] = ()
    try:
        meta = read_file_meta_info(path)
        uids = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    except OSError as exc:
        return _unread(path, Verdict.TRANSIENT, f"{path} cannot be read: {exc.strerror}")
    except UNREADABLE:
        pass
    if not uids or not all(is_safe_uid(uid) for uid in uids):
        text = f"{path} is not a DICOM file with its file meta information"
        return _unread(path, Verdict.PERMANENT, text)
    sop_class, instance, syntax = uids
    return _Item(path=path, sop_class_uid=sop_class, sop_instance_uid=instance, transfer_syntax_uid=syntax)


def _unread(path: Path, verdict: Verdict, text: str) -> Outcome:
    return Outcome(path=path, sop_instance_uid="", verdict=verdict, status=None, text=text)


def _contexts(items: Sequence[_Item]) -> list[PresentationContext]:
    """One context per SOP class and transfer syntax, so that each acceptance speaks for one encoding."""
    pairs = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


def associate(
    peer: PeerConfig,
    contexts: list[PresentationContext],
    node: NodeConfig,
    *,
    scp_of: Sequence[UID] = (),
    handlers: Sequence[evt.EventHandlerType] = (),
) -> Association:
    """Return an established association with a peer, or one whose contexts it all refused.

    ``scp_of``: classes of which this node is to be the SCP (PS3.7 D.3.3.4).

    Raises TransientPeerError, and PermanentPeerError for a peer that nothing can be sent to. A rejection is
    transient whatever it says of itself (PS3.8 9.3.4): an administrator may admit us within the hour.
    """
    if peer.host is None or peer.port is None:
        raise PermanentPeerError(f"peer {peer.name} has no host and port in the configuration")
    # The data set goes out as it lies on the disk, in pieces; this is pynetdicom's process-wide switch.
    _config.STORE_SEND_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    ae = AE(ae_title=node.ae_title)
    ae.acse_timeout = ae.connection_timeout = node.acse_timeout_seconds
    ae.dimse_timeout = node.dimse_timeout_seconds
    ae.network_timeout = node.network_timeout_seconds
    try:
        association = ae.associate(
            peer.host,
            peer.port,
            contexts=contexts,
            ae_title=peer.ae_title,
            max_pdu=node.max_pdu,
            tls_args=(calling(node.tls), peer.host) if peer.tls else None,
            ext_neg=[build_role(uid, scp_role=True) for uid in scp_of],
            evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once), *handlers],
        )
    except OSError as exc:
        raise TransientPeerError(f"peer {peer.name}: {peer.host} is not known to the network") from exc
    except ConfigurationError as exc:  # a certificate that is just being renewed, say
        raise TransientPeerError(f"peer {peer.name}: {exc}") from exc
    if association.is_established or association.rejected_contexts:
        return association
    raise _refusal(peer, association)


def _send_at_once(event: evt.Event) -> None:
    """A message goes out in several pieces; without this the last one waits 40 ms for the peer to confirm."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _refusal(peer: PeerConfig, association: Association) -> TransientPeerError:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return TransientPeerError(
            f"peer {peer.name} rejected the association: {answer.reason_str} "
            f"(result {answer.result}, source {answer.result_source}, reason {answer.diagnostic})"
        )
    return TransientPeerError(f"peer {peer.name}: no association with {peer.host}:{peer.port}")


def _store(association: Association, peer: PeerConfig, item: _Item, message_id: int) -> Outcome:
    refused = _refused_context(association, item)
    if refused is not None:
        sentence = _REFUSED[refused].format(
            sop_class=item.sop_class_uid.name, transfer_syntax=item.transfer_syntax_uid.name
        )
        verdict = Verdict.PERMANENT if refused == _SYNTAX_REFUSED else Verdict.NOT_TAKEN
        return _outcome(item, verdict, None, f"peer {peer.name} {sentence}")
    if not association.is_established:
        return _outcome(item, Verdict.TRANSIENT, None, f"peer {peer.name}: the association was lost")
    try:
        answer = association.send_c_store(item.path, msg_id=(message_id - 1) % 65535 + 1)
    except RuntimeError:  # the peer aborted between the check above and the request
        return _outcome(item, Verdict.TRANSIENT, None, f"peer {peer.name}: the association was lost")
    except OSError as exc:  # of the file; pynetdicom takes care of the network's
        association.abort()  # half of it may have been sent
        return _outcome(item, Verdict.TRANSIENT, None, f"{item.path} cannot be read: {exc.strerror}")
    if "Status" not in answer and association.is_established:
        association.abort()  # or what follows waits for an answer that cannot come
    return _judged(peer, item, answer)


def _refused_context(association: Association, item: _Item) -> int | None:
    """Return why the item's context was refused (PS3.8 9.3.3.2), or None: it was accepted."""
    pair = (item.sop_class_uid, item.transfer_syntax_uid)
    for context in association.accepted_contexts:
        if (context.abstract_syntax, context.transfer_syntax[0]) == pair:
            return None
    results = [
        context.result for context in association.rejected_contexts if context.abstract_syntax == pair[0]
    ]
    # A class with one accepted encoding is taken; it is this encoding that is not.
    taken = any(context.abstract_syntax == pair[0] for context in association.accepted_contexts)
    return (
        _SYNTAX_REFUSED
        if taken or _SYNTAX_REFUSED in results
        else next((r for r in results if r in _REFUSED), 2)
    )


def _judged(peer: PeerConfig, item: _Item, answer: pydicom.Dataset) -> Outcome:
    """Judge a C-STORE status (PS3.4 B.2.3, PS3.7 Annex C).

    The peer's Error Comment is left out: it may quote the patient.
    """
    if "Status" not in answer:
        text = f"peer {peer.name} gave no answer to the C-STORE: time-out or abort"
        return _outcome(item, Verdict.TRANSIENT, None, text)
    status = int(answer.Status)
    if status == _SUCCESS:
        return _outcome(item, Verdict.DELIVERED, status, f"peer {peer.name} stored it (0x0000)")
    if status in _STORED_WITH_WARNING:
        warning = f"{_STORED_WITH_WARNING[status]} (0x{status:04X})"
        return _outcome(item, Verdict.DELIVERED, status, f"peer {peer.name} stored it: {warning}", warning)
    if status & 0xFF00 == 0xA700:
        text = f"peer {peer.name} is out of resources (0x{status:04X})"
        return _outcome(item, Verdict.TRANSIENT, status, text)
    verdict = Verdict.NOT_TAKEN if status == _CLASS_NOT_SUPPORTED else Verdict.PERMANENT
    return _outcome(item, verdict, status, f"peer {peer.name} {_failure(status)} (0x{status:04X})")


def _failure(status: int) -> str:
    named = {
        0x0110: "failed while processing it",
        0x0117: "finds the SOP instance UID invalid",
        _CLASS_NOT_SUPPORTED: "does not support the SOP class",
        0x0124: "does not authorise us to store",
    }
    ranges = {0xA900: "finds that the data set does not match its SOP class"}
    if status & 0xF000 == 0xC000:
        return "cannot understand the data set"
    return named.get(status) or ranges.get(status & 0xFF00) or "refused it with an unexpected status"


def _outcome(item: _Item, verdict: Verdict, status: int | None, text: str, warning: str = "") -> Outcome:
    return Outcome(
        path=item.path,
        sop_instance_uid=str(item.sop_instance_uid),
        verdict=verdict,
        status=status,
        text=text,
        warning=warning,
    )
