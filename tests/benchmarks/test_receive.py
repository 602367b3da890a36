"""How many 512 x 512 x 16 bit images a second are received, answered only when they are safe."""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from gpnet_node.parts import Role
from tests.benchmarks.conftest import Scale
from tests.benchmarks.figures import Figure, Figures, compared, take_turns
from tests.benchmarks.scanner import Printer, child_named, send
from tests.nodes import configuration_of, running_node
from tests.peers import dcmtk_storescp, orthanc, wait_until

pytestmark = pytest.mark.speed
OURS, ORTHANC, STORESCP = "gpnet_node", "Orthanc", "DCMTK storescp --fork"
_LONG_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A storage SCP; ``held`` counts the instances that it has and knows of."""

    port: int
    ae_title: str
    processes: Sequence[psutil.Process]
    held: Callable[[], int]

    def spent_seconds(self) -> float:
        """Of a processor, its children's that have ended too."""
        return sum(sum(process.cpu_times()[:4]) for process in self.processes)


@pytest.fixture(scope="module")
def contenders(scratch: Path) -> Iterator[dict[str, Contender]]:
    """All three, each with the settings that it comes with, on one file system."""
    folder = scratch / "receive"
    folder.mkdir()
    # No series becomes complete meanwhile: receiving is measured, not what comes of it.
    patient = configuration_of(
        folder,
        quiet_seconds_counted=_LONG_SECONDS,
        quiet_seconds_uncounted=_LONG_SECONDS,
        log_level="warning",
    )
    with (
        running_node(patient, Role.RECEIVER) as node,
        orthanc(folder / "orthanc", StableAge=60) as pacs,
        dcmtk_storescp(folder / "storescp", "--fork") as scp,
    ):
        yield {
            OURS: Contender(
                port=node.port,
                ae_title="GPNET",
                processes=node.processes(Role.RECEIVER),
                held=lambda: len(node.parts.index.paths()),
            ),
            ORTHANC: Contender(
                port=pacs.dicom_port,
                ae_title="PACS",
                processes=[child_named("Orthanc")],
                held=lambda: int(pacs.get("/statistics")["CountInstances"]),
            ),
            STORESCP: Contender(
                port=scp.port,
                ae_title="PACS",
                processes=[child_named("storescp")],
                held=lambda: len(scp.files()),
            ),
        }
    shutil.rmtree(folder)


@pytest.mark.parametrize("associations", [1, 4])
def test_images_received_a_second(
    associations: int, contenders: dict[str, Contender], scale: Scale, figures: Figures, scratch: Path
) -> None:
    printer = Printer(scratch / f"prototype {associations}", side=512)
    sent = scratch / f"sent on {associations}"
    behind: list[float] = []
    spent_ms: dict[str, list[float]] = {name: [] for name in contenders}

    def turn(name: str) -> float:
        contender = contenders[name]
        each = scale.instances // associations
        series = [printer.series(sent / str(n), each) for n in range(associations)]
        wanted = contender.held() + each * associations
        spent = contender.spent_seconds()
        os.sync()  # what the turns before left to be written is not this one's burden
        seconds = send(contender.port, contender.ae_title, series)
        answered = time.perf_counter()
        wait_until(lambda: contender.held() >= wanted, what=f"{name} holding what it acknowledged")
        if name == OURS:
            behind.append(time.perf_counter() - answered)
        assert contender.held() == wanted
        spent_ms[name].append(1000 * (contender.spent_seconds() - spent) / (each * associations))
        return each * associations / seconds

    for name in contenders:
        turn(name)  # the first association of a process costs more
    for first in (behind, *spent_ms.values()):
        first.clear()
    rates = take_turns({name: partial(turn, name) for name in contenders}, repeats=scale.repeats)

    what = f"images received, {associations} association" + ("s" if associations > 1 else "")
    figures.add(
        compared(
            what, "/s", rates[OURS], "Orthanc, SQLite index", rates[ORTHANC],
            better="more", aim="1.2 x Orthanc", at_least=1.2,
        ),
        compared(
            what, "/s", rates[OURS], f"{STORESCP}, no index", rates[STORESCP], better="more"
        ),
        compared(
            "   processor time for each", "ms", spent_ms[OURS], ORTHANC, spent_ms[ORTHANC], better="less"
        ),
        Figure(what="   index behind the last answer", unit="s", ours=behind),
    )  # fmt: skip
    assert statistics.median(rates[OURS]) > statistics.median(rates[ORTHANC])  # what the README promises
