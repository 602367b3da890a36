"""The audit trail of whole nodes: who did what with whose images, as DCMTK and HTTP clients have it."""

import json
import socket
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filereader import read_dataset
from typer.testing import CliRunner

from gpnet_node.audit_config import AuditConfig
from gpnet_node.cli import app
from gpnet_node.config import PeerConfig
from gpnet_node.parts import Role
from gpnet_node.store.archive import instance_path
from gpnet_node.store.states import JobState
from gpnet_node.web_config import WebConfig
from tests.answering import answering
from tests.audits import Told, summary, told, told_in
from tests.certificates import certificate
from tests.factories import mr_series, uid_of
from tests.nodes import configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import dcmtk_storescp, echoscu, queryscu, storescu, wait_until
from tests.test_tls import settings
from tests.web import STOW_HEADERS, ask, stow_body

MR = "1.2.840.10008.5.1.4.1.1.4"
RECEIVED, BEGINS = "DICOM Instances Transferred", "Begin Transferring DICOM Instances"
STUDY, PATIENT = "Study Instance UID", "Patient Number"
SECRETS: dict[str, Any] = {"PatientID": "SECRET-4711", "PatientName": "Geheim^Gerda"}


def audit(folder: Path) -> AuditConfig:
    return AuditConfig(file=folder / "audit.log")


def until(path: Path, *events: str, count: int = 1) -> Sequence[Told]:
    """Wait for so many messages of these events."""
    return wait_until(
        lambda: found if len(found := told_in(path, *events)) >= count else (), what=f"{count} of {events}"
    )


def of_study(path: Path) -> list[str]:
    return ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study_of(path)}"]


def study_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)


# -- DIMSE ---------------------------------------------------------------------------------------------------


def test_what_a_scanner_sent_is_one_message_a_study_with_patient_and_counts(tmp_path: Path) -> None:
    first = mr_series(tmp_path / "first", slices=3, **SECRETS)
    second = mr_series(tmp_path / "second", slices=2, series="2", StudyInstanceUID="1.2.3.4", PatientID="P2")
    with answering(tmp_path, audit=audit(tmp_path)) as node:
        assert storescu(node.port, [*first, *second]).returncode == 0
        messages = until(tmp_path / "audit.log", RECEIVED, count=2)
        assert storescu(node.port, first).returncode == 0  # once more
        again = until(tmp_path / "audit.log", RECEIVED, count=3)[2]

    assert summary(messages) == [(RECEIVED, "C", 0, "AETITLES=SCANNER")] * 2
    assert [(it.ids(STUDY), it.ids(PATIENT), it.counts()) for it in messages] == [
        ([study_of(first[0])], ["SECRET-4711"], {MR: 3}),
        (["1.2.3.4"], ["P2"], {MR: 2}),
    ]
    assert messages[0].participants() == {
        "Source Role ID": ("AETITLES=SCANNER", "127.0.0.1"),
        "Destination Role ID": ("AETITLES=GPNET", socket.gethostname()),
    }
    assert (again.action, again.counts()) == ("R", {MR: 3})


def test_a_query_is_told_as_it_came(tmp_path: Path) -> None:
    with answering(tmp_path, audit=audit(tmp_path)) as node:
        keys = ["QueryRetrieveLevel=STUDY", "PatientName=GEHEIM*", "StudyInstanceUID"]
        queryscu("findscu", node.port, "-S", keys=keys)
        queryscu("findscu", node.port, "-S", keys=["QueryRetrieveLevel=NONSENSE"])
        found, refused = until(tmp_path / "audit.log", "Query", count=2)

    assert summary([found, refused]) == [
        ("Query", "E", 0, "AETITLES=STATION"),
        ("Query", "E", 8, "AETITLES=STATION"),
    ]
    assert found.ids("SOP Class UID") == ["1.2.840.10008.5.1.4.1.2.2.1"]
    implicit = found.detail("TransferSyntax") == "1.2.840.10008.1.2"
    asked = read_dataset(BytesIO(found.query), implicit, True)
    assert asked.PatientName == "GEHEIM*"


def test_who_moves_images_where_is_told_before_and_after(tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=3, **SECRETS)
    with dcmtk_storescp(tmp_path / "scp") as scp:
        there = PeerConfig(name="pacs", ae_title="PACS", host="127.0.0.1", port=scp.port)
        with answering(tmp_path, there, audit=audit(tmp_path)) as node:
            node.hold(sent)
            queryscu("movescu", node.port, "-S", "-aem", "PACS", keys=of_study(sent[0]))
            (begins,) = until(tmp_path / "audit.log", BEGINS)
            (ends,) = until(tmp_path / "audit.log", RECEIVED)

    assert summary([begins, ends]) == [
        (BEGINS, "E", 0, "AETITLES=STATION"),
        (RECEIVED, "R", 0, "AETITLES=STATION"),
    ]
    for message in (begins, ends):
        assert message.counts() == {MR: 3}
        assert message.ids(PATIENT) == ["SECRET-4711"]
        assert message.participants()["Destination Role ID"] == ("AETITLES=PACS", "127.0.0.1")


