"""A C-STORE request and its answer (PS3.7 9.3.1)."""

from dataclasses import dataclass
from typing import Self

from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from gpnet_node.dimse.encoding import command_set, message_pdus

_C_STORE_RQ, _C_STORE_RSP, _NO_DATA_SET = 0x0001, 0x8001, 0x0101
_SOP_CLASS, _FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000
_LONGEST_COMMENT = 64  # Error Comment is an LO (PS3.7 C.1)


@dataclass(frozen=True)
class Answer:
    """Status of a C-STORE response, and Error Comment if any."""

    status: int
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """What a command set asks to store; that its UIDs are UIDs is not known yet."""

    context: PresentationContext
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool

    @classmethod
    def of(cls, elements: dict[int, bytes], context: PresentationContext) -> Self | None:
        """Return the request, or None where it is another, or lacks what it must have."""
        numbers = [_number(elements.get(it, b"")) for it in (_FIELD, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE)]
        field, message_id, _, kind = numbers
        sop_class, instance = (_text(elements.get(it, b"")) for it in (_SOP_CLASS, _SOP_INSTANCE))
        if field != _C_STORE_RQ or None in numbers or not (sop_class and instance):
            return None
        if not issubclass(uid_to_service_class(sop_class), StorageServiceClass):
            return None
        return cls(
            context=context,
            message_id=message_id or 0,
            sop_class_uid=sop_class,
            sop_instance_uid=instance,
            has_data_set=kind != _NO_DATA_SET,
        )

    def response(self, answer: Answer, *, longest_pdu: int) -> bytes:
        """Return the PDUs of the response."""
        comment = answer.comment[:_LONGEST_COMMENT]
        elements: dict[int, str | int] = {
            _SOP_CLASS: self.sop_class_uid,
            _FIELD: _C_STORE_RSP,
            _RESPONDED_TO: self.message_id,
            _DATA_SET_TYPE: _NO_DATA_SET,
            _STATUS: answer.status,
        }
        if comment:
            elements[_COMMENT] = comment + " " * (len(comment) % 2)
        elements[_SOP_INSTANCE] = self.sop_instance_uid
        return message_pdus(self.context.context_id or 0, command_set(elements), b"", longest=longest_pdu)


def _number(value: bytes) -> int | None:
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace")
