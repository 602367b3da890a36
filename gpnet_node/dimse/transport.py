"""pynetdicom's acceptor with our socket and our reading of messages, by its own extension points.

Six things differ from what pynetdicom does by itself: PDUs are read in as few calls as the network allows,
neither waited for nor read beyond reason; the data set of a C-STORE goes into a file instead of memory, and
the thread that reads it answers it; what is sent waits for its turn in a queue of bounded length; queries and
retrievals are answered by our own code; who connects and does not say who it is takes no place from others.
"""

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, DimseServiceType
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.service_class import StorageServiceClass, VerificationServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from gpnet_node.dimse.bounded_socket import BoundedSocket
from gpnet_node.dimse.incoming import (
    DATA_TRANSFER,
    OpenSpool,
    SpoolingDimse,
    Store,
    decode_pdu,
    read_pdus,
)
from gpnet_node.dimse.lobby import Lobby
from gpnet_node.dimse.requested import Query, Requested
from gpnet_node.errors import ConfigurationError, StorageError
from gpnet_node.log import BugLine, get_logger
from gpnet_node.store.versions import UNREADABLE

_LOOK_SECONDS = 0.1  # for the end of the thread that sends to be noticed
_BACKLOG = 128
_WAITING_MESSAGES = 64  # to be sent; then what comes in is looked at: a C-CANCEL, say

_REQUEST_OF = {StorageServiceClass: C_STORE, VerificationServiceClass: C_ECHO}
_NONSENSE = (IndexError, *UNREADABLE)

Serve = Callable[[Requested], None]
Secure = Callable[[socket.socket], socket.socket]

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    """PDUs of data that are encoded already, and go out as they are."""

    pdus: bytes


def send_encoded(association: Association, pdus: bytes) -> None:
    """Send whole messages that are PDUs already, behind what waits to be sent."""
    association.dul.to_provider_queue.put(_Encoded(pdus=pdus))  # type: ignore[arg-type]  # Outgoing takes it


class Outgoing(queue.Queue[object]):
    """What waits to be sent. Who adds data where much waits already, waits until all of it is gone.

    So memory is bounded where a peer reads slowly, and the loop that sends comes to look at what it says.
    ``alive`` tells whether anybody still sends.
    """

    def __init__(self, alive: Callable[[], bool]) -> None:
        super().__init__()
        self._alive = alive
        self._rope, self.bell = socket.socketpair()
        self._rope.setblocking(False)
        self._gone = threading.Condition(self.mutex)

    def put(self, item: object, block: bool = True, timeout: float | None = None) -> None:
        """Add a primitive; only data waits, an abort does not."""
        if isinstance(item, P_DATA | _Encoded) and self.qsize() >= _WAITING_MESSAGES:
            with self._gone:
                while self._qsize() and self._alive():
                    self._gone.wait(_LOOK_SECONDS)
        super().put(item, block, timeout)
        with contextlib.suppress(OSError):  # rung often enough already
            self._rope.send(b"\0")

    def hang_up(self) -> None:
        """Nobody listens for the bell any more."""
        self._rope.close()
        self.bell.close()

    def _get(self) -> object:
        item = super()._get()
        if not self._qsize():
            self._gone.notify_all()
        return item


def _send_encoded(dul: DULServiceProvider) -> bool:
    """Send what waits encoded, else look for primitives as pynetdicom does; whether there was anything.

    What still waits when the association is no longer one to transfer data on is dropped; an event, such as
    that the connection broke, comes first.
    """
    outgoing, found = dul.to_provider_queue, False
    while dul.event_queue.empty() and outgoing.queue and isinstance(item := outgoing.queue[0], _Encoded):
        outgoing.get(block=False)
        if dul.socket is not None and dul.state_machine.current_state == DATA_TRANSFER:
            dul.socket.send(item.pdus)
        found = True
    return found or DULServiceProvider._process_recv_primitive(dul)


def _look(dul: DULServiceProvider, dimse: SpoolingDimse) -> bool:
    """Look for what waits to be sent, and wake who waits for a message where the association is to end."""
    if dul.to_user_queue.qsize():
        dimse.wake()
    return _send_encoded(dul)


def _run(dul: DULServiceProvider, afterwards: Sequence[Callable[[], None]]) -> None:
    """Do as pynetdicom does, and then what is to be done when nobody listens any more.

    PDUs that it takes apart without a doubt may lack what they must have, or come when none may: then the
    connection is closed.
    """
    try:
        DULServiceProvider.run(dul)
    except (InvalidEventError, queue.Empty, *_NONSENSE) as exc:
        log.warning("PDUs make no sense", host=dul.assoc.requestor.address, reason=type(exc).__name__)
    finally:
        if dul.socket is not None:
            dul.socket.close()
        for do in afterwards:
            do()


def _run_association(association: Association) -> None:
    """Do as pynetdicom does; an association that it cannot make sense of is aborted."""
    try:
        Association.run(association)
    except _NONSENSE as exc:
        host = association.requestor.address
        log.warning("an association makes no sense", host=host, reason=type(exc).__name__)
        association.abort()


