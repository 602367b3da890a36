"""C-GET and C-MOVE: what is sent, in which syntax, what fails alone, and counts that are true."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import build_context, build_role, evt
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from gpnet_node.config import PeerConfig
from tests.answering import (
    GET,
    MOVE,
    PATIENT_ROOT,
    STUDY_ROOT,
    Answering,
    acceptors,
    answering,
    asking,
    cut,
    keys,
)
from tests.factories import enhanced_mr, mr_series, uid_of
from tests.peers import data_set_bytes, dcmtk_storescp, free_port, queryscu, wait_until

MR = (MRImageStorage, ExplicitVRLittleEndian)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Answering]:
    with answering(tmp_path / "node") as node:
        yield node


def study_of(path: Path) -> Dataset:
    return keys("STUDY", StudyInstanceUID=dcmread(path, stop_before_pixels=True).StudyInstanceUID)


class Answers:
    """What a C-GET or C-MOVE was answered."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Dataset]] = []  # syntax and data set of each C-STORE
        self.responses: list[
            tuple[int, tuple[int, ...]]
        ] = []  # status; completed, failed, warning, remaining
        self.failed: list[str] = []

    def note(self, status: Dataset, identifier: Dataset | None) -> None:
        names = ("Completed", "Failed", "Warning", "Remaining")
        counts = tuple(int(status.get(f"NumberOf{name}Suboperations", None) or 0) for name in names)
        self.responses.append((int(status.Status), counts))
        listed = identifier.get("FailedSOPInstanceUIDList") if identifier else None
        self.failed = [] if listed is None else [listed] if isinstance(listed, str) else list(listed)


def got(
    port: int,
    identifier: Dataset,
    *taken: tuple[str, str],
    root: str = STUDY_ROOT,
    answer: int = 0x0000,
) -> Answers:
    """Fetch by C-GET, taking these classes in these syntaxes, and answering each C-STORE with ``answer``."""
    answers = Answers()

    def store(event: evt.Event) -> int:
        data_set = event.dataset
        answers.received.append((str(event.context.transfer_syntax), data_set))
        return answer

    contexts = [build_context(UID(sop_class), UID(syntax)) for sop_class, syntax in taken]
    with asking(port, *contexts, items=roles(contexts), handlers=[(evt.EVT_C_STORE, store)]) as association:
        for status, failed in association.send_c_get(identifier, UID(root + GET)):
            answers.note(status, failed)
    return answers


def roles(contexts: list[PresentationContext]) -> list[SCP_SCU_RoleSelectionNegotiation]:
    return [build_role(uid, scp_role=True) for uid in {it.abstract_syntax for it in contexts} if uid]


def moved(port: int, identifier: Dataset, destination: str, *, root: str = STUDY_ROOT) -> Answers:
    answers = Answers()
    with asking(port) as association:
        for status, failed in association.send_c_move(identifier, destination, UID(root + MOVE)):
            answers.note(status, failed)
    return answers


def test_getscu_fetches_a_study_as_it_was_received(node: Answering, tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=4)
    node.hold(sent)
    folder = tmp_path / "got"
    folder.mkdir()
    study = study_of(sent[0]).StudyInstanceUID

    said = queryscu(
        "getscu",
        node.port,
        "-S",
        "-od",
        str(folder),
        keys=["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"],
    ).stdout

    assert "Number of Completed Suboperations : 4" in said
    assert "Number of Failed Suboperations    : 0" in said
    assert sorted(map(data_set_bytes, folder.iterdir())) == sorted(map(data_set_bytes, sent))


@pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES", "IMAGE"])
@pytest.mark.parametrize("root", [PATIENT_ROOT, STUDY_ROOT])
def test_each_level_of_both_models_sends_what_its_unique_keys_name(
    node: Answering, tmp_path: Path, root: str, level: str
) -> None:
    series = [mr_series(tmp_path / name, series=name, slices=3) for name in ("a", "b")]
    for paths in series:
        node.hold(paths)
    header = dcmread(series[0][0], stop_before_pixels=True)
    wanted = {"PATIENT": 6, "STUDY": 6, "SERIES": 3, "IMAGE": 2}
    its: dict[str, object] = {"PatientID": "P1"} if root == PATIENT_ROOT else {}
    if level != "PATIENT":
        its |= {"StudyInstanceUID": header.StudyInstanceUID}
    if level in ("SERIES", "IMAGE"):
        its |= {"SeriesInstanceUID": header.SeriesInstanceUID}
    if level == "IMAGE":
        its |= {"SOPInstanceUID": [uid_of(path) for path in series[0][:2]]}
    if (root, level) == (STUDY_ROOT, "PATIENT"):
        assert got(node.port, keys(level, PatientID="P1"), MR, root=root).responses[-1][0] == 0xA900
        return

    answers = got(node.port, keys(level, **its), MR, root=root)

    assert answers.responses[-1] == (0x0000, (wanted[level], 0, 0, 0))
    assert len(answers.received) == wanted[level]


def test_the_counts_of_every_response_are_true(node: Answering, tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=3)
    node.hold(sent)

    answers = got(node.port, study_of(sent[0]), MR)

    assert answers.responses == [(0xFF00, (1, 0, 0, 2)), (0xFF00, (2, 0, 0, 1)), (0x0000, (3, 0, 0, 0))]


def test_a_class_that_the_peer_does_not_take_fails_alone_and_is_named(
    node: Answering, tmp_path: Path
) -> None:
    sent = mr_series(tmp_path / "sent", slices=3)
    enhanced = enhanced_mr(tmp_path / "enhanced", series="2")
    node.hold([*sent, enhanced])

    answers = got(node.port, study_of(sent[0]), MR)

    assert answers.responses[-1] == (0xB000, (3, 1, 0, 0))
    assert answers.failed == [uid_of(enhanced)]


def test_where_nothing_can_be_sent_the_retrieval_fails_and_names_all(node: Answering, tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=3)
    node.hold(sent)

    answers = got(node.port, study_of(sent[0]), (EnhancedMRImageStorage, ExplicitVRLittleEndian))

    assert answers.responses[-1] == (0xA702, (0, 3, 0, 0))
    assert sorted(answers.failed) == sorted(map(uid_of, sent))


@pytest.mark.parametrize(("answer", "counts"), [(0xB000, (0, 0, 2, 0)), (0xA700, (0, 2, 0, 0))])
def test_what_the_peer_answers_to_each_instance_is_counted(
    node: Answering, tmp_path: Path, answer: int, counts: tuple[int, ...]
) -> None:
    sent = mr_series(tmp_path / "sent", slices=2)
    node.hold(sent)

    answers = got(node.port, study_of(sent[0]), MR, answer=answer)

    assert answers.responses[-1][1] == counts
    assert answers.responses[-1][0] == (0xB000 if answer == 0xB000 else 0xA702)


