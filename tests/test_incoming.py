"""Messages that are none, or lack something, by hand: each ends its association, and nothing of it stays."""

import io
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from gpnet_node.config import PeerConfig
from gpnet_node.log import configure
from tests.answering import Answering, acceptors, answering
from tests.fuzz.pdu import (
    ABORT,
    ASSOCIATE_AC,
    COMMAND,
    LAST,
    NO_DATA_SET,
    P_DATA,
    RELEASE,
    RELEASE_RP,
    Context,
    associate,
    element,
    pdu,
    pdv,
    request_items,
    with_group_length,
)
from tests.peers import echoscu, wait_until

MR = Context(number=1, abstract_syntax=MRImageStorage, transfer_syntax=ExplicitVRLittleEndian)
C_ECHO, C_STORE, C_CANCEL, N_DELETE, RESPONSE = 0x0030, 0x0001, 0x0FFF, 0x0150, 0x8000
FRAGMENT = pdu(P_DATA, pdv(1, 0, b"\x08\x00\x18\x00UI\x04\x001.23" * 100))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Answering]:
    with answering(tmp_path, network_timeout_seconds=5) as node:
        yield node


def request(field: int, **elements: int | str) -> bytes:
    """The PDU of a command set; ``elements`` are written as ``x1000="1.2"``."""
    given: dict[int, int | str] = {
        0x0002: str(MRImageStorage),
        0x0100: field,
        0x0110: 1,
        0x0700: 0,
        0x0800: 1,
    }
    given |= {int(name[1:], 16): value for name, value in elements.items()}
    if 0x0003 in given:
        del given[0x0002]
    command = with_group_length(element(number, value) for number, value in sorted(given.items()))
    return pdu(P_DATA, pdv(1, COMMAND | LAST, command))


STORE = request(C_STORE, x1000="1.2.3")


def said(connection: socket.socket) -> int:
    """The type of the next PDU; 0 where the connection is closed."""
    head = connection.recv(6, socket.MSG_WAITALL)
    if len(head) < 6:
        return 0
    (length,) = struct.unpack_from(">L", head, 2)
    connection.recv(length, socket.MSG_WAITALL)
    return head[0]


