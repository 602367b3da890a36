"""Query/Retrieve SCP: C-FIND, C-MOVE and C-GET, Patient Root and Study Root (PS3.4 C).

Who may use it is decided where contexts are negotiated (``contexts``, by the rights in ``peers.toml``).
"""

import time
from collections.abc import Mapping

from pynetdicom.dimse_primitives import C_FIND

from gpnet_node.audit.trail import Trail
from gpnet_node.config import Configuration
from gpnet_node.dimse.contexts import QUERY_MODELS
from gpnet_node.dimse.find import CANCELLED, SUCCESS, find
from gpnet_node.dimse.requested import Query, Requested, response_to
from gpnet_node.dimse.retrieve import retrieve
from gpnet_node.errors import QueryError, StorageError
from gpnet_node.log import get_logger
from gpnet_node.store.archive import Archive
from gpnet_node.store.catalogue import Catalogue

# PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4
_CLASS_NOT_SUPPORTED = 0x0122
_OUT_OF_RESOURCES = 0xA700
_IDENTIFIER_DOES_NOT_MATCH = 0xA900
_OUR_TROUBLE = "out of resources; the node's log says why"
_COMMENT_CHARACTERS = 64  # Error Comment is an LO (PS3.7 C.1)
# Of what a peer proposes (PS3.4 C.5.1.1): no relational queries, dates and times combined, fuzzy names.
_CAN = bytes([0, 1, 1, 0])

log = get_logger(__name__)


def agreed(proposed: Mapping[str, bytes]) -> dict[str, bytes]:
    """Answer SOP class extended negotiation: of each query class, what is proposed and can be done."""
    return {
        uid: bytes(min(ours, its) for ours, its in zip(_CAN, wanted, strict=False))
        for uid, wanted in proposed.items()
        if uid in QUERY_MODELS and QUERY_MODELS[uid].request is C_FIND
    }


class QueryRetrieve:
    """Answers queries and retrievals, one at a time on an association, in the association's thread."""

    def __init__(
        self, *, configuration: Configuration, catalogue: Catalogue, archive: Archive, trail: Trail
    ) -> None:
        self._configuration = configuration
        self._catalogue = catalogue
        self._archive = archive
        self._trail = trail

    def serve(self, requested: Requested) -> None:
        """Answer one request, with whatever status it deserves."""
        began = time.monotonic()
        message, calling_ae = requested.message, requested.calling_ae
        response = response_to(message)
        try:
            self._answer(requested, response)
        except QueryError as exc:
            response.Status = _IDENTIFIER_DOES_NOT_MATCH
            response.ErrorComment = str(exc)[:_COMMENT_CHARACTERS]  # type: ignore[assignment]  # not None
            log.warning("a query or retrieval was refused", why=str(exc), calling_ae=calling_ae)
        except StorageError as exc:
            response.Status = _OUT_OF_RESOURCES
            response.ErrorComment = _OUR_TROUBLE  # type: ignore[assignment]  # not None
            log.error("a query or retrieval failed", reason=str(exc), calling_ae=calling_ae)
        requested.respond(response)
        if isinstance(message, C_FIND) and self._trail.is_on:
            self._trail.queried(
                requested.caller,
                requested.sop_class_uid,
                message.Identifier.getvalue() if message.Identifier else b"",
                transfer_syntax_uid=requested.transfer_syntax,
                answered=response.Status in (SUCCESS, CANCELLED),
            )
        log.info(
            "a query or retrieval was answered",
            kind=type(message).__name__.replace("_", "-"),
            status=f"0x{response.Status:04X}",
            calling_ae=calling_ae,
            seconds=round(time.monotonic() - began, 2),
        )

    def _answer(self, requested: Requested, response: Query) -> None:
        """Do what is asked, and fill in the final response. Raises QueryError or StorageError."""
        message, sop_class = requested.message, requested.sop_class_uid
        model = QUERY_MODELS.get(sop_class)
        if (
            model is None
            or not isinstance(message, model.request)
            or message.AffectedSOPClassUID != sop_class
        ):
            response.Status = _CLASS_NOT_SUPPORTED
        elif isinstance(message, C_FIND):
            ae_title = self._configuration.node.ae_title
            response.Status = find(requested, message, catalogue=self._catalogue, retrieve_ae=ae_title)
        elif not isinstance(response, C_FIND):
            retrieve(
                requested,
                message,
                response,
                configuration=self._configuration,
                catalogue=self._catalogue,
                archive=self._archive,
                trail=self._trail,
            )