def test_what_could_not_be_sent_is_told_apart(tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=3)
    with answering(tmp_path, audit=audit(tmp_path)) as node:
        node.hold(sent)
        (node.archive.root / instance_path(uid_of(sent[1]), 1)).write_bytes(b"")
        queryscu("getscu", node.port, "-S", "-od", str(tmp_path), keys=of_study(sent[0]))
        ends = until(tmp_path / "audit.log", RECEIVED, count=2)

    assert summary(ends) == [
        (RECEIVED, "R", 0, "AETITLES=STATION"),
        (RECEIVED, "R", 8, "AETITLES=STATION"),
    ]
    assert [it.counts() for it in ends] == [{MR: 2}, {MR: 1}]


@pytest.mark.parametrize(
    ("calling", "called", "sentence"),
    [
        ("STRANGER", "GPNET", "calling AE title 'STRANGER' is not a peer's"),
        ("SCANNER", "OTHER", "called AE title 'OTHER' is not ours"),
        ("ELSEWHERE", "GPNET", "peer elsewhere may not call from this address"),
    ],
)
def test_a_rejected_caller_is_an_alert(tmp_path: Path, calling: str, called: str, sentence: str) -> None:
    elsewhere = PeerConfig(name="elsewhere", ae_title="ELSEWHERE", may_store=True, hosts=("192.0.2.7",))
    with answering(tmp_path, elsewhere, audit=audit(tmp_path)) as node:
        storescu(node.port, mr_series(tmp_path / "sent", slices=1), calling=calling, called=called)
        (alert,) = until(tmp_path / "audit.log", "Security Alert")

    assert (alert.type, alert.action, alert.outcome, alert.requestor) == ("110126", "E", 4, None)
    assert alert.ids("Node ID") == ["127.0.0.1"]
    assert sentence in alert.detail("Alert Description")


def test_who_shows_no_certificate_is_an_alert(tmp_path: Path) -> None:
    certificate(tmp_path, "authority")
    certificate(tmp_path, "node", signed_by="authority")
    with answering(tmp_path, audit=audit(tmp_path), tls=settings(tmp_path)) as node:
        assert echoscu(node.port).returncode != 0
        (alert,) = until(tmp_path / "audit.log", "Security Alert")

    assert (alert.type, alert.outcome, alert.ids("Node ID")) == ("110126", 4, ["127.0.0.1"])


def test_a_full_disk_that_turns_a_scanner_away_for_now_is_no_alert(tmp_path: Path) -> None:
    with answering(tmp_path, audit=audit(tmp_path), min_free_bytes=1 << 62) as node:
        storescu(node.port, mr_series(tmp_path / "sent", slices=1))
        storescu(node.port, mr_series(tmp_path / "sent", slices=1), calling="STRANGER")
        (alert,) = until(tmp_path / "audit.log", "Security Alert")

    assert "STRANGER" in alert.detail("Alert Description")


# -- the courier and the operator ----------------------------------------------------------------------------