def answer_to(node: Answering, sent: bytes) -> int:
    """The type of the PDU that answers what is sent on an accepted association."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=4) as connection:
        connection.sendall(associate(request_items([MR], [])))
        assert said(connection) == ASSOCIATE_AC
        connection.sendall(sent)
        return said(connection)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_class_that_is_no_uid_is_refused_and_takes_no_other_with_it(tmp_path: Path) -> None:
    console = PeerConfig(name="console", ae_title="CONSOLE", may_store=True, accept_other_classes=True)
    odd = Context(number=3, abstract_syntax="1.3.x-2", transfer_syntax=ExplicitVRLittleEndian)
    with (
        answering(tmp_path, console) as node,
        socket.create_connection(("127.0.0.1", node.port), timeout=4) as connection,
    ):
        connection.sendall(associate(request_items([MR, odd], []), calling=b"CONSOLE"))
        connection.recv(6, socket.MSG_WAITALL)
        accepted = connection.recv(4096)

    assert accepted.count(b"\x21\x00\x00\x1b\x01\x00\x00\x00") == 1
    assert b"\x03\x00\x03\x00" in accepted  # context 3: abstract syntax not supported


def test_a_uid_that_is_none_is_not_repeated_in_the_log(node: Answering) -> None:
    log = io.StringIO()
    configure(style="json", level="info", stream=log)

    assert (
        answer_to(node, request(C_STORE, x1000="Doe^John") + FRAGMENT + pdu(P_DATA, pdv(1, LAST, b"")))
        == P_DATA
    )
    assert "an instance was refused" in log.getvalue()
    assert "Doe" not in log.getvalue()


def test_a_request_for_an_association_that_cannot_be_read_is_aborted_in_a_word(node: Answering) -> None:
    log = io.StringIO()
    configure(style="json", level="info", stream=log)
    whole = associate(request_items([MR], []))
    context = whole.index(b"\x20\x00", 74)  # the type of the first presentation context item
    spoilt = whole[:context] + b"\x20\x00\xff\xff" + whole[context + 4 :]  # longer than the PDU

    for _ in range(2):
        with socket.create_connection(("127.0.0.1", node.port), timeout=4) as connection:
            connection.sendall(spoilt)
            assert said(connection) == ABORT

    (first, second) = map(json.loads, log.getvalue().splitlines())
    assert first["event"] == second["event"] == "what came is no PDU"
    wait_until(lambda: leaves_nothing(node), what="the connections gone")
    assert echoscu(node.port).returncode == 0


def leaves_nothing(node: Answering) -> bool:
    return not acceptors() and not list((node.archive.root / "tmp" / "incoming").iterdir())


@pytest.mark.parametrize(
    "sent",
    [
        pdu(P_DATA, pdv(1, COMMAND | LAST, b"no command set")),
        pdu(P_DATA, pdv(1, COMMAND | LAST, with_group_length([element(0x0100, 0x7777)]))),
        pdu(P_DATA, pdv(1, COMMAND | LAST, with_group_length([element(0x0100, C_STORE)]))),
        pdu(P_DATA, pdv(1, COMMAND | LAST, b"")),
        pdu(P_DATA, struct.pack(">LB", 1, 1)),
        FRAGMENT,
        STORE[:10] + b"\x07" + STORE[11:] + FRAGMENT,
        STORE + FRAGMENT + STORE,
        pdu(P_DATA, pdv(1, COMMAND, b"\0" * 16_000)) * 6,
    ],
    ids=[
        "bytes",
        "an unknown command",
        "no word of a data set",
        "nothing",
        "a fragment without a head",
        "a data set without a command",
        "a context that was never proposed",
        "a command within a data set",
        "a command without end",
    ],
)
def test_what_is_no_message_ends_the_association_as_aborted(node: Answering, sent: bytes) -> None:
    assert answer_to(node, sent) == ABORT

    wait_until(lambda: leaves_nothing(node), what="the association gone")
    assert echoscu(node.port).returncode == 0


@pytest.mark.parametrize("missing", ["x0002", "x0110", "x0700", "x1000"])
def test_a_request_that_lacks_what_it_must_have_is_aborted_and_its_data_set_dropped(
    node: Answering, missing: str
) -> None:
    whole: dict[str, int | str] = {"x1000": "1.2.3", missing: ""}
    last = pdu(P_DATA, pdv(1, LAST, b""))

    assert answer_to(node, request(C_STORE, **whole) + FRAGMENT + last) == ABORT
    wait_until(lambda: leaves_nothing(node), what="the data set gone")


def test_a_request_of_another_service_than_its_class_is_aborted(node: Answering) -> None:
    echo = request(C_ECHO, x0800=NO_DATA_SET)
    store = (
        request(C_STORE, x0002="1.2.840.10008.1.1", x1000="1.2.3") + FRAGMENT + pdu(P_DATA, pdv(1, LAST, b""))
    )

    delete = request(N_DELETE, x0003=str(MRImageStorage), x1001="1.2.3", x0800=NO_DATA_SET)

    assert [answer_to(node, it) for it in (echo, store, delete)] == [ABORT, ABORT, ABORT]


@pytest.mark.parametrize("field", [C_ECHO, C_STORE | RESPONSE, C_ECHO | RESPONSE, C_CANCEL])
def test_a_data_set_behind_a_message_that_has_none_is_dropped(node: Answering, field: int) -> None:
    last = pdu(P_DATA, pdv(1, LAST, b""))

    answer_to(node, request(field, x0120=1, x1000="1.2.3") + FRAGMENT + last + RELEASE)

    wait_until(lambda: leaves_nothing(node), what="the data set gone")


def test_what_stands_behind_a_release_is_dropped(node: Answering) -> None:
    last = pdu(P_DATA, pdv(1, LAST, b""))

    answer_to(node, (STORE + FRAGMENT + last) * 20 + RELEASE)

    wait_until(lambda: leaves_nothing(node), what="the data sets gone")


def test_cancels_of_nothing_are_let_pass_however_many(node: Answering) -> None:
    cancels = b"".join(request(C_CANCEL, x0120=number, x0800=NO_DATA_SET) for number in range(30))

    assert answer_to(node, cancels + RELEASE) == RELEASE_RP
