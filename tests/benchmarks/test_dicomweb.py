"""Searching and fetching over HTTP, beside Orthanc's DICOMweb with the same instances."""

import contextlib
import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.conftest import Scale
from tests.benchmarks.figures import Figures, compared, take_turns
from tests.benchmarks.population import ORTHANC, OURS, Holder, Population
from tests.factories import mr_series
from tests.peers import storescu
from tests.web import path_of

pytestmark = pytest.mark.speed
SLICES = 80  # of the series that is fetched, 512 x 512
PICTURE = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
WHOLE = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One kind of request, and how often it is sent on one connection."""

    what: str
    paths: list[str]
    accept: str = "application/dicom+json"


def test_searching_and_fetching(
    holders: dict[str, Holder], population: Population, scale: Scale, figures: Figures, scratch: Path
) -> None:
    voxels = np.random.default_rng(5).integers(0, 4096, (SLICES, 512, 512), np.uint16)
    series = mr_series(scratch / "large", voxels=voxels)
    for holder in holders.values():
        sent = storescu(holder.port, series, called=holder.ae_title)
        assert sent.returncode == 0, sent.stdout
    one = path_of(series[0], "series")
    studies = [population.study_uid(number) for number in range(50)]
    held = population.studies * population.images
    for asked in (
        Asked(what=f"QIDO, studies, PatientName=*a*, {held} held", paths=["/studies?PatientName=*a*"]),
        Asked(
            what=f"QIDO, series of a study, {len(studies)} requests",
            paths=[f"/studies/{study}/series" for study in studies],
        ),
        Asked(
            what=f"QIDO, {population.images} instances of a study",
            paths=[f"/studies/{studies[0]}/instances"],
        ),
        Asked(what=f"WADO, metadata of a series of {SLICES}", paths=[f"{one}/metadata"]),
        Asked(what=f"WADO, series of {SLICES} x 512 x 512", paths=[one], accept=WHOLE),
        Asked(
            what=f"WADO, {SLICES} frames of 512 x 512, one by one",
            paths=[f"{path_of(path)}/frames/1" for path in series],
            accept=PICTURE,
        ),
    ):
        measures = {name: _timed(holder.web_port, asked) for name, holder in holders.items()}
        for measure in measures.values():
            measure()
        samples = take_turns(measures, repeats=scale.repeats)
        figures.add(compared(asked.what, "s", samples[OURS], ORTHANC, samples[ORTHANC], better="less"))


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