def test_roles_results_and_the_operators_decisions_are_told_and_the_log_knows_no_patient(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    head = draw_head(tmp_path / "series", **SECRETS)
    trail = tmp_path / "audit.log"
    with dcmtk_storescp(tmp_path / "scp", "--accept-all") as scp:
        with running_node(configuration_of(tmp_path, pacs=scp.port, audit=audit(tmp_path))) as node:
            storescu(node.port, head.paths)
            job = node.job(JobState.DELIVERED)
            (begins,) = until(trail, BEGINS)
            _, ends = until(trail, RECEIVED, count=2)
        _reprocess(tmp_path, job.series_uid)

    assert summary([begins, ends]) == [
        (BEGINS, "E", 0, "AETITLES=GPNET"),
        (RECEIVED, "R", 0, "AETITLES=GPNET"),
    ]
    assert begins.counts() == ends.counts()
    assert sum(ends.counts().values()) == 2
    assert ends.participants()["Destination Role ID"] == ("AETITLES=PACS", "127.0.0.1")
    (decided,) = told_in(trail, "DICOM Instances Accessed")
    assert (decided.type, decided.action, decided.source_id) == ("reprocess", "U", "operator@GPNET")
    assert decided.requestor is not None
    assert decided.requestor.endswith(f"@{socket.gethostname()}")
    for message in (begins, ends, decided):
        assert (message.ids(STUDY), message.ids(PATIENT)) == ([study_of(head.paths[0])], ["SECRET-4711"])
    for kind in ("110120", "110121"):  # begins, ends
        roles = {it.source_id for it in told_in(trail) if it.type == kind}
        assert roles == {"receiver@GPNET", "worker@GPNET", "courier@GPNET"}
    assert trail.stat().st_mode & 0o777 == 0o600
    log = capfd.readouterr().err
    assert "an object was delivered" in log
    assert [value for value in SECRETS.values() if value in log] == []


def _reprocess(folder: Path, series_uid: str) -> None:
    """Run the command as the operator does, on the node's archive."""
    config = folder / "ae_config"
    config.mkdir()
    (config / "node.toml").write_text(
        f'archive = "{folder}/archive"\n[audit]\nfile = "{folder}/audit.log"\n', encoding="utf-8"
    )
    run = CliRunner().invoke(app, ["reprocess", series_uid, "--config", str(config)])
    assert run.exit_code == 0, run.output


# -- DICOMweb ------------------------------------------------------------------------------------------------


def test_what_is_searched_fetched_and_stored_over_http_is_told_once_for_all_frames(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "series", slices=3, **SECRETS)
    stored = mr_series(tmp_path / "stored", slices=2, series="2", **SECRETS)
    study, trail = f"/dicom-web/studies/{study_of(paths[0])}", tmp_path / "audit.log"
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef\n")
    bearer = {"Authorization": "Bearer 0123456789abcdef"}
    web = WebConfig(enabled=True, port=0, may_store=True, token_file=tokens)
    configuration = configuration_of(tmp_path, web=web, audit=audit(tmp_path))
    with running_node(configuration, Role.RECEIVER, Role.WEB) as node:
        storescu(node.port, paths)
        wait_until(lambda: node.parts.catalogue.held(study_uids=[study_of(paths[0])])[2:], what="the study")
        assert ask(node.web_port, f"{study}/series").status == 401
        assert ask(node.web_port, "/dicom-web/studies?PatientName=GEHEIM*", headers=bearer).status == 200
        assert ask(node.web_port, f"{study}/metadata", headers=bearer).status == 200
        for path in paths:
            it = dcmread(path, stop_before_pixels=True)
            frames = f"{study}/series/{it.SeriesInstanceUID}/instances/{it.SOPInstanceUID}/frames/1"
            assert ask(node.web_port, frames, headers=bearer).status == 200
            assert ask(node.web_port, f"{frames},2", headers=bearer).status == 404
        body = stow_body([path.read_bytes() for path in stored])
        assert (
            ask(node.web_port, study, method="POST", body=body, headers=STOW_HEADERS | bearer).status == 200
        )
        (alert,) = until(trail, "Security Alert")
        (search,) = until(trail, "Query")
        until(trail, RECEIVED, count=2)

    assert "without a valid token" in alert.detail("Alert Description")
    assert (search.ids("Search Criteria"), search.query) == (["/dicom-web/studies"], b"PatientName=GEHEIM*")
    assert (search.outcome, search.requestor) == (0, "127.0.0.1")
    transfers = [it for it in told_in(trail, RECEIVED) if it.source_id == "web@GPNET"]
    assert {(it.action, it.outcome, *it.counts().values()) for it in transfers} == {
        ("C", 0, 2),
        ("R", 0, 3),
        ("R", 8, 3),
    }
    assert {(*it.ids(PATIENT), it.requestor) for it in transfers} == {("SECRET-4711", "127.0.0.1")}


# -- where it goes -------------------------------------------------------------------------------------------


@pytest.fixture
def syslog() -> Iterator[socket.socket]:
    """A syslog server's port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        yield server


def test_a_syslog_server_gets_each_message_in_a_datagram(tmp_path: Path, syslog: socket.socket) -> None:
    there = AuditConfig(syslog=f"127.0.0.1:{syslog.getsockname()[1]}")
    with running_node(configuration_of(tmp_path, audit=there), Role.RECEIVER) as node:
        storescu(node.port, mr_series(tmp_path / "sent", slices=2), calling="STRANGER")
        storescu(node.port, mr_series(tmp_path / "sent", slices=2))
        lines = [syslog.recv(65536) for _ in range(3)]

    heads = [line.split(b" ", 7) for line in lines]
    assert [head[0] for head in heads] == [b"<85>1", b"<84>1", b"<85>1"]
    assert {(*head[3:4], *head[5:7]) for head in heads} == {(b"gpnet-node", b"DICOM+RFC3881", b"-")}
    messages = [told(head[7]) for head in heads]
    assert [it.event for it in messages] == ["Application Activity", "Security Alert", RECEIVED]
    assert messages[2].counts() == {MR: 2}


def test_a_destination_that_fails_costs_nothing_and_the_log_says_what_was_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = AuditConfig(file=tmp_path / "gone" / "audit.log")
    with running_node(configuration_of(tmp_path, audit=nowhere), Role.RECEIVER) as node:
        assert storescu(node.port, mr_series(tmp_path / "sent", slices=3)).returncode == 0

    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    told = [it["event"] for it in lines if "audit" in it["event"]]
    assert told[0] == "audit messages cannot be written; they wait"
    assert sum(it["count"] for it in lines if it["event"] == "audit messages were lost") == 3
    assert "a role ends" in {it["event"] for it in lines}
