"""The benchmarks' size, their two cores, and the table that they end with."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.figures import Figures
from tests.benchmarks.population import Holder, Population, holding, new_population
from tests.peers import DcmtkStoreScp, dcmtk_storescp

CORES = 2  # what the bars are given for
_FIGURES = pytest.StashKey[Figures]()


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured. The environment may ask for less, to try the benchmarks out."""

    repeats: int
    instances: int  # of 512 x 512, sent in each turn
    small_instances: int  # of 64 x 64, for the receiver's memory
    series: int  # of 512 x 512 x 80, sent one after the other
    studies: int  # to be asked for
    images_of_study: int


FULL = Scale(repeats=5, instances=200, small_instances=10_000, series=3, studies=1000, images_of_study=100)


@pytest.fixture(scope="session")
def scale() -> Scale:
    """Full size, or what GPNET_BENCH_REPEATS, _INSTANCES, _STUDIES and the like say."""
    wanted = {name: os.environ.get(f"GPNET_BENCH_{name.upper()}") for name in vars(FULL)}
    return Scale(**{name: int(wanted[name] or getattr(FULL, name)) for name in wanted})


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest, scale: Scale) -> Figures:
    """What this run has measured; printed at its end."""
    collected = request.config.stash[_FIGURES]
    sizes = ", ".join(f"{name} {value}" for name, value in vars(scale).items())
    collected.circumstances.append(
        f"Median (range) of repeats that took turns; {sizes.replace('_', ' ')}; "
        f"ratio above 1: gpnet_node is better."
    )
    if scale != FULL:
        collected.circumstances.append("REDUCED SIZE: for trying out only.")
    return collected


@pytest.fixture(scope="session", autouse=True)
def two_cores(figures: Figures) -> Iterator[None]:
    """Keep everything, peers too, on two cores, and say how busy they were before."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(everywhere)[:CORES])
    load = os.getloadavg()[0]
    busy = load > len(everywhere) / 4
    figures.circumstances.append(
        f"On {min(CORES, len(everywhere))} of {len(everywhere)} cores; load {load:.1f} before"
        + (": THE MACHINE WAS BUSY, absolute figures say little." if busy else ".")
    )
    yield
    os.sched_setaffinity(0, everywhere)


@pytest.fixture(scope="session", autouse=True)
def peers_at_their_best(figures: Figures) -> Iterator[None]:
    """Let DCMTK, in Orthanc too, send small packets at once: by default each of its answers waits 40 ms.

    Nagle's algorithm holds back the second part of an answer until the first is acknowledged, which the
    other side delays.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCP_NODELAY", "1")
        figures.circumstances.append("DCMTK and Orthanc run with TCP_NODELAY=1, which is not their default.")
        yield


@pytest.fixture(scope="session")
def scratch(figures: Figures) -> Iterator[Path]:
    """Room for gigabytes that are removed in the end: below GPNET_BENCH_FOLDER, or the system's temporary."""
    with tempfile.TemporaryDirectory(prefix="gpnet-bench-", dir=os.environ.get("GPNET_BENCH_FOLDER")) as name:
        mounts = [
            disk for disk in psutil.disk_partitions(all=True) if Path(name).is_relative_to(disk.mountpoint)
        ]
        kind = max(mounts, key=lambda disk: len(disk.mountpoint)).fstype
        figures.circumstances.append(
            f"Files on {kind}" + (", WHERE fsync COSTS NOTHING." if kind in ("tmpfs", "ramfs") else ".")
        )
        yield Path(name)


@pytest.fixture(scope="session")
def population(scratch: Path, scale: Scale) -> Population:
    """What is asked for."""
    return new_population(
        scratch / "prototype of a query", studies=scale.studies, images=scale.images_of_study
    )


@pytest.fixture(scope="session")
def third(scratch: Path) -> Iterator[DcmtkStoreScp]:
    """Who gets what a C-MOVE sends."""
    with dcmtk_storescp(scratch / "third", "--fork") as scp:
        yield scp


@pytest.fixture(scope="session")
def holders(scratch: Path, population: Population, third: DcmtkStoreScp) -> Iterator[dict[str, Holder]]:
    """The node and Orthanc, both with the same instances."""
    with holding(scratch / "held", population, third.port) as holders:
        yield holders


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = Figures()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[_FIGURES]
    if figures.lines:
        terminalreporter.write_line("")
        width = max(120, terminalreporter._tw.fullwidth)
        terminalreporter.write(figures.table(width=width, coloured=terminalreporter.hasmarkup))
