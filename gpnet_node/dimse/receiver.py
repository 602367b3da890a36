"""The node's SCPs in one server: C-ECHO, C-STORE (PS3.4 A, B), and those of the modules beside this one.

It decides who may do what. Success is answered to a C-STORE for what is safe.
"""

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from socketserver import BaseServer

from pydicom.config import IGNORE, settings
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from gpnet_node.audit.trail import Traced, Trail, client
from gpnet_node.audit.trail import peer as party
from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.dimse.admission import Admission, Rejection
from gpnet_node.dimse.commitment import CommitmentDesk
from gpnet_node.dimse.contexts import supported_contexts
from gpnet_node.dimse.incoming import SpoolingDimse
from gpnet_node.dimse.indexer import Association as Visited
from gpnet_node.dimse.indexer import Indexer
from gpnet_node.dimse.lobby import Lobby
from gpnet_node.dimse.performed_step import PerformedSteps
from gpnet_node.dimse.places import Places, new_places
from gpnet_node.dimse.query import QueryRetrieve, agreed
from gpnet_node.dimse.store_request import Answer, StoreRequest
from gpnet_node.dimse.transport import request_handler, server_on
from gpnet_node.errors import MismatchedInstanceError, StorageError, UnreadableInstanceError
from gpnet_node.intake.keeping import Announced, keep, preamble
from gpnet_node.intake.spool import Spool
from gpnet_node.log import get_logger
from gpnet_node.store.archive import Archive
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.instance import is_safe_uid
from gpnet_node.store.states import Arrival, AssociationOutcome
from gpnet_node.tls import accept, calling

# PS3.4 B.2.3
_SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700
_DATA_SET_IS_ANOTHER = 0xA900
_CANNOT_UNDERSTAND = 0xC000
_NOT_AUTHORISED = 0x0124

_OUR_TROUBLE = "out of resources; the node's log says why"
_ABORT_SECONDS = 0.5  # for the A-ABORT to leave

log = get_logger(__name__)


class _Visit:
    """One accepted association while it is open."""

    def __init__(self, association: Visited) -> None:
        self.association = association
        self.kept = 0
        self.refused = 0
        self.traced: dict[bool, Counter[Traced]] = {True: Counter(), False: Counter()}  # by Arrival.new


