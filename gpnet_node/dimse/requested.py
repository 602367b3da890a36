"""A query or retrieval that a peer requested, and the way back to it."""

from dataclasses import dataclass
from typing import TypeVar

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE

from gpnet_node.audit.message import Party
from gpnet_node.audit.trail import peer

Query = C_FIND | C_GET | C_MOVE
_Query = TypeVar("_Query", bound=Query)


@dataclass(frozen=True, kw_only=True, eq=False)
class Requested:
    """One request. ``sop_class_uid`` and ``transfer_syntax`` are the presentation context's."""

    association: Association
    message: Query
    message_id: int
    context_id: int
    sop_class_uid: str
    transfer_syntax: UID

    @property
    def calling_ae(self) -> str:
        """The AE title of the peer."""
        return self.association.requestor.ae_title.strip()

    @property
    def caller(self) -> Party:
        """The peer, as the audit trail names it."""
        return peer(self.calling_ae, self.association.requestor.address)

    @property
    def is_cancelled(self) -> bool:
        """Whether the peer asked to stop (C-CANCEL), or can no longer be answered."""
        return self.message_id in self.association.dimse.cancel_req or self.is_void

    @property
    def is_void(self) -> bool:
        """Whether the association is over, or its peer wants it to be."""
        association = self.association
        over = association.acse.is_aborted() or association.acse.is_release_requested()
        return (
            over
            or association._sent_abort
            or not association.is_established
            or not association.dul.is_alive()
        )

    def respond(self, response: Query) -> None:
        """Send a response, unless nobody waits for it any longer."""
        if not self.is_void:
            self.association.dimse.send_msg(response, self.context_id)


def response_to(message: _Query) -> _Query:
    """Return an empty response to a query or retrieval."""
    response = type(message)()
    response.MessageID = message.MessageID
    response.MessageIDBeingRespondedTo = message.MessageID
    response.AffectedSOPClassUID = message.AffectedSOPClassUID
    return response
