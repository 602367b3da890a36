"""How long queries and retrievals take, beside Orthanc with the same instances."""

import http.client
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.node import Parts, Role
from gpnet_node.store.archive import instance_path
from gpnet_node.store.header import header_of
from gpnet_node.store.states import Arrival
from tests.benchmarks.conftest import Scale
from tests.benchmarks.figures import Bar, Figure, Figures, compared, take_turns
from tests.factories import mr_series
from tests.nodes import configuration_of, running_node
from tests.peers import DcmtkStoreScp, data_set_bytes, dcmtk_storescp, free_port, orthanc, program

pytestmark = pytest.mark.speed
OURS, ORTHANC = "gpnet_node", "Orthanc"
_UPLOADS = 4
_INSTANCE, _SERIES, _STUDY = ("2.25." + digit * 30 for digit in "123")
_NAME = "Examp^Anna"
_RETURNED = (
    "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One that can be asked."""

    port: int
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


@pytest.fixture(scope="module")
def population(scratch: Path, scale: Scale) -> Population:
    (path,) = mr_series(
        scratch / "prototype of a query", slices=1, rows=16, columns=16, SOPInstanceUID=_INSTANCE,
        SeriesInstanceUID=_SERIES, StudyInstanceUID=_STUDY, PatientName=_NAME, StudyDescription="Head",
    )  # fmt: skip
    return Population(content=path.read_bytes(), studies=scale.studies, images=scale.images_of_study)


@pytest.fixture(scope="module")
def third(scratch: Path) -> Iterator[DcmtkStoreScp]:
    """Who gets what a C-MOVE sends."""
    with dcmtk_storescp(scratch / "third", "--fork") as scp:
        yield scp


@pytest.fixture(scope="module")
def contenders(scratch: Path, population: Population, third: DcmtkStoreScp) -> Iterator[dict[str, Contender]]:
    """The node and Orthanc, both filled."""
    folder = scratch / "queries"
    folder.mkdir()
    settings: dict[str, Any] = {
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {
            "third": ["THIRD", "127.0.0.1", third.port],
            "me": ["STATION", "127.0.0.1", free_port()],
        },
        "StableAge": 3600,
    }
    with (
        running_node(_configuration(folder, third.port), Role.RECEIVER) as node,
        orthanc(folder / "orthanc", **settings) as pacs,
    ):
        with ThreadPoolExecutor() as pool:
            filling = pool.submit(_fill_orthanc, pacs.http_port, population)
            _fill_node(node.parts, population)
            filling.result()
        assert int(pacs.get("/statistics")["CountInstances"]) == population.studies * population.images
        yield {
            OURS: Contender(port=node.port, ae_title="GPNET"),
            ORTHANC: Contender(port=pacs.dicom_port, ae_title="PACS"),
        }
    shutil.rmtree(folder)


def _configuration(folder: Path, third_port: int) -> Configuration:
    plain = configuration_of(folder, log_level="warning")
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


def _seconds(name: str, contender: Contender, *options: str, keys: tuple[str, ...]) -> float:
    """How long a program of DCMTK's takes, from its start to its end."""
    command = [program(f"/usr/bin/{name}"), "-S", "-aet", "STATION", "-aec", contender.ae_title, *options]
    asked = [word for key in keys for word in ("-k", key)]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, *asked, "127.0.0.1", str(contender.port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stdout[-2000:]
    return seconds


@pytest.mark.parametrize("counts", [False, True], ids=["plain", "with counts"])
def test_a_query_for_a_name_with_wildcards(
    contenders: dict[str, Contender], population: Population, scale: Scale, figures: Figures, counts: bool
) -> None:
    counted = ("ModalitiesInStudy", "NumberOfStudyRelatedInstances") if counts else ()
    asked = ("QueryRetrieveLevel=STUDY", "PatientName=*a*", *_RETURNED, *counted)

    def turn(name: str, *options: str) -> float:
        return _seconds("findscu", contenders[name], *options, keys=asked)

    for name in contenders:
        turn(name)
    taken = take_turns({name: partial(turn, name, "-q") for name in contenders}, repeats=scale.repeats)

    what = f"C-FIND of {population.studies} studies among {population.studies * population.images} instances"
    figure = compared(
        what + (", with counts" if counts else ""), "s", taken[OURS], ORTHANC, taken[ORTHANC], better="less"
    )
    assert figure.ratio is not None
    bar = Bar(words="at most half of Orthanc's", met=figure.ratio >= 2, hard=not counts)
    figures.add(Figure(**{**vars(figure), "bar": bar}))


def test_instances_fetched_a_second(
    contenders: dict[str, Contender], population: Population, scale: Scale, figures: Figures, scratch: Path
) -> None:
    def turn(name: str) -> float:
        with _new_folder(scratch / "fetched") as folder:
            study = f"StudyInstanceUID={population.study_uid(population.studies // 2)}"
            seconds = _seconds(
                "getscu", contenders[name], "-od", str(folder), keys=("QueryRetrieveLevel=STUDY", study)
            )
            assert len(list(folder.iterdir())) == population.images
        return population.images / seconds

    _retrieved("C-GET", turn, contenders, population, scale, figures)


def test_instances_moved_a_second(
    contenders: dict[str, Contender],
    population: Population,
    scale: Scale,
    figures: Figures,
    third: DcmtkStoreScp,
) -> None:
    def turn(name: str) -> float:
        study = f"StudyInstanceUID={population.study_uid(population.studies // 2)}"
        seconds = _seconds(
            "movescu", contenders[name], "-aem", "THIRD", keys=("QueryRetrieveLevel=STUDY", study)
        )
        received = third.files()
        assert len(received) == population.images
        for path in received:
            path.unlink()
        return population.images / seconds

    _retrieved("C-MOVE", turn, contenders, population, scale, figures)


def _retrieved(
    what: str,
    turn: Callable[[str], float],
    contenders: dict[str, Contender],
    population: Population,
    scale: Scale,
    figures: Figures,
) -> None:
    for name in contenders:
        turn(name)
    rates = take_turns({name: partial(turn, name) for name in contenders}, repeats=scale.repeats)
    figures.add(
        compared(
            f"{what} of a study of {population.images} small instances", "/s", rates[OURS], ORTHANC,
            rates[ORTHANC], better="more",
        )
    )  # fmt: skip


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
