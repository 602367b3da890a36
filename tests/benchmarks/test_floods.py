"""What a scanner can pour into the door: ten thousand series at once, and one image of two gigabytes."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpnet_node.parts import Role
from gpnet_node.store.states import SeriesState
from tests.benchmarks.figures import Bar, Figure, Figures
from tests.benchmarks.memory import peak_mb, resident_mb
from tests.benchmarks.scanner import Printer, send
from tests.factories import enhanced_mr, rewrite, with_undefined_lengths
from tests.nodes import RunningNode, configuration_of, running_node
from tests.peers import echoscu, wait_until
from tests.receiving import store

pytestmark = [pytest.mark.speed, pytest.mark.timeout(1200)]
SERIES = int(os.environ.get("GPNET_BENCH_TINY_SERIES", "10000"))
BAR_MB = 50.0
FRAMES, SIDE = 4000, 512  # 2,097,152,000 bytes of pixels


def test_ten_thousand_tiny_series_are_all_kept_and_decided_in_bounded_memory(
    figures: Figures, scratch: Path
) -> None:
    folder = scratch / "tiny series"
    printer = Printer(folder / "prototype", side=16)
    for number in range(SERIES):
        printer.series(folder / "sent" / f"{number:05d}", 1)
    with running_node(configuration_of(folder, log_level="warning"), Role.RECEIVER) as node:
        before = resident_mb(receiver_of(node))
        send(node.port, "GPNET", [folder / "sent"], subfolders=True)
        assert echoscu(node.port).returncode == 0
        wait_until(lambda: decided(node) == SERIES, seconds=600, what="every series being decided")
        growth = resident_mb(receiver_of(node)) - before

    bar = Bar(words=f"under {BAR_MB:.0f} MB", met=growth < BAR_MB, hard=True)
    figures.add(
        Figure(what=f"receiver's growth over {SERIES} series of one image", unit="MB", ours=[growth], bar=bar)
    )


def test_an_image_of_two_gigabytes_is_kept_in_bounded_memory(figures: Figures, scratch: Path) -> None:
    folder = scratch / "two gigabytes"
    path = two_gigabytes(folder / "sent")
    with running_node(configuration_of(folder, log_level="warning"), Role.RECEIVER) as node:
        before = resident_mb(receiver_of(node))
        (answer,) = store(node.port, path)  # storescu would work out the lengths
        assert answer.Status == 0x0000
        wait_until(lambda: decided(node) == 1, seconds=120, what="the series being decided")
        growth = peak_mb(receiver_of(node)) - before
        (series,) = node.parts.index.newest_series()
        (kept,) = node.parts.index.instances(series.uid)
        assert (node.parts.archive.root / kept.path).stat().st_size > FRAMES * SIDE * SIDE * 2
    shutil.rmtree(folder)

    bar = Bar(words=f"under {BAR_MB:.0f} MB", met=growth < BAR_MB, hard=True)
    figures.add(
        Figure(what="receiver's peak growth over an image of 2 GB", unit="MB", ours=[growth], bar=bar)
    )


def receiver_of(node: RunningNode) -> int:
    process_id = node.supervisor.process_id(Role.RECEIVER)
    assert process_id is not None
    return process_id


def decided(node: RunningNode) -> int:
    return node.parts.index.counts().get(SeriesState.COMPLETE, 0)


def two_gigabytes(folder: Path) -> Path:
    """A multi-frame image whose pixels are a hole in the file: quick to make, long to send.

    Each frame has its functional groups, and no sequence its length.
    """
    path = enhanced_mr(folder, voxels=np.zeros((FRAMES, 1, 1), np.uint16))
    rewrite(with_undefined_lengths(path), Rows=SIDE, Columns=SIDE, PixelData=None)
    length = FRAMES * SIDE * SIDE * 2
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + length.to_bytes(4, "little"))
        file.truncate(file.tell() + length)
    return path
