"""Encoded answers, compared with what pydicom writes and reads."""

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_GET_RSP
from pynetdicom.dimse_primitives import C_GET
from pynetdicom.dsutils import encode

from gpnet_node.dimse.encoding import AnswerEncoder, command_set, message_pdus
from gpnet_node.store.answers import data_set_of
from gpnet_node.store.attributes import ATTRIBUTES, Level

KEYWORDS = ("SOPInstanceUID", "ImageType", "StudyDate", "PatientName", "StudyID", "InstanceNumber", "Rows")
SHOWN = tuple(sorted((ATTRIBUTES[keyword] for keyword in KEYWORDS), key=lambda it: it.tag))
ROW = {
    "SOPInstanceUID": "1.2.3", "ImageType": "ORIGINAL\\PRIMARY", "StudyDate": "20240131",
    "PatientName": "Doe^John", "StudyID": "", "InstanceNumber": "7", "Rows": "512",
}  # fmt: skip


def encoder(*, implicit_vr: bool) -> AnswerEncoder:
    return AnswerEncoder(
        SHOWN,
        keywords=frozenset(KEYWORDS),
        constants={"QueryRetrieveLevel": "IMAGE", "InstanceAvailability": "ONLINE"},
        implicit_vr=implicit_vr,
    )


@pytest.mark.parametrize("implicit_vr", [True, False])
@pytest.mark.parametrize("name", ["Doe^John", "Müller^Zoë=山田^太郎", ""])
def test_an_answer_is_encoded_as_pydicom_encodes_it(implicit_vr: bool, name: str) -> None:
    row = [{**ROW, "PatientName": name}[it.keyword] for it in SHOWN]

    encoded = encoder(implicit_vr=implicit_vr).encode(row)

    assert encoded == encode(data_set_of(Level.IMAGE, SHOWN, row), implicit_vr, True)


def test_only_what_was_asked_for_is_in_an_answer() -> None:
    one = AnswerEncoder(SHOWN, keywords=frozenset({"Rows"}), constants={}, implicit_vr=False)

    answer = read_dataset(BytesIO(one.encode([ROW[it.keyword] for it in SHOWN])), False, True)

    assert [element.keyword for element in answer] == ["Rows"]


def test_a_command_set_is_encoded_as_pynetdicom_encodes_it() -> None:
    response = C_GET()
    response.MessageIDBeingRespondedTo = 7
    response.AffectedSOPClassUID = UID("1.2.840.10008.5.1.4.1.2.2.3")
    response.Status = 0xFF00
    response.NumberOfRemainingSuboperations = 3
    message = C_GET_RSP()
    message.primitive_to_message(response)

    encoded = command_set(
        {
            0x0002: "1.2.840.10008.5.1.4.1.2.2.3",
            0x0100: 0x8010,
            0x0120: 7,
            0x0800: 0x0101,
            0x0900: 0xFF00,
            0x1020: 3,
        }
    )

    assert encoded == encode(message.command_set, True, True)


@given(
    command=st.binary(min_size=1, max_size=40),
    data=st.binary(min_size=1, max_size=200),
    longest=st.just(0) | st.integers(8, 64),
)
def test_the_fragments_of_a_message_are_its_command_and_then_its_data(
    command: bytes, data: bytes, longest: int
) -> None:
    pdus = message_pdus(3, command, data, longest=longest)

    parts = {1: b"", 0: b""}
    controls = []
    while pdus:
        kind, length = struct.unpack_from(">BxL", pdus)
        items, pdus = pdus[6 : 6 + length], pdus[6 + length :]
        assert kind == 4
        assert not longest or length <= longest
        while items:
            size, context_id, control = struct.unpack_from(">LBB", items)
            assert context_id == 3
            parts[control & 1] += items[6 : 4 + size]
            controls.append(control)
            items = items[4 + size :]
    assert parts == {1: command, 0: data}
    assert controls == sorted(controls, key=lambda control: (control & 1 == 0, control & 2))
    assert sum(control & 2 == 2 for control in controls) == 2
