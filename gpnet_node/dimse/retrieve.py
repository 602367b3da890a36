"""C-MOVE and C-GET SCP (PS3.4 C.4.2, C.4.3): which instances, to whom, and counts that are true."""

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import encode

from gpnet_node.audit.trail import Traced, Trail, peer
from gpnet_node.config import Configuration, NodeConfig, PeerConfig
from gpnet_node.dimse.contexts import QUERY_MODELS
from gpnet_node.dimse.encoding import command_set, message_pdus
from gpnet_node.dimse.find import CANCELLED, SUCCESS
from gpnet_node.dimse.identifier import Asked, read_retrieval
from gpnet_node.dimse.requested import Requested
from gpnet_node.dimse.suboperations import Originator, Result, Storing, send_all
from gpnet_node.dimse.transport import send_encoded
from gpnet_node.imaging.decoding import Codecs
from gpnet_node.log import get_logger
from gpnet_node.store.archive import Archive
from gpnet_node.store.catalogue import Catalogue, Held, Level

_PENDING = 0xFF00
_GET_RESPONSE, _MOVE_RESPONSE = 0x8010, 0x8021  # Command Field (PS3.7 E.1)
_NO_DATA_SET = 0x0101
_LARGEST_COUNT = 0xFFFF  # of a US
_NONE_WAS_SENT = 0xA702
_DESTINATION_UNKNOWN = 0xA801
_SOME_WERE_NOT = 0xB000

Sent = tuple[Held, Result]

log = get_logger(__name__)


@dataclass(kw_only=True)
class _Tally:
    """How many sub-operations stand where."""

    remaining: int
    counts: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(Result, 0))
    failed_uids: list[str] = field(default_factory=list)
    sent: Counter[Traced] = field(default_factory=Counter)
    failed: Counter[Traced] = field(default_factory=Counter)

    def count(self, held: Held, result: Result) -> None:
        self.remaining -= 1
        self.counts[result] += 1
        (self.failed if result is Result.FAILED else self.sent)[Traced.of(held)] += 1
        if result is Result.FAILED:
            self.failed_uids.append(held.sop_instance_uid)

    def status(self) -> int:
        """Return the final status of a retrieval that was carried out to its end."""
        if not self.counts[Result.FAILED] and not self.counts[Result.WARNING]:
            return SUCCESS
        some = self.counts[Result.COMPLETED] or self.counts[Result.WARNING]
        return _SOME_WERE_NOT if some else _NONE_WAS_SENT

    def fill(self, response: C_MOVE | C_GET) -> None:
        """Put the counts into a final response; a US holds no more than 65,535."""
        response.NumberOfCompletedSuboperations = min(self.counts[Result.COMPLETED], _LARGEST_COUNT)
        response.NumberOfFailedSuboperations = min(self.counts[Result.FAILED], _LARGEST_COUNT)
        response.NumberOfWarningSuboperations = min(self.counts[Result.WARNING], _LARGEST_COUNT)
        if response.Status == CANCELLED:  # the others leave nothing over
            response.NumberOfRemainingSuboperations = min(self.remaining, _LARGEST_COUNT)


