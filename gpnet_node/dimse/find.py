"""C-FIND SCP (PS3.4 C.4.1): matches go out one by one, as they are read."""

from io import BytesIO

from pydicom.uid import UID
from pynetdicom.dimse_messages import C_FIND_RSP
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.dsutils import encode

from gpnet_node.dimse.contexts import QUERY_MODELS
from gpnet_node.dimse.encoding import AnswerEncoder, message_pdus
from gpnet_node.dimse.identifier import Asked, read_identifier
from gpnet_node.dimse.requested import Requested, response_to
from gpnet_node.dimse.transport import send_encoded
from gpnet_node.store.attributes import UNIQUE_KEYS
from gpnet_node.store.catalogue import Catalogue

SUCCESS = 0x0000
CANCELLED = 0xFE00
_PENDING = 0xFF00
_PENDING_SOME_KEYS_UNSUPPORTED = 0xFF01
_SENT_AT_ONCE_BYTES = 1 << 14


def find(requested: Requested, message: C_FIND, *, catalogue: Catalogue, retrieve_ae: str) -> int:
    """Send a pending response for each match, and return the final status.

    Raises QueryError before anything is sent, and StorageError.
    """
    model = QUERY_MODELS[requested.sop_class_uid]
    asked = read_identifier(message.Identifier, transfer_syntax=requested.transfer_syntax, model=model)
    unsupported = catalogue.unsupported(asked.level, asked.identifier)
    status = _PENDING_SOME_KEYS_UNSUPPORTED if unsupported else _PENDING
    pending = _Pending(requested, message, status)
    agreed = requested.association.acceptor.sop_class_extended.get(UID(requested.sop_class_uid), b"")
    fuzzy, combined = agreed[2:3] == b"\1", agreed[1:2] == b"\1"  # PS3.4 C.5.1.1
    found = catalogue.matches(asked.level, asked.identifier, fuzzy=fuzzy, combined=combined)
    encoder = AnswerEncoder(
        found.attributes,
        keywords=frozenset(it.keyword for it in asked.identifier) | {UNIQUE_KEYS[asked.level]},
        constants=_constants(asked, retrieve_ae),
        implicit_vr=requested.transfer_syntax.is_implicit_VR,
    )
    for row in found.rows:
        if pending.add(encoder.encode(row)) and requested.is_cancelled:
            return CANCELLED
    pending.flush()
    return CANCELLED if requested.is_cancelled else SUCCESS


def _constants(asked: Asked, retrieve_ae: str) -> dict[str, str]:
    """Return what is said of every match: its level, and whence and how soon it can be fetched."""
    constants = {"QueryRetrieveLevel": str(asked.level), "RetrieveAETitle": retrieve_ae}
    if "InstanceAvailability" in asked.identifier:
        constants["InstanceAvailability"] = "ONLINE"
    return constants


class _Pending:
    """The pending responses to one request, sent by the dozen. All have the same command."""

    def __init__(self, requested: Requested, message: C_FIND, status: int) -> None:
        self._requested = requested
        response = response_to(message)
        response.Status = status
        response.Identifier = BytesIO(b"\0")  # the command says that there is one
        form = C_FIND_RSP()
        form.primitive_to_message(response)
        self._command = encode(form.command_set, True, True) or b""
        self._gathered: list[bytes] = []
        self._size = 0

    def add(self, identifier: bytes) -> bool:
        """Send one match, soon; return whether the peer may have said something meanwhile."""
        longest = self._requested.association.dimse.maximum_pdu_size
        pdus = message_pdus(self._requested.context_id, self._command, identifier, longest=longest)
        self._gathered.append(pdus)
        self._size += len(pdus)
        if self._size < _SENT_AT_ONCE_BYTES:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Send what was gathered."""
        if self._gathered:
            send_encoded(self._requested.association, b"".join(self._gathered))
        self._gathered, self._size = [], 0
