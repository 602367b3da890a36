"""C-STORE requests and responses, against pynetdicom's reading and writing of the same."""

from io import BytesIO

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from gpnet_node.dimse.encoding import command_set, read_command_set
from gpnet_node.dimse.store_request import Answer, StoreRequest

CONTEXT = build_context(MRImageStorage, ExplicitVRLittleEndian)
CONTEXT.context_id = 5
ELEMENTS: dict[int, int | str] = {
    0x0002: str(MRImageStorage), 0x0100: 0x0001, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: "1.2.3",
}  # fmt: skip


def of_pynetdicom() -> bytes:
    """A request's command set as another program encodes it."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 7, 0
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = MRImageStorage, "1.2.3"
    primitive.DataSet = BytesIO(b"\0\0")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    return encoded


def test_a_request_is_read_as_it_was_written_by_another() -> None:
    assert StoreRequest.of(read_command_set(of_pynetdicom()), CONTEXT) == StoreRequest(
        context=CONTEXT,
        message_id=7,
        sop_class_uid=MRImageStorage,
        sop_instance_uid="1.2.3",
        has_data_set=True,
    )


@pytest.mark.parametrize("missing", [0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000])
def test_what_lacks_an_element_is_no_request(missing: int) -> None:
    given = {element: value for element, value in ELEMENTS.items() if element != missing}

    assert StoreRequest.of(read_command_set(command_set(ELEMENTS)), CONTEXT) is not None
    assert StoreRequest.of(read_command_set(command_set(given)), CONTEXT) is None


@pytest.mark.parametrize("changed", [{0x0002: "1.2.840.10008.1.1"}, {0x0100: 0x8001}, {0x0100: 0x0030}])
def test_what_asks_for_something_else_is_no_request_to_store(changed: dict[int, int | str]) -> None:
    encoded = command_set(ELEMENTS | changed)

    assert StoreRequest.of(read_command_set(encoded), CONTEXT) is None


@pytest.mark.parametrize("comment", ["", "even", "odd", "x" * 100])
def test_a_response_is_read_by_another_as_it_was_meant(comment: str) -> None:
    request = StoreRequest.of(read_command_set(of_pynetdicom()), CONTEXT)
    assert request is not None

    pdus = request.response(Answer(0xA700, comment), longest_pdu=16384)

    message = DIMSEMessage()
    single = P_DATA()
    single.presentation_data_value_list.append((pdus[10], pdus[11:]))  # behind the heads of PDU and item
    assert message.decode_msg(single)
    read = message.message_to_primitive()
    assert isinstance(read, C_STORE)
    assert pdus[10] == CONTEXT.context_id
    assert (read.MessageIDBeingRespondedTo, read.Status) == (7, 0xA700)
    assert (read.AffectedSOPClassUID, read.AffectedSOPInstanceUID) == (MRImageStorage, "1.2.3")
    assert message.command_set.get("ErrorComment", "") == comment[:64]


@pytest.mark.parametrize("damage", [lambda it: it[:-1], lambda it: it + b"\0", lambda it: b"\x08" + it[1:]])
def test_what_is_no_command_set_is_not_read_as_one(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(ValueError, match="a command set"):
        read_command_set(damage(of_pynetdicom()))