def retrieve(
    requested: Requested,
    message: C_MOVE | C_GET,
    response: C_MOVE | C_GET,
    *,
    configuration: Configuration,
    catalogue: Catalogue,
    archive: Archive,
    trail: Trail,
) -> None:
    """Send what is asked for, with a pending response after each instance, and fill in the final response.

    An instance that the peer does not take, or that cannot be read, fails alone. Raises QueryError before
    anything is sent, and StorageError.
    """
    model, syntax = QUERY_MODELS[requested.sop_class_uid], requested.transfer_syntax
    asked = read_retrieval(message.Identifier, transfer_syntax=syntax, model=model)
    destination = None
    if isinstance(message, C_MOVE):
        destination = configuration.destination(str(message.MoveDestination))
        if destination is None:
            response.Status = _DESTINATION_UNKNOWN
            response.ErrorComment = "the move destination is not known here"  # type: ignore[assignment]  # not None
            log.warning("a destination is not known", called_ae=str(message.MoveDestination).strip())
            return
    items = _held(catalogue, asked)
    tally = _Tally(remaining=len(items))
    caller = requested.caller
    to = caller if destination is None else peer(destination.ae_title, destination.host or "")
    trail.begins_to_send(to, Counter(map(Traced.of, items)), asked_by=caller)
    with (
        Codecs() as codecs,
        closing(_sent(requested, destination, items, configuration.node, archive, codecs)) as sent,
    ):
        _carry_out(requested, sent, tally)
    trail.sent(to, tally.sent, failed=tally.failed, asked_by=caller)
    response.Status = CANCELLED if tally.remaining else tally.status()
    tally.fill(response)
    if tally.failed_uids:
        response.Identifier = _failed_list(tally.failed_uids, syntax)
    completed, failed = tally.counts[Result.COMPLETED], tally.counts[Result.FAILED]
    log.info("instances were sent", total=len(items), completed=completed, failed=failed)


def _carry_out(requested: Requested, sent: Iterator[Sent], tally: _Tally) -> None:
    """Count, and say how far it is, until all is sent or the peer asks to stop or is gone."""
    while tally.remaining and not requested.is_cancelled:
        held, result = next(sent)
        tally.count(held, result)
        if tally.remaining:
            _say_how_far(requested, tally)


def _say_how_far(requested: Requested, tally: _Tally) -> None:
    """Send a pending response (PS3.7 9.3.3.2, 9.3.4.2), encoded here: there is one for each instance."""
    pending: dict[int, str | int] = {
        0x0002: requested.sop_class_uid,
        0x0100: _MOVE_RESPONSE if isinstance(requested.message, C_MOVE) else _GET_RESPONSE,
        0x0120: requested.message_id,
        0x0800: _NO_DATA_SET,
        0x0900: _PENDING,
        0x1020: min(tally.remaining, _LARGEST_COUNT),
        0x1021: min(tally.counts[Result.COMPLETED], _LARGEST_COUNT),
        0x1022: min(tally.counts[Result.FAILED], _LARGEST_COUNT),
        0x1023: min(tally.counts[Result.WARNING], _LARGEST_COUNT),
    }
    longest = requested.association.dimse.maximum_pdu_size
    pdus = message_pdus(requested.context_id, command_set(pending), b"", longest=longest)
    if not requested.is_void:
        send_encoded(requested.association, pdus)


def _held(catalogue: Catalogue, asked: Asked) -> tuple[Held, ...]:
    keys = asked.unique_keys
    patient = keys.get(Level.PATIENT, ())
    return catalogue.held(
        patient_id=patient[0] if patient else None,
        study_uids=keys.get(Level.STUDY, ()),
        series_uids=keys.get(Level.SERIES, ()),
        sop_instance_uids=keys.get(Level.IMAGE, ()),
    )


def _sent(
    requested: Requested,
    destination: PeerConfig | None,
    items: tuple[Held, ...],
    node: NodeConfig,
    archive: Archive,
    codecs: Codecs,
) -> Generator[Sent, None, None]:
    """Send each instance: to the destination, or back on the association on which it was asked for."""
    root, message_id = archive.root, requested.message_id
    if destination is not None:
        asked = Originator(ae_title=requested.calling_ae, message_id=message_id)
        yield from send_all(destination, items, root=root, node=node, codecs=codecs, asked=asked)
        return
    storing = Storing(
        association=requested.association, root=root, node=node, codecs=codecs, message_id=message_id
    )
    for held in items:
        yield held, storing.store(held)


def _failed_list(uids: list[str], syntax: UID) -> BytesIO:
    identifier = Dataset()
    identifier.FailedSOPInstanceUIDList = uids
    return BytesIO(encode(identifier, syntax.is_implicit_VR, True) or b"")