class Receiver:
    """Listens, keeps what peers with the right to store send, and answers those with the right to ask.

    ``indexer`` is started and stopped with it; ``clock`` gives the time with its zone.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        archive: Archive,
        indexer: Indexer,
        catalogue: Catalogue,
        performed_steps: PerformedSteps,
        commitments: CommitmentDesk,
        trail: Trail,
        clock: Callable[[], datetime],
    ) -> None:
        self._configuration = configuration
        self._node = configuration.node
        self._archive = archive
        self._clock = clock
        self._admission = Admission(configuration, archive)
        self._trail = trail
        self._queries = QueryRetrieve(
            configuration=configuration, catalogue=catalogue, archive=archive, trail=trail
        )
        self._performed_steps = performed_steps
        self._commitments = commitments
        self._indexer = indexer
        self._lobby = Lobby(configuration.node.max_associations)
        (self._places,) = new_places(configuration)
        self._visits: dict[Association, _Visit] = {}
        self._lock = threading.Lock()
        self._server: ThreadedAssociationServer | None = None
        self._listener: threading.Thread | None = None

    # -- life ------------------------------------------------------------------------------------------------

    def start(self, listener: socket.socket, places: Places | None = None) -> None:
        """Accept connections; ``places`` are given where other processes accept them too.

        Raises ConfigurationError for a certificate that is none.
        """
        self._places = places or self._places
        if self._node.tls.enabled:
            calling(self._node.tls)  # the files are good, or the start stops here
        _config.LOG_HANDLER_LEVEL = "none"  # pynetdicom's log lines quote identifiers
        # It would only warn, and looks at each UID of an association request more than once.
        settings.reading_validation_mode = IGNORE
        _config.STORE_SEND_CHUNKED_DATASET = True  # what a C-GET sends goes out as it lies on the disk
        ae = AE(ae_title=self._node.ae_title)
        ae.maximum_pdu_size = self._node.max_pdu
        ae.maximum_associations = sys.maxsize  # Admission counts, and by peer
        ae.acse_timeout = self._node.acse_timeout_seconds
        ae.dimse_timeout = self._node.dimse_timeout_seconds
        ae.network_timeout = self._node.network_timeout_seconds
        server = ae.make_server(
            listener.getsockname(),
            contexts=supported_contexts(PeerConfig(name="any", ae_title="ANY"), ()),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_ACCEPTED, self._on_accepted),
                (evt.EVT_N_CREATE, self._performed_steps.create),
                (evt.EVT_N_SET, self._performed_steps.change),
                (evt.EVT_N_ACTION, self._commitments.asked),
                (evt.EVT_N_EVENT_REPORT, self._commitments.told),
                (evt.EVT_SOP_EXTENDED, lambda event: agreed(event.app_info)),
                (evt.EVT_RELEASED, self._on_ended, [AssociationOutcome.RELEASED]),
                (evt.EVT_ABORTED, self._on_ended, [AssociationOutcome.ABORTED]),
            ],
            server_class=server_on(listener),
            request_handler=request_handler(
                self._open_spool,
                self._store,
                self._queries.serve,
                self._lobby,
                self._secure if self._node.tls.enabled else None,
            ),
        )
        self._indexer.start()
        self._listener = threading.Thread(target=server.serve_forever, name="listener", daemon=True)
        self._listener.start()
        self._server = server

    def _secure(self, connection: socket.socket) -> socket.socket:
        host = connection.getpeername()[0]
        try:
            return accept(connection, self._node.tls, seconds=self._node.acse_timeout_seconds)
        except OSError:
            self._trail.refused(client(host), "the connection has no TLS with a certificate that counts")
            raise

    def tend(self) -> None:
        """See to it that all parts work; call it now and then.

        Raises StorageError if one has died of a bug: then the role is to be started again, and what was kept
        without being indexed is found in the archive.
        """
        self._close_lost()
        if not self._indexer.is_alive:
            raise StorageError("the receiver no longer writes to the index and must start again")
        if self._listener is None or not self._listener.is_alive():
            raise StorageError("the receiver no longer listens and must start again")

    def _close_lost(self) -> None:
        """Close the books on associations whose thread ended without a word."""
        with self._lock:
            lost = [association for association in self._visits if not association.is_alive()]
        for association in lost:
            self._end(association, AssociationOutcome.ABORTED)

    def drain(self, *, seconds: float) -> bool:
        """Accept no new association and let the open ones finish; whether all did within ``seconds``."""
        deadline = time.monotonic() + seconds
        if self._server is not None:
            BaseServer.shutdown(self._server)
            self._server.server_close()
            self._server = None
        while self._open() and time.monotonic() < deadline:
            time.sleep(0.05)
            self._close_lost()
        finished = not self._open()
        self._cut(self._open())
        return self._indexer.stop(seconds=max(1.0, deadline - time.monotonic())) and finished

    def _cut(self, late: list[Association]) -> None:
        """Abort what did not end in time; a peer that does not even close its side holds nothing up."""
        for association in late:
            association.abort(block=False)
        patience = time.monotonic() + _ABORT_SECONDS
        while self._open() and time.monotonic() < patience:
            time.sleep(0.02)
        for association in late:
            self._end(association, AssociationOutcome.ABORTED)
            association.dul.kill_dul()

    def _open(self) -> list[Association]:
        with self._lock:
            return list(self._visits)

    # -- association -----------------------------------------------------------------------------------------

    def _on_requested(self, event: evt.Event) -> None:
        """Reject the association, or offer it what its peer may use; pynetdicom then negotiates."""
        association: Association = event.assoc
        request = association.requestor.primitive
        assert request is not None  # this is what was requested
        host = association.requestor.address
        calling = request.calling_ae_title.strip()
        proposed = [str(context.abstract_syntax) for context in request.presentation_context_definition_list]
        self._note_places()
        open_by = self._places.open_by()
        peer = self._admission.admit(calling, request.called_ae_title.strip(), host, proposed, open_by)
        if isinstance(peer, Rejection):
            log.warning("an association was rejected", calling_ae=calling, host=host, why=peer.sentence)
            if peer.is_for_good:
                self._trail.refused(party(calling, host), f"an association was rejected: {peer.sentence}")
            association.acse.send_reject(peer.result, peer.source, peer.reason)
            evt.trigger(association, evt.EVT_REJECTED, {})
            association.kill()
            return
        roles = association.requestor.role_selection
        taken = [str(uid) for uid, item in roles.items() if item.scp_role]
        association.acceptor.supported_contexts = supported_contexts(peer, proposed, taken=taken)

    def _on_accepted(self, event: evt.Event) -> None:
        association: Association = event.assoc
        visit = _Visit(
            Visited(
                calling_ae=association.requestor.ae_title.strip(),
                host=association.requestor.address,
                opened_at=self._clock(),
            )
        )
        with self._lock:
            self._visits[association] = visit
        self._note_places()

    def _note_places(self) -> None:
        """Count the associations whose threads live; the books of others are closed a little later."""
        with self._lock:
            alive = [visit for association, visit in self._visits.items() if association.is_alive()]
            self._places.note(Counter(visit.association.calling_ae for visit in alive))

    def _on_ended(self, event: evt.Event, outcome: AssociationOutcome) -> None:
        self._end(event.assoc, outcome)

    def _end(self, association: Association, outcome: AssociationOutcome) -> None:
        with self._lock:
            visit = self._visits.pop(association, None)
        if visit is None:
            return  # the first word counts
        self._note_places()
        if isinstance(association.dimse, SpoolingDimse):
            association.dimse.discard()
        self._indexer.ended(visit.association, outcome, at=self._clock())
        for new, contents in visit.traced.items():
            self._trail.received(
                party(visit.association.calling_ae, visit.association.host), contents, new=new
            )
        log.info(
            f"association {outcome}",
            calling_ae=visit.association.calling_ae,
            kept=visit.kept,
            refused=visit.refused,
        )

    # -- instances -------------------------------------------------------------------------------------------

    def _open_spool(self, association: Association, request: StoreRequest) -> Spool:
        announced = _announced(association, request)
        return Spool(self._archive, lambda: preamble(announced), max_bytes=self._node.max_instance_bytes)

    def _store(self, association: Association, request: StoreRequest, spool: Spool) -> Answer:
        """Answer one C-STORE request. What the peer is told of our own troubles names no path."""
        with self._lock:
            visit = self._visits.get(association)
        if visit is None:  # the drain has just cut the association
            spool.discard()
            return Answer(_OUT_OF_RESOURCES, _OUR_TROUBLE)
        if not request.context.as_scp:  # it was agreed on for a C-GET
            spool.discard()
            return Answer(_NOT_AUTHORISED)
        try:
            arrival = self._keep(_announced(association, request), spool, visit.association)
        except (StorageError, UnreadableInstanceError, MismatchedInstanceError) as exc:
            visit.refused += 1
            status, uid = _status_of(exc), request.sop_instance_uid
            log.warning(
                "an instance was refused",
                status=f"0x{status:04X}",
                why=str(exc),
                calling_ae=visit.association.calling_ae,
                instance=uid if is_safe_uid(uid) else "",
            )
            return Answer(status, _OUR_TROUBLE if isinstance(exc, StorageError) else str(exc))
        finally:
            spool.discard()
        visit.kept += 1
        visit.traced[arrival.new][Traced.of(arrival.header)] += 1
        return Answer(_SUCCESS)

    def _keep(self, announced: Announced, spool: Spool, association: Visited) -> Arrival:
        """Make the instance safe, and tell the index.

        Raises StorageError, UnreadableInstanceError or MismatchedInstanceError; then nothing is kept.
        """
        if not self._indexer.takes_more:  # what is acknowledged must become known
            raise StorageError("the index is not written at the moment, or far behind")
        max_bytes = self._node.max_instance_bytes
        arrival = keep(self._archive, spool, announced, max_bytes=max_bytes, clock=self._clock)
        self._indexer.arrived(association, arrival)
        return arrival


def _announced(association: Association, request: StoreRequest) -> Announced:
    return Announced(
        sop_class_uid=request.sop_class_uid,
        sop_instance_uid=request.sop_instance_uid,
        transfer_syntax=request.context.transfer_syntax[0],
        sender=association.requestor.ae_title.strip(),
    )


def _status_of(fault: Exception) -> int:
    if isinstance(fault, StorageError):
        return _OUT_OF_RESOURCES
    return _DATA_SET_IS_ANOTHER if isinstance(fault, MismatchedInstanceError) else _CANNOT_UNDERSTAND
