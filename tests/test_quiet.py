"""What the node writes about a patient outside the archive and the database: nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage
from pynetdicom import AE, _config
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.result_profile import ObjectKind, ResultProfile
from gpnet_node.store.states import JobState
from gpnet_node.web_config import WebConfig
from tests.factories import rewrite, spoil
from tests.nodes import RunningNode, configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import orthanc, queryscu, storescu, wait_until
from tests.web import ask

PATIENT: dict[str, Any] = {
    "PatientName": "Geheim^Gerda",
    "PatientID": "SECRET-4711",
    "PatientBirthDate": "19610203",
    "AccessionNumber": "ACC-98765",
}
CORRECTED = "Verborgen^Vera"  # what the name is corrected to
MARKS = ("Geheim", "Gerda", "SECRET", "19610203", "ACC-98765", "Verborgen", "Vera")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where everything lies that the node's processes write outside the archive."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.chdir(folder)
    return folder


def configured(folder: Path, pacs: int) -> Configuration:
    """Everything that is sent, and everybody who may ask, at the level that says most."""
    configuration = configuration_of(
        folder,
        pacs=pacs,
        profile=ResultProfile(objects=get_args(ObjectKind)),
        log_level="debug",
        web=WebConfig(enabled=True, port=0, may_store=True),
    )
    rights = {"may_store": True, "may_query": True, "may_retrieve": True, "may_report": True}
    station = PeerConfig.model_validate({"name": "station", "ae_title": "STATION", **rights})
    return configuration.model_copy(update={"peers": (*configuration.peers, station)})


def say_it_all(node: RunningNode, folder: Path) -> None:
    """Name the patient in every way in which a peer can, rightly and wrongly."""
    head = draw_head(folder / "series", **PATIENT)
    broken = draw_head(folder / "broken", series="2", **PATIENT).paths[0]
    broken.write_bytes(broken.read_bytes()[:-100])
    for path in head.paths:
        spoil(path, "Geheim")
    _send_as_it_is(node.port, broken)
    _report(node.port)
    storescu(node.port, head.paths)
    node.job(JobState.DELIVERED)
    for keys in (["PatientName=Geheim*"], ["PatientID=SECRET-4711"], ["PatientBirthDate=Geheim"]):
        queryscu("findscu", node.port, "-P", keys=["QueryRetrieveLevel=PATIENT", *keys])
        queryscu("movescu", node.port, "-P", "-aem", "NOWHERE", keys=["QueryRetrieveLevel=PATIENT", *keys])
    for asked in ("/studies?PatientName=Geheim*", "/studies?Geheim=Gerda", "/studies/Geheim/metadata"):
        ask(node.web_port, f"/dicom-web{asked}")
    ask(node.web_port, "/dicom-web/studies", method="POST", body=head.paths[0].read_bytes())
    corrected = rewrite(head.paths[1], PatientName=CORRECTED)
    storescu(node.port, [corrected])
    uid = dcmread(corrected).SOPInstanceUID
    wait_until(lambda: len(node.parts.index.versions(uid)) == 2, what="the corrected version in the index")


def _send_as_it_is(port: int, path: Path) -> None:
    _config.STORE_SEND_CHUNKED_DATASET = True
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(MRImageStorage, dcmread(path, force=True).file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, ae_title="GPNET")
    assert association.send_c_store(path).Status == 0xC000
    association.release()


def _report(port: int) -> None:
    ae = AE(ae_title="STATION")
    ae.add_requested_context(ModalityPerformedProcedureStep)
    association = ae.associate("127.0.0.1", port, ae_title="GPNET")
    step = Dataset()
    step.PerformedProcedureStepStatus = "Geheim"
    step.PatientName, step.PatientID = PATIENT["PatientName"], PATIENT["PatientID"]
    answer, _ = association.send_n_create(step, ModalityPerformedProcedureStep)
    association.release()
    assert answer.Status == 0x0106


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)), path.read_bytes() if path.is_file() else b""


@pytest.mark.filterwarnings("ignore")  # pydicom's, on what is spoilt here
def test_not_a_byte_about_the_patient_leaves_archive_and_database_but_to_peers(
    elsewhere: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with orthanc(tmp_path / "orthanc") as pacs:
        configuration = configured(tmp_path, pacs.dicom_port)
        with running_node(configuration) as node:
            say_it_all(node, tmp_path)
    said = capfd.readouterr()
    names = [os.fspath(path) for path in configuration.node.archive.rglob("*")]

    for sentence in ("an instance was refused", "a job ends", "a performed procedure step was reported"):
        assert sentence in said.err
    everything = {"output": said.out, "log": said.err, "file names": "\n".join(names)}
    found = [(place, mark) for place, text in everything.items() for mark in MARKS if mark in text]
    for name, content in written(elsewhere):
        spellings = {mark: (mark.encode(), mark.encode("utf-16-le")) for mark in MARKS}
        found += [(name, mark) for mark, forms in spellings.items() if any(it in content for it in forms)]
        found += [("file name", mark) for mark in MARKS if mark in name]
    assert found == []
