"""What an audit message may hold: anything that a peer says, and still XML in one line."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gpnet_node.audit import message as xml
from tests.audits import told

EVENT = xml.Event(id=xml.SECURITY_ALERT, action="E", at=datetime(2024, 1, 31, 10, 15, tzinfo=UTC))


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_whatever_a_peer_says_is_xml_in_one_line(text: str) -> None:
    content = xml.message(
        EVENT,
        [xml.participant(xml.Party(user_id=text, ae_title=text, host=text), role=xml.SOURCE)],
        [xml.study(text, {text: 1}), xml.patient(text), xml.subject(text, text)],
        source_id=text,
    )

    assert b"\n" not in content
    assert content.isascii()
    assert told(content).outcome == 0


def test_what_xml_can_hold_comes_back_and_what_it_cannot_is_replaced() -> None:
    patient = 'Müller <"&\x1b\n>'

    us = xml.participant(xml.Party(user_id="us"))
    message = told(xml.message(EVENT, [us], [xml.patient(patient)], source_id="s"))

    assert message.ids("Patient Number") == ['Müller <"&\ufffd\ufffd>']
