"""Very many small instances, held by the node and by Orthanc, to be asked for."""

import http.client
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom import dcmread

from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.parts import Parts, Role
from gpnet_node.store.archive import instance_path
from gpnet_node.store.header import header_of
from gpnet_node.store.states import Arrival
from gpnet_node.web_config import WebConfig
from tests.factories import mr_series
from tests.nodes import configuration_of, running_node
from tests.peers import data_set_bytes, dicomweb_plugin, free_port, orthanc

OURS, ORTHANC = "gpnet_node", "Orthanc"
_UPLOADS = 4
_INSTANCE, _SERIES, _STUDY = ("2.25." + digit * 30 for digit in "123")
_NAME = "Examp^Anna"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """One that holds the population, and can be asked."""

    port: int
    web_port: int
    ae_title: str


@dataclass(frozen=True, kw_only=True)
class Population:
    """Small instances of many studies; each is made when it is asked for."""

    content: bytes
    studies: int
    images: int  # of each study

    def instance(self, study: int, image: int) -> tuple[str, bytes]:
        """Return an instance's UID and file."""
        uid = f"2.25.4{study:09d}{image:020d}"
        changes = {
            _INSTANCE: uid,
            _SERIES: f"2.25.5{study:029d}",
            _STUDY: self.study_uid(study),
            _NAME: f"N{study:04d}^Anna",
        }
        content = self.content
        for before, after in changes.items():
            content = content.replace(before.encode(), after.encode())
        return uid, content

    def study_uid(self, study: int) -> str:
        return f"2.25.6{study:029d}"


def new_population(folder: Path, *, studies: int, images: int) -> Population:
    """Write the image that all others are copies of, under other UIDs and names."""
    (path,) = mr_series(
        folder, slices=1, rows=16, columns=16, SOPInstanceUID=_INSTANCE, SeriesInstanceUID=_SERIES,
        StudyInstanceUID=_STUDY, PatientName=_NAME, StudyDescription="Head",
    )  # fmt: skip
    return Population(content=path.read_bytes(), studies=studies, images=images)


@contextmanager
def holding(folder: Path, population: Population, third_port: int) -> Iterator[dict[str, Holder]]:
    """The node and Orthanc, both filled; both send to a third that listens on a port, by the name THIRD."""
    folder.mkdir()
    settings: dict[str, Any] = {
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {
            "third": ["THIRD", "127.0.0.1", third_port],
            "me": ["STATION", "127.0.0.1", free_port()],
        },
        "StableAge": 3600,
        "HttpThreadsCount": 50,
        **dicomweb_plugin(),
    }
    with (
        running_node(_configuration(folder, third_port), Role.RECEIVER, Role.WEB) as node,
        orthanc(folder / "orthanc", **settings) as pacs,
    ):
        with ThreadPoolExecutor() as pool:
            filling = pool.submit(_fill_orthanc, pacs.http_port, population)
            _fill_node(node.parts, population)
            filling.result()
        assert int(pacs.get("/statistics")["CountInstances"]) == population.studies * population.images
        yield {
            OURS: Holder(port=node.port, web_port=node.web_port, ae_title="GPNET"),
            ORTHANC: Holder(port=pacs.dicom_port, web_port=pacs.http_port, ae_title="PACS"),
        }
    shutil.rmtree(folder)


def _configuration(folder: Path, third_port: int) -> Configuration:
    plain = configuration_of(folder, log_level="warning", web=WebConfig(enabled=True, port=0))
    station = PeerConfig(name="station", ae_title="STATION", may_query=True, may_retrieve=True)
    third = PeerConfig(name="third", ae_title="THIRD", host="127.0.0.1", port=third_port)
    return plain.model_copy(update={"peers": (*plain.peers, station, third)})


def _fill_node(parts: Parts, population: Population) -> None:
    """Put the files where the archive has them, and list them as old news: none of them becomes a job."""
    now = datetime.now(UTC)
    for study in range(population.studies):
        arrivals = []
        for image in range(population.images):
            uid, content = population.instance(study, image)
            path = instance_path(uid, 1)
            file = parts.archive.root / path
            file.write_bytes(content)
            data_set = dcmread(file, stop_before_pixels=True)
            arrivals.append(
                Arrival(
                    header=header_of(data_set), version=1,
                    transfer_syntax_uid=str(data_set.file_meta.TransferSyntaxUID), sha256="0" * 64,
                    size_bytes=len(data_set_bytes(file)), path=path, received_at=now, association_id=None,
                    calling_ae="SCANNER",
                )
            )  # fmt: skip
        parts.index.record(arrivals, settled=True)


def _fill_orthanc(port: int, population: Population) -> None:
    def upload(first: int) -> None:
        for study in range(first, population.studies, _UPLOADS):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            for image in range(population.images):
                connection.request("POST", "/instances", population.instance(study, image)[1])
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200
            connection.close()

    with ThreadPoolExecutor(_UPLOADS) as pool:
        list(pool.map(upload, range(_UPLOADS)))