def _serve_request(
    serve: Serve, association: Association, message: DimseServiceType, context_id: int
) -> None:
    """Answer a query or retrieval with ``serve``, anything else as pynetdicom does.

    A bug in it ends the association and its thread, and nothing else.
    """
    context = association._accepted_cx.get(context_id)
    if context is None or not isinstance(message, Query) or message.MessageID is None:
        _serve_other(association, message, context_id)
        return
    requested = Requested(
        association=association,
        message=message,
        message_id=message.MessageID,
        context_id=context_id,
        sop_class_uid=str(context.abstract_syntax),
        transfer_syntax=context.transfer_syntax[0],
    )
    association.dimse.cancel_req = {}
    association._is_paused = True  # pynetdicom's word for: this thread may send requests of its own
    served = False
    try:
        with BugLine():
            serve(requested)
        served = True
    finally:
        association._is_paused = False
        if not served:
            association.abort(block=False)


def _is_of_its_class(message: DimseServiceType) -> bool:
    """Whether the request is one of its SOP class's service, where pynetdicom does not ask."""
    named = (getattr(message, it, None) for it in ("AffectedSOPClassUID", "RequestedSOPClassUID"))
    service = uid_to_service_class(next(filter(None, named), ""))
    return isinstance(message, _REQUEST_OF.get(service, object))


def _serve_other(association: Association, message: DimseServiceType, context_id: int) -> None:
    """Do as pynetdicom does; but a request that lacks what it must have gets an abort, not silence."""
    is_request = message.MessageIDBeingRespondedTo is None
    if is_request and not (message.is_valid_request and _is_of_its_class(message)):
        calling_ae = association.requestor.ae_title.strip()
        log.warning("a request lacks what it must have", calling_ae=calling_ae)
        association.abort()
    else:
        Association._serve_request(association, message, context_id)


def _reason(exc: OSError | ConfigurationError) -> str:
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return exc.reason.replace("_", " ").lower()
    return str(exc) if isinstance(exc, ConfigurationError) else exc.strerror or "time-out"


def request_handler(
    open_spool: OpenSpool, store: Store, serve: Serve, lobby: Lobby, secure: Secure | None = None
) -> type[RequestHandler]:
    """Return the handler of new connections for pynetdicom's server, which wants a class.

    ``secure`` agrees on TLS, in the connection's own thread, so that nobody waits for a slow peer.
    """

    class Handler(RequestHandler):
        def handle(self) -> None:
            host = self.client_address[0]
            if not lobby.enter(self, host):
                log.warning("a connection was closed: too many of its host say nothing", host=host)
                self.request.close()
                return
            try:
                if secure is not None:
                    self.request = secure(self.request)
            except (OSError, ConfigurationError) as exc:
                log.warning("a connection has no TLS that counts", host=host, reason=_reason(exc))
                lobby.leave(self)
                self.request.close()
                return
            super().handle()

        def _create_association(self) -> Association:
            association = super()._create_association()
            association.dul.event_queue.get_nowait()  # the plain socket's announcement; ours makes its own
            outgoing = Outgoing(association.dul.is_alive)
            bounded = BoundedSocket(association, self.request, outgoing.bell)
            association.dul.socket = bounded
            association.dul._run_loop_delay = 0  # BoundedSocket.ready waits already
            association.dul._read_pdu_data = partial(read_pdus, association.dul)  # type: ignore[method-assign]
            association.dul._decode_pdu = partial(decode_pdu, association.dul)  # type: ignore[method-assign]
            association.dimse = dimse = SpoolingDimse(association, open_spool, store)
            leave = partial(lobby.leave, self)
            requests: queue.Queue[Any] = association.dul.to_user_queue
            give_up = partial(requests.put, None)  # for who still waits for one
            run = partial(_run, association.dul, (outgoing.hang_up, leave, give_up))
            association.dul.run = run  # type: ignore[method-assign]
            association.dul.to_provider_queue = outgoing  # type: ignore[assignment]
            look = partial(_look, association.dul, dimse)
            association.dul._process_recv_primitive = look  # type: ignore[method-assign]
            association.run = partial(_run_association, association)  # type: ignore[method-assign]
            serve_request = partial(_serve_request, serve, association)
            association._serve_request = serve_request  # type: ignore[method-assign]
            for introduced in (leave, bounded.introduced):
                association.bind(evt.EVT_REQUESTED, _without_event, [introduced])
            association.bind(evt.EVT_ACCEPTED, _without_event, [dimse.accepted.set])
            return association

    return Handler


def _without_event(_: evt.Event, do: Callable[[], None]) -> None:
    do()


def new_listener(host: str) -> socket.socket:
    """Return a socket that has no address yet.

    Processes may share it: accepting never waits, since another may have been quicker.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    return listener


def bind(listener: socket.socket, host: str, port: int) -> int:
    """Give the socket its address, and return the port; connections are refused until a server listens.

    Raises StorageError if the address cannot be had.
    """
    try:
        listener.bind((host, port))
    except OSError as exc:
        raise StorageError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    bound: int = listener.getsockname()[1]
    return bound


def server_on(listener: socket.socket) -> type[ThreadedAssociationServer]:
    """Return pynetdicom's server, which binds a socket of its own, for one that is there."""

    class Server(ThreadedAssociationServer):
        def server_bind(self) -> None:
            if self.socket is not None:
                self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()

        def server_activate(self) -> None:
            listener.listen(_BACKLOG)  # pynetdicom's own is 5

    return Server
