"""Searching and fetching over HTTP, beside Orthanc's DICOMweb with the same instances."""

import contextlib
import http.client
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from gpnet_node.node import Role
from gpnet_node.web_config import WebConfig
from tests.benchmarks.conftest import Scale
from tests.benchmarks.figures import Figures, compared, take_turns
from tests.factories import mr_series
from tests.nodes import configuration_of, running_node
from tests.peers import dicomweb_plugin, orthanc
from tests.web import STOW_HEADERS, path_of, stow_body

pytestmark = pytest.mark.speed
INSTANCES = int(os.environ.get("GPNET_BENCH_WEB_INSTANCES", "10000"))
PER_STUDY = 100
SLICES = 80  # of the series that is fetched, 512 x 512
NAMES = ("Maria^Anna", "John^Brown", "Petra^Klein", "Bob^Orr")
PICTURE = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
WHOLE = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One kind of request, and how often it is sent on one connection."""

    what: str
    paths: list[str]
    accept: str = "application/dicom+json"


def test_searching_and_fetching(scale: Scale, figures: Figures, scratch: Path) -> None:
    series = mr_series(
        scratch / "large", voxels=np.random.default_rng(5).integers(0, 4096, (SLICES, 512, 512), np.uint16),
        StudyInstanceUID="1.2.3.4",
    )  # fmt: skip
    small = mr_series(scratch / "small", slices=1)[0]
    settings = configuration_of(scratch, web=WebConfig(enabled=True, port=0, may_store=True))
    with (
        orthanc(scratch / "orthanc", HttpThreadsCount=50, **dicomweb_plugin()) as peer,
        running_node(settings, Role.WEB) as node,
    ):
        ports = {"gpnet_node": node.web_port, "Orthanc": peer.http_port}
        studies = _fill(list(ports.values()), small.read_bytes())
        for port in ports.values():
            _store(port, [path.read_bytes() for path in series])
        one = path_of(series[0], "series")
        for asked in (
            Asked(
                what=f"QIDO, studies, PatientName=*a*, {INSTANCES} held", paths=["/studies?PatientName=*a*"]
            ),
            Asked(
                what="QIDO, series of a study, 50 requests",
                paths=[f"/studies/{studies[n % len(studies)]}/series" for n in range(50)],
            ),
            Asked(what=f"QIDO, {PER_STUDY} instances of a study", paths=[f"/studies/{studies[0]}/instances"]),
            Asked(what=f"WADO, metadata of a series of {SLICES}", paths=[f"{one}/metadata"]),
            Asked(what=f"WADO, series of {SLICES} x 512 x 512", paths=[one], accept=WHOLE),
            Asked(
                what=f"WADO, {SLICES} frames of 512 x 512, one by one",
                paths=[f"{path_of(path)}/frames/1" for path in series],
                accept=PICTURE,
            ),
        ):
            contenders = {name: _timed(port, asked) for name, port in ports.items()}
            for measure in contenders.values():
                measure()
            samples = take_turns(contenders, repeats=scale.repeats)
            figures.add(
                compared(asked.what, "s", samples["gpnet_node"], "Orthanc", samples["Orthanc"], better="less")
            )


def _timed(port: int, asked: Asked) -> Callable[[], float]:
    def measure() -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        with contextlib.closing(connection):
            start = time.perf_counter()
            for path in asked.paths:
                connection.request("GET", f"/dicom-web{path}", headers={"Accept": asked.accept})
                answer = connection.getresponse()
                content = answer.read()
                assert answer.status == 200
                assert len(content) > 100
            return time.perf_counter() - start

    return measure


def _fill(ports: list[int], template: bytes) -> list[UID]:
    """Store small instances, equally many a study, in every server; return the studies."""
    numbers = range(max(1, INSTANCES // PER_STUDY))
    with ThreadPoolExecutor(4) as pool:
        for port in ports:
            list(pool.map(lambda n: _store(port, list(_study(template, n))), numbers))  # noqa: B023
    return [_uid(n) for n in numbers]


def _uid(study: int, instance: int = 0) -> UID:
    return UID(f"2.25.{10**20 + study * 10**6 + instance}")


def _study(template: bytes, number: int) -> Iterator[bytes]:
    """The template under other UIDs and names of the same length."""
    data_set = dcmread(BytesIO(template))
    data_set.StudyInstanceUID = _uid(number)
    data_set.SeriesInstanceUID = _uid(number, 999_999)
    data_set.PatientName = f"{NAMES[number % len(NAMES)]}{number}"
    data_set.PatientID = f"P{number}"
    for instance in range(1, PER_STUDY + 1):
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = _uid(number, instance)
        data_set.InstanceNumber = instance
        buffer = BytesIO()
        data_set.save_as(buffer)
        yield buffer.getvalue()


def _store(port: int, contents: list[bytes]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        headers = {**STOW_HEADERS, "Accept": "application/dicom+json"}
        connection.request("POST", "/dicom-web/studies", body=stow_body(contents), headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
