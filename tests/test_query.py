"""C-FIND: what a station may ask, what it is answered, and what is refused, with DCMTK and pynetdicom."""

import re
import threading
from collections.abc import Iterator
from io import BytesIO

import pytest
from pydicom import DataElement, Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.dsutils import encode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from tests.answering import (
    FIND,
    GET,
    MOVE,
    PATIENT_ROOT,
    STUDY_ROOT,
    Answering,
    acceptors,
    answering,
    asking,
    cut,
    found,
    keys,
)
from tests.peers import echoscu, queryscu, wait_until
from tests.stores import arrival


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """A node with twelve studies of two series of three images."""
    with answering(tmp_path_factory.mktemp("node")) as node:
        for study in range(12):
            node.index.record(
                [
                    arrival(
                        f"1.{study}.{series}.{image}",
                        series=f"1.{study}.{series}",
                        study_uid=f"1.{study}",
                        patient_id=f"P{study}",
                        patient_name="Müller^Zoë" if study == 11 else f"Name{study}^Ann",
                        instance_number=image,
                        attributes={"StudyDate": f"202401{study + 1:02d}", "SeriesNumber": str(series)},
                    )
                    for series in range(2)
                    for image in range(3)
                ]
            )
        yield node


def test_findscu_is_answered_at_every_level_of_both_models(node: Answering) -> None:
    series = ("StudyInstanceUID=1.3", "SeriesInstanceUID")
    images = ("StudyInstanceUID=1.3", "SeriesInstanceUID=1.3.1", "SOPInstanceUID")
    asked = {
        ("-P", "PATIENT", "PatientID"): 12,
        ("-P", "STUDY", "PatientID=P3", "StudyInstanceUID"): 1,
        ("-P", "SERIES", "PatientID=P3", *series): 2,
        ("-P", "IMAGE", "PatientID=P3", *images): 3,
        ("-S", "STUDY", "StudyInstanceUID"): 12,
        ("-S", "SERIES", *series): 2,
        ("-S", "IMAGE", *images): 3,
    }

    said = {
        (model, level, *its): queryscu(
            "findscu", node.port, model, keys=[f"QueryRetrieveLevel={level}", *its]
        ).stdout
        for model, level, *its in asked
    }

    assert {what: text.count(": 0xff00: Pending") for what, text in said.items()} == asked
    assert all(": 0x0000: Success" in text for text in said.values())


def test_a_wildcard_a_range_and_a_list_are_understood_in_one_query(node: Answering) -> None:
    wanted = ["QueryRetrieveLevel=STUDY", "PatientName=name?^*", "StudyDate=20240103-20240106",
              "StudyInstanceUID=1.2\\1.3\\1.9", "NumberOfStudyRelatedInstances"]  # fmt: skip

    said = queryscu("findscu", node.port, "-S", keys=wanted).stdout

    assert re.findall(r"PN \[(Name\d\^Ann) ?\]", said.split("Association Accepted")[1]) == [
        "Name3^Ann",
        "Name2^Ann",
    ]
    assert said.count("IS [6 ]") == 2


def test_a_query_in_latin_1_is_understood_and_answered_in_utf_8(node: Answering) -> None:
    asked = keys("STUDY", SpecificCharacterSet="ISO_IR 100", PatientName="mÜLLER*")

    status, pending, (match,) = found(node.port, asked)

    assert (status, pending) == (0x0000, [0xFF00])
    assert (match.SpecificCharacterSet, match.PatientName) == ("ISO_IR 192", "Müller^Zoë")


def test_an_answer_has_what_was_asked_for_and_where_it_can_be_fetched(node: Answering) -> None:
    asked = keys("STUDY", StudyInstanceUID="1.3", PatientSex=None, InstanceAvailability=None)

    _, pending, (match,) = found(node.port, asked)

    assert pending == [0xFF00]
    assert {element.keyword: element.value for element in match} == {
        "QueryRetrieveLevel": "STUDY", "RetrieveAETitle": "GPNET", "InstanceAvailability": "ONLINE",
        "PatientSex": "", "StudyInstanceUID": "1.3",
    }  # fmt: skip


