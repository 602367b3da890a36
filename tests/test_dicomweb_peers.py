"""The same instances in Orthanc's DICOMweb and in the node's: what both say of them is the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from tests.factories import enhanced_mr, mr_series
from tests.peers import Orthanc, dicomweb_plugin, orthanc
from tests.web import OCTETS, STOW_HEADERS, Answer, Web, ask, path_of, stow_body, web_service

# What a node may count or name in its own way: its address, what is at hand, the character set of an answer.
OWN = {"00080005", "00080056", "00081190", "00083002", "00080201"}


@dataclass(frozen=True, kw_only=True)
class Both:
    """The node and Orthanc with the same instances."""

    node: Web
    peer: Orthanc
    files: list[Path]

    def ask(self, path: str, *, accept: str = "application/dicom+json") -> tuple[Answer, Answer]:
        return self.node.ask(path, accept=accept), ask(
            self.peer.http_port, f"/dicom-web{path}", accept=accept
        )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("both")
    files = [
        *mr_series(folder / "a", slices=6, PatientName="Äpfel^Änne"),
        enhanced_mr(folder / "b", slices=5, series="2", StudyInstanceUID="1.2.3.4", PatientID="P2"),
        *sorted((shared_data / "dicom" / "niivue_t1_mpr_tra").rglob("*.dcm"))[:5],
        *sorted((shared_data / "dicom" / "dcm_qa_ts").rglob("*.dcm"))[:1],
    ]
    with orthanc(folder / "orthanc", **dicomweb_plugin()) as peer, web_service(folder) as node:
        body = stow_body([path.read_bytes() for path in files])
        for port in (peer.http_port, node.port):
            answer = ask(port, "/dicom-web/studies", method="POST", body=body, headers=STOW_HEADERS)
            assert answer.status == 200, answer.body
        yield Both(node=node, peer=peer, files=files)


def by(answers: list[dict[str, Any]], tag: str) -> dict[str, dict[str, Any]]:
    return {it[tag]["Value"][0]: it for it in answers}


def agree(one: dict[str, Any], other: dict[str, Any]) -> int:
    """Compare what both know of a thing, vendors' own elements apart; return how much that is."""
    first, second = Dataset.from_json(one, _at_its_address), Dataset.from_json(other, _at_its_address)
    public = [it for it in first if f"{it.tag:08X}" not in OWN and not it.tag.is_private]
    shared = [it for it in public if it.tag in second]
    for element in shared:
        if isinstance(element.value, bytes) or element.VR == "SQ":
            continue  # inline or by an address, each as it likes; sequences are compared by another test
        known, also = element.value, second[element.tag].value
        if element.VR == "DS" and not element.is_empty:  # Orthanc rounds what is nearly nothing
            assert np.allclose(np.float64(known), np.float64(also), rtol=1e-9, atol=1e-9), element.tag
        else:
            assert str(known) == str(also), element.tag
    return len(shared)


def _at_its_address(_tag: str, _vr: str, _uri: str | None) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("path", "tag", "least"),
    [("/studies", "0020000D", 12), ("/series", "0020000E", 8), ("/instances", "00080018", 6)],
)
def test_both_find_the_same_and_say_the_same_of_it(both: Both, path: str, tag: str, least: int) -> None:
    ours, theirs = (by(answer.json, tag) for answer in both.ask(path))

    assert set(ours) == set(theirs)
    assert min(agree(ours[uid], theirs[uid]) for uid in ours) >= least


@pytest.mark.parametrize(
    "query",
    [
        "PatientID=P2",
        "PatientID=P*",
        "PatientName=*pfel*",
        "StudyDate=20240101-20241231",
        "ModalitiesInStudy=MR",
    ],
)
def test_both_match_alike(both: Both, query: str) -> None:
    ours, theirs = (by(answer.json, "0020000D") for answer in both.ask(f"/studies?{query}"))

    assert set(ours) == set(theirs)


def test_metadata_of_every_instance_is_the_same(both: Both) -> None:
    for path in both.files:
        (ours,), (theirs,) = (answer.json for answer in both.ask(path_of(path) + "/metadata"))
        length = {tag for tag in theirs if tag.endswith("0000")}
        assert set(ours) - OWN == set(theirs) - OWN - length, path
        assert agree(ours, theirs) > 40


def test_frames_are_the_same_bytes(both: Both) -> None:
    for path in both.files:
        header = dcmread(path, stop_before_pixels=True)
        for number in {1, int(header.get("NumberOfFrames", 1))}:
            ours, theirs = both.ask(f"{path_of(path)}/frames/{number}", accept=OCTETS)
            assert [content for _, content in ours.parts()] == [content for _, content in theirs.parts()]