@pytest.mark.parametrize(
    "stored", [JPEG2000Lossless, JPEGLSLossless, RLELossless, ExplicitVRBigEndian, ImplicitVRLittleEndian]
)
@pytest.mark.parametrize("taken", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_instance_is_decoded_for_a_peer_that_does_not_take_it_as_it_is_stored(
    node: Answering, tmp_path: Path, stored: str, taken: str
) -> None:
    (sent,) = mr_series(tmp_path / "sent", slices=1, rows=64, columns=64, transfer_syntax=stored)
    node.hold([sent])

    answers = got(node.port, study_of(sent), (MRImageStorage, taken))

    ((syntax, data_set),) = answers.received
    assert syntax == taken
    (plain,) = mr_series(tmp_path / "plain", slices=1, rows=64, columns=64)
    assert bytes(data_set.PixelData) == bytes(dcmread(plain).PixelData)
    assert data_set.PatientName == "Example^Person"


def test_an_instance_goes_out_compressed_to_a_peer_that_takes_it_so(node: Answering, tmp_path: Path) -> None:
    (sent,) = mr_series(tmp_path / "sent", slices=1, rows=64, columns=64, transfer_syntax=JPEG2000Lossless)
    node.hold([sent])

    answers = got(node.port, study_of(sent), MR, (MRImageStorage, JPEG2000Lossless))

    assert [syntax for syntax, _ in answers.received] == [JPEG2000Lossless]


def test_a_file_that_is_damaged_or_gone_fails_alone(node: Answering, tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=4, transfer_syntax=RLELossless)
    node.hold(sent)
    held = node.catalogue.held(patient_id="P1")
    (node.archive.root / held[0].path).unlink()
    path = node.archive.root / held[1].path
    path.write_bytes(path.read_bytes()[:-200])

    answers = got(node.port, study_of(sent[0]), MR)

    assert answers.responses[-1] == (0xB000, (2, 2, 0, 0))
    assert answers.failed == [held[0].sop_instance_uid, held[1].sop_instance_uid]


def test_a_cancelled_retrieval_says_how_much_is_left(node: Answering, tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=8)
    node.hold(sent)
    context = build_context(*MR)
    answers = Answers()
    with asking(
        node.port, context, items=roles([context]), handlers=[(evt.EVT_C_STORE, lambda event: 0x0000)]
    ) as association:
        for answer, failed in association.send_c_get(study_of(sent[0]), UID(STUDY_ROOT + GET), msg_id=5):
            answers.note(answer, failed)
            if len(answers.responses) == 2:
                association.send_c_cancel(5, query_model=UID(STUDY_ROOT + GET))

    status, (completed, failed_count, _, remaining) = answers.responses[-1]
    assert status == 0xFE00
    assert completed + remaining == 8
    assert remaining > 0
    assert failed_count == 0


def test_an_association_dropped_in_the_middle_of_a_c_get_leaves_nothing(
    node: Answering, tmp_path: Path
) -> None:
    sent = mr_series(tmp_path / "sent", slices=8)
    node.hold(sent)
    context = build_context(*MR)

    def leave(event: evt.Event) -> int:
        cut(event.assoc)
        return 0x0000

    with asking(
        node.port, context, items=roles([context]), handlers=[(evt.EVT_C_STORE, leave)]
    ) as association:
        next(association.send_c_get(study_of(sent[0]), UID(STUDY_ROOT + GET)))
    wait_until(lambda: not acceptors(), what="the association ending")

    assert got(node.port, study_of(sent[0]), MR).responses[-1] == (0x0000, (8, 0, 0, 0))


def test_who_may_only_fetch_cannot_store(node: Answering, tmp_path: Path) -> None:
    (sent,) = mr_series(tmp_path / "sent", slices=1)
    context = build_context(*MR)

    with asking(node.port, context) as association:
        plain = {str(it.abstract_syntax) for it in association.accepted_contexts}
    with asking(node.port, context, items=roles([context])) as association:
        for accepted in association.accepted_contexts:
            accepted._as_scu = True  # it does not keep to what was agreed
        answer = association.send_c_store(sent)

    assert MRImageStorage not in plain
    assert answer.Status == 0x0124
    assert list(node.archive.instances()) == []


def test_movescu_has_a_study_sent_to_a_third_party(tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=4)
    with dcmtk_storescp(tmp_path / "scp") as scp:
        third = PeerConfig(name="third", ae_title="THIRD", host="127.0.0.1", port=scp.port)
        with answering(tmp_path / "node", third) as node:
            node.hold(sent)
            study = study_of(sent[0]).StudyInstanceUID

            said = queryscu(
                "movescu", node.port, "-S", "-aem", "THIRD",
                keys=["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"],
            ).stdout  # fmt: skip

        assert "Completed Suboperations       : 4" in said
        assert said.count(": 0xff00: Pending") == 3
        assert said.count(": 0x0000: Success: Sub-operations complete") == 1
        assert sorted(map(data_set_bytes, scp.files())) == sorted(map(data_set_bytes, sent))


def test_a_destination_that_does_not_take_a_class_or_a_syntax_gets_the_rest(tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=2, rows=64, columns=64, transfer_syntax=JPEG2000Lossless)
    enhanced = enhanced_mr(tmp_path / "enhanced", series="2")
    profile = tmp_path / "only-mr.cfg"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Plain]\nTransferSyntax1 = LittleEndianExplicit\n"
        "[[PresentationContexts]]\n[MR]\nPresentationContext1 = MRImageStorage\\Plain\n"
        "[[Profiles]]\n[Only]\nPresentationContexts = MR\n"
    )
    with dcmtk_storescp(tmp_path / "scp", "-xf", str(profile), "Only") as scp:
        third = PeerConfig(name="third", ae_title="THIRD", host="127.0.0.1", port=scp.port)
        with answering(tmp_path / "node", third) as node:
            node.hold([*sent, enhanced])

            answers = moved(node.port, study_of(sent[0]), "THIRD")

        assert answers.responses[-1] == (0xB000, (2, 1, 0, 0))
        assert answers.failed == [uid_of(enhanced)]
        assert [dcmread(path).file_meta.TransferSyntaxUID for path in scp.files()] == [
            ExplicitVRLittleEndian
        ] * 2