def test_keys_that_are_not_supported_are_left_out_and_the_status_says_so(node: Answering) -> None:
    asked = keys("STUDY", StudyInstanceUID="1.3", PatientComments="x", SeriesDescription=None)

    status, pending, (match,) = found(node.port, asked)

    assert (status, pending) == (0x0000, [0xFF01])
    assert "PatientComments" not in match
    assert "SeriesDescription" not in match


@pytest.mark.parametrize(
    ("root", "identifier", "comment"),
    [
        (STUDY_ROOT, keys("PATIENT"), "QueryRetrieveLevel must be one of STUDY, SERIES, IMAGE"),
        (STUDY_ROOT, keys("FRAME"), "QueryRetrieveLevel must be one of STUDY, SERIES, IMAGE"),
        (STUDY_ROOT, keys("SERIES"), "StudyInstanceUID must name one study"),
        (STUDY_ROOT, keys("SERIES", StudyInstanceUID=["1.2", "1.3"]), "StudyInstanceUID must name one study"),
        (STUDY_ROOT, keys("IMAGE", StudyInstanceUID="1.3"), "SeriesInstanceUID must name one series"),
        (PATIENT_ROOT, keys("STUDY", PatientID="P*"), "PatientID must have no wildcard"),
        (PATIENT_ROOT, keys("STUDY", StudyInstanceUID="1.3"), "PatientID must name one patient"),
        (STUDY_ROOT, keys("STUDY", StudyDate="yesterday"), "StudyDate is neither a value of DA nor a range"),
        (STUDY_ROOT, keys("STUDY", PatientName="*a" * 1000), "PatientName is longer than 1024 characters"),
    ],
)
def test_a_malformed_query_is_refused_with_a_sentence(
    node: Answering, root: str, identifier: Dataset, comment: str
) -> None:
    with asking(node.port) as association:
        ((answer, _),) = association.send_c_find(identifier, UID(root + FIND))

    assert answer.Status == 0xA900
    assert str(answer.ErrorComment).startswith(comment)


@pytest.mark.parametrize(
    "content",
    [
        b"garbage that is no data set",
        b"\x10\x00\x10\x00PN\xff\xff",
        b"\x08\x00\x52\x00IS\x02\x00x ",
        b"\0" * 7,
    ],
)
def test_bytes_that_are_no_identifier_are_refused_and_the_node_answers_on(
    node: Answering, content: bytes
) -> None:
    with asking(node.port) as association:
        answer = ask_raw(association, content)
    status, _, matches = found(node.port, keys("STUDY"))

    assert answer.Status == 0xA900
    assert (status, len(matches)) == (0x0000, 12)


def test_an_identifier_beyond_reason_is_dropped_as_it_comes(node: Answering) -> None:
    with asking(node.port) as association:
        answer = ask_raw(association, b"\x20\x00\x0d\x00UI\0\0" * (1 << 18))

    assert answer.Status == 0xA900
    assert "too long" in str(answer.ErrorComment)


def ask_raw(association: Association, content: bytes) -> C_FIND:
    """Send bytes as the identifier of a C-FIND, and return the answer."""
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused, what="the reactor pausing")
    send_raw(association, content)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert isinstance(answer, C_FIND)
    return answer


def send_raw(association: Association, content: bytes) -> None:
    (context,) = [it for it in association.accepted_contexts if it.abstract_syntax == STUDY_ROOT + FIND]
    request = C_FIND()
    request.MessageID = 7
    request.AffectedSOPClassUID = UID(STUDY_ROOT + FIND)
    request.Priority = 2
    request.Identifier = BytesIO(content)
    association.dimse.send_msg(request, context.context_id or 0)


def test_a_wildcard_bomb_is_answered_like_any_other_query(node: Answering) -> None:
    status, _, matches = found(node.port, keys("STUDY", PatientName="*a" * 400 + "?b"))

    assert (status, matches) == (0x0000, [])


@pytest.mark.parametrize("root", [PATIENT_ROOT, STUDY_ROOT])
def test_who_has_no_right_gets_no_context_for_it(node: Answering, root: str) -> None:
    def accepted(calling: str) -> set[str]:
        with asking(node.port, calling=calling) as association:
            return {str(context.abstract_syntax) for context in association.accepted_contexts}

    assert {root + FIND, root + MOVE, root + GET} <= accepted("STATION")
    assert {uid for uid in accepted("ASKER") if uid.startswith(root)} == {root + FIND}
    assert accepted("SCANNER") == set()
    assert accepted("STRANGER") == set()
    assert echoscu(node.port).returncode == 0


