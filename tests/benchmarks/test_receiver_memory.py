"""How much the receiver grows over 10,000 instances."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gpnet_node.parts import Role
from gpnet_node.store.states import SeriesState
from tests.benchmarks.conftest import Scale
from tests.benchmarks.figures import Bar, Figure, Figures
from tests.benchmarks.memory import peak_mb, resident_mb
from tests.benchmarks.scanner import Printer, child_named, send
from tests.nodes import RunningNode, configuration_of, running_node
from tests.peers import orthanc, wait_until

pytestmark = pytest.mark.speed
BAR_MB = 50.0
FIRST = 200  # images of the series before which nothing is measured


@pytest.mark.parametrize("length", [200, None], ids=["series of 200", "one series"])
def test_the_receiver_grows_by_less_than_50_mb_over_10000_instances(
    length: int | None, scale: Scale, figures: Figures, scratch: Path
) -> None:
    """Each series comes on an association of its own and is looked into when it is quiet, as in earnest.

    A single long series is the harder case: all its headers are looked at together.
    """
    folder = scratch / f"small instances, {length}"
    printer = Printer(folder / "prototype", side=64)
    each = min(length or scale.small_instances, scale.small_instances)
    count = scale.small_instances // each
    series = [printer.series(folder / "first", FIRST)]
    series += [printer.series(folder / f"{number}", each) for number in range(count)]
    with (
        running_node(configuration_of(folder, log_level="warning"), Role.RECEIVER) as node,
        orthanc(folder / "orthanc") as pacs,
    ):
        receiver = node.supervisor.process_id(Role.RECEIVER)
        assert receiver is not None
        ours = growth(receiver, node.port, "GPNET", series, settled=lambda n: decided(node) == n)
        peak = peak_mb(receiver)

        def held_by_orthanc(number: int) -> bool:
            return int(pacs.get("/statistics")["CountInstances"]) == FIRST + (number - 1) * each

        theirs = growth(child_named("Orthanc").pid, pacs.dicom_port, "PACS", series, settled=held_by_orthanc)

    words = f"over {count * each} small instances in {count} series"
    bar = Bar(words=f"under {BAR_MB:.0f} MB", met=ours < BAR_MB, hard=True)
    ratio = theirs / ours if min(ours, theirs) > 0 else None
    figures.add(
        Figure(what=f"receiver's largest size {words}", unit="MB", ours=[peak]),
        Figure(
            what=f"receiver's growth {words}", unit="MB", ours=[ours], peer="Orthanc", theirs=[theirs],
            ratio=ratio, bar=bar,
        ),
    )  # fmt: skip


def growth(
    process_id: int, port: int, called: str, series: list[Path], *, settled: Callable[[int], bool]
) -> float:
    """MB that a process gains from the first series to the last; ``settled`` tells that so many are done."""
    send(port, called, series[:1])
    wait_until(lambda: settled(1), what="the first series being settled")
    before = resident_mb(process_id)
    for folder in series[1:]:
        send(port, called, [folder])
    wait_until(lambda: settled(len(series)), seconds=120, what="all series being settled")
    return resident_mb(process_id) - before


def decided(node: RunningNode) -> int:
    return node.parts.index.counts().get(SeriesState.COMPLETE, 0)