def test_a_study_of_more_classes_than_one_association_can_propose_is_sent_on_several(tmp_path: Path) -> None:
    with dcmtk_storescp(tmp_path / "scp", "-pm") as scp:
        third = PeerConfig(name="third", ae_title="THIRD", host="127.0.0.1", port=scp.port)
        with answering(tmp_path / "node", third) as node:
            paths = [
                path
                for n in range(66)
                for path in mr_series(
                    tmp_path / str(n), slices=1, rows=2, columns=2, SOPClassUID=f"1.2.3.{n}"
                )
            ]
            node.hold(paths)

            answers = moved(node.port, study_of(paths[0]), "THIRD")

        assert answers.responses[-1] == (0x0000, (66, 0, 0, 0))
        assert len(scp.files()) == 66


def test_a_destination_that_is_not_a_peer_is_refused(node: Answering, tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=2)
    node.hold(sent)

    assert moved(node.port, study_of(sent[0]), "NOBODY").responses == [(0xA801, (0, 0, 0, 0))]
    assert moved(node.port, study_of(sent[0]), "STATION").responses == [(0xA801, (0, 0, 0, 0))]  # has no port


def test_a_destination_that_cannot_be_reached_fails_all(tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=2)
    away = PeerConfig(name="away", ae_title="AWAY", host="127.0.0.1", port=free_port())
    with answering(tmp_path / "node", away) as node:
        node.hold(sent)

        answers = moved(node.port, study_of(sent[0]), "AWAY")

    assert answers.responses[-1] == (0xA702, (0, 2, 0, 0))
    assert sorted(answers.failed) == sorted(map(uid_of, sent))


@pytest.mark.parametrize(
    "identifier",
    [
        keys("STUDY"),
        keys("STUDY", StudyInstanceUID="*"),
        keys("SERIES", SeriesInstanceUID="1.2"),
        keys("PATIENT", PatientID=["P1", "P2"]),
    ],
)
def test_a_retrieval_that_does_not_say_what_is_meant_is_refused(node: Answering, identifier: Dataset) -> None:
    assert got(node.port, identifier, MR, root=PATIENT_ROOT).responses[-1][0] == 0xA900
    assert moved(node.port, identifier, "NOBODY", root=PATIENT_ROOT).responses[-1][0] == 0xA900


def test_a_retrieval_of_what_is_not_here_is_complete_at_once(node: Answering) -> None:
    assert got(node.port, keys("STUDY", StudyInstanceUID="9.9"), MR).responses == [(0x0000, (0, 0, 0, 0))]