def test_dates_with_times_and_fuzzy_names_are_matched_where_that_was_agreed(node: Answering) -> None:
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = UID(STUDY_ROOT + FIND)
    item.service_class_application_information = b"\1\1\1\1"
    asked = keys("STUDY", PatientName="ann name3")

    with asking(node.port, items=[item]) as association:
        agreed = association.acceptor.sop_class_extended[UID(STUDY_ROOT + FIND)]
    _, _, fuzzy = found(node.port, asked, items=[item])
    _, _, plain = found(node.port, asked)

    assert agreed == b"\0\1\1\0"
    assert [str(match.PatientName) for match in fuzzy] == ["Name3^Ann"]
    assert plain == []


MANY = 20_000
LONG = ("StudyDescription", "ProtocolName", "Manufacturer", "ManufacturerModelName", "InstitutionName",
        "ContentDescription")  # fmt: skip
ALL_IMAGES = keys("IMAGE", StudyInstanceUID="1", SeriesInstanceUID="1.2", **dict.fromkeys(LONG))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """A node whose answer to one query is longer than what the network holds."""
    with answering(tmp_path_factory.mktemp("full"), network_timeout_seconds=8.0) as node:
        said = dict.fromkeys(LONG, "x" * 64)
        node.index.record([arrival(f"1.2.{n}", instance_number=n, attributes=said) for n in range(MANY)])
        yield node


def test_a_cancelled_query_ends_with_its_status(full: Answering) -> None:
    asked = ["QueryRetrieveLevel=IMAGE", "StudyInstanceUID=1", "SeriesInstanceUID=1.2", *LONG]

    said = queryscu("findscu", full.port, "-S", "--cancel", "10", keys=asked).stdout

    assert 10 <= said.count(": 0xff00: Pending") < MANY
    assert said.count(": 0xfe00: Cancel") == 1
    assert ": 0x0000: Success" not in said


def test_a_peer_that_stops_reading_is_waited_for_no_longer_than_configured(full: Answering) -> None:
    reads_on = threading.Event()

    def stall(event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            reads_on.wait(60)

    with asking(full.port, handlers=[(evt.EVT_PDU_RECV, stall)]) as association:
        send_raw(association, encode(ALL_IMAGES, True, True) or b"")
        wait_until(acceptors, what="the association beginning")
        wait_until(lambda: not acceptors(), what="the association ending")
        reads_on.set()
        association.abort()

    assert found(full.port, keys("STUDY"))[0] == 0x0000


def test_no_thread_is_left_of_a_connection_that_is_cut_in_the_middle_of_its_answers(full: Answering) -> None:
    with asking(full.port) as association:
        next(association.send_c_find(ALL_IMAGES, UID(STUDY_ROOT + FIND)))
        cut(association)
    wait_until(lambda: not acceptors(), what="the association ending")

    assert found(full.port, keys("STUDY"))[0] == 0x0000


def test_nothing_of_a_query_is_logged(node: Answering, capfd: pytest.CaptureFixture[str]) -> None:
    found(node.port, keys("STUDY", PatientName="Name3^Ann", PatientID="P3"))
    identifier = keys("STUDY")
    identifier.add(DataElement("StudyDate", "LO", "SecretDate"))
    found(node.port, identifier)

    said = "".join(capfd.readouterr())
    assert "C-FIND" in said
    assert not re.search("Name3|SecretDate", said)


def test_answers_come_in_the_syntax_that_was_agreed(node: Answering) -> None:
    asked = ["QueryRetrieveLevel=STUDY", "PatientID=P3"]

    explicit = queryscu("findscu", node.port, "-S", "-xe", keys=asked).stdout
    implicit = queryscu("findscu", node.port, "-S", "-xi", keys=asked).stdout

    assert "Accepted Transfer Syntax: =LittleEndianExplicit" in explicit
    assert "Accepted Transfer Syntax: =LittleEndianImplicit" in implicit
    assert [text.count("LO [P3]") for text in (explicit, implicit)] == [2, 2]  # in the query and the answer
