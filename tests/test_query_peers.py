"""A PACS and the node: Orthanc queries and retrieves from it, and sends it what a station asked for."""

import json
import urllib.request
from pathlib import Path

import pytest
from pydicom import dcmread

from gpnet_node.config import PeerConfig
from tests.answering import answering
from tests.factories import mr_series
from tests.peers import Orthanc, data_set_bytes, free_port, orthanc, queryscu, wait_until


def pacs_peer(port: int) -> PeerConfig:
    return PeerConfig(
        name="pacs",
        ae_title="PACS",
        host="127.0.0.1",
        port=port,
        may_store=True,
        may_query=True,
        may_retrieve=True,
    )


def post(pacs: Orthanc, path: str, body: object) -> object:
    request = urllib.request.Request(
        f"http://127.0.0.1:{pacs.http_port}{path}", data=json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_orthanc_finds_a_study_on_the_node_and_retrieves_it(tmp_path: Path) -> None:
    sent = mr_series(tmp_path / "sent", slices=5, PatientName="Müller^Zoë")
    port = free_port()
    with answering(tmp_path / "node", pacs_peer(port)) as node:
        node.hold(
            [*sent, *mr_series(tmp_path / "other", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4")]
        )
        modalities = {"node": ["GPNET", "127.0.0.1", node.port]}
        with orthanc(tmp_path / "orthanc", port=port, DicomModalities=modalities) as pacs:
            asked = {
                "Level": "Study",
                "Query": {"PatientName": "MULLER*", "NumberOfStudyRelatedInstances": ""},
            }
            query = post(pacs, "/modalities/node/query", asked)
            assert isinstance(query, dict)
            answers = pacs.get(f"{query['Path']}/answers")
            match = pacs.get(f"{query['Path']}/answers/0/content?simplify")
            post(pacs, f"{query['Path']}/answers/0/retrieve", {"TargetAet": "PACS", "Synchronous": True})
            wait_until(lambda: len(pacs.get("/instances")) == 5, what="five instances in Orthanc")
            received = [pacs.get_bytes(f"/instances/{name}/file") for name in pacs.get("/instances")]

    assert answers == ["0"]
    assert (match["PatientName"], match["NumberOfStudyRelatedInstances"]) == ("Müller^Zoë", "5")
    for index, content in enumerate(received):
        (tmp_path / f"{index}.dcm").write_bytes(content)
    assert sorted(data_set_bytes(tmp_path / f"{index}.dcm") for index in range(5)) == sorted(
        map(data_set_bytes, sent)
    )


@pytest.mark.parametrize("level", ["STUDY", "SERIES"])
def test_the_node_receives_and_then_offers_what_orthanc_was_asked_to_send_it(
    tmp_path: Path, level: str
) -> None:
    sent = mr_series(tmp_path / "sent", slices=5)
    header = dcmread(sent[0], stop_before_pixels=True)
    port = free_port()
    with answering(tmp_path / "node", pacs_peer(port)) as node:
        modalities = {
            "node": ["GPNET", "127.0.0.1", node.port],
            "station": ["STATION", "127.0.0.1", free_port()],
        }
        with orthanc(tmp_path / "orthanc", port=port, DicomModalities=modalities) as pacs:
            for path in sent:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{pacs.http_port}/instances", data=path.read_bytes(), method="POST"
                )
                urllib.request.urlopen(request, timeout=20).close()
            wanted = [f"QueryRetrieveLevel={level}", f"StudyInstanceUID={header.StudyInstanceUID}"]
            wanted += [f"SeriesInstanceUID={header.SeriesInstanceUID}"] if level == "SERIES" else []

            said = queryscu("movescu", port, "-S", "-aem", "GPNET", keys=wanted, called="PACS").stdout

        assert ": 0x0000: Success" in said
        wait_until(
            lambda: len(node.catalogue.held(patient_id="P1")) == 5, what="five instances in the catalogue"
        )
        found = queryscu(
            "findscu", node.port, "-S", keys=["QueryRetrieveLevel=STUDY", "NumberOfStudyRelatedInstances"]
        )
        assert "IS [5 ]" in found.stdout
