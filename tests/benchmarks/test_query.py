"""How long queries and retrievals take, beside Orthanc with the same instances."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.benchmarks.conftest import Scale
from tests.benchmarks.figures import Bar, Figure, Figures, compared, take_turns
from tests.benchmarks.population import ORTHANC, OURS, Holder, Population
from tests.peers import DcmtkStoreScp, program

pytestmark = pytest.mark.speed
_RETURNED = (
    "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName",
)  # fmt: skip


def _seconds(name: str, holder: Holder, *options: str, keys: tuple[str, ...]) -> float:
    """How long a program of DCMTK's takes, from its start to its end."""
    command = [program(f"/usr/bin/{name}"), "-S", "-aet", "STATION", "-aec", holder.ae_title, *options]
    asked = [word for key in keys for word in ("-k", key)]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, *asked, "127.0.0.1", str(holder.port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stdout[-2000:]
    return seconds


@pytest.mark.parametrize("counts", [False, True], ids=["plain", "with counts"])
def test_a_query_for_a_name_with_wildcards(
    holders: dict[str, Holder], population: Population, scale: Scale, figures: Figures, counts: bool
) -> None:
    counted = ("ModalitiesInStudy", "NumberOfStudyRelatedInstances") if counts else ()
    asked = ("QueryRetrieveLevel=STUDY", "PatientName=*a*", *_RETURNED, *counted)

    def turn(name: str, *options: str) -> float:
        return _seconds("findscu", holders[name], *options, keys=asked)

    for name in holders:
        turn(name)
    taken = take_turns({name: partial(turn, name, "-q") for name in holders}, repeats=scale.repeats)

    what = f"C-FIND of {population.studies} studies among {population.studies * population.images} instances"
    figure = compared(
        what + (", with counts" if counts else ""), "s", taken[OURS], ORTHANC, taken[ORTHANC], better="less"
    )
    assert figure.ratio is not None
    bar = Bar(words="at most half of Orthanc's", met=figure.ratio >= 2, hard=not counts)
    figures.add(Figure(**{**vars(figure), "bar": bar}))


def test_instances_fetched_a_second(
    holders: dict[str, Holder], population: Population, scale: Scale, figures: Figures, scratch: Path
) -> None:
    def turn(name: str) -> float:
        with _new_folder(scratch / "fetched") as folder:
            study = f"StudyInstanceUID={population.study_uid(population.studies // 2)}"
            seconds = _seconds(
                "getscu", holders[name], "-od", str(folder), keys=("QueryRetrieveLevel=STUDY", study)
            )
            assert len(list(folder.iterdir())) == population.images
        return population.images / seconds

    _retrieved("C-GET", turn, holders, population, scale, figures)


def test_instances_moved_a_second(
    holders: dict[str, Holder],
    population: Population,
    scale: Scale,
    figures: Figures,
    third: DcmtkStoreScp,
) -> None:
    def turn(name: str) -> float:
        study = f"StudyInstanceUID={population.study_uid(population.studies // 2)}"
        seconds = _seconds(
            "movescu", holders[name], "-aem", "THIRD", keys=("QueryRetrieveLevel=STUDY", study)
        )
        received = third.files()
        assert len(received) == population.images
        for path in received:
            path.unlink()
        return population.images / seconds

    _retrieved("C-MOVE", turn, holders, population, scale, figures)


def _retrieved(
    what: str,
    turn: Callable[[str], float],
    holders: dict[str, Holder],
    population: Population,
    scale: Scale,
    figures: Figures,
) -> None:
    for name in holders:
        turn(name)
    rates = take_turns({name: partial(turn, name) for name in holders}, repeats=scale.repeats)
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
