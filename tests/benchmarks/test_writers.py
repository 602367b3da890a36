"""What each kind of object costs: seconds and megabytes for a series of 512 x 512 x 80."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from gpnet_node.imaging.series import choose, read_headers, split
from gpnet_node.imaging.volume import LabelMap, assemble
from gpnet_node.model.card import read_card
from gpnet_node.result_profile import ObjectKind, ResultProfile, SegForm
from gpnet_node.results import selfcheck
from gpnet_node.results.content import Content
from gpnet_node.results.objects import write_objects
from gpnet_node.results.written import WrittenObject
from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.known_labels import ellipsoids
from tests.factories import mr_series
from tests.pallida import Head, content_of

pytestmark = pytest.mark.speed

SHAPE, SPACING_MM = (80, 512, 512), (1.0, 0.4, 0.4)
REPEATS = 3


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Content:
    paths = mr_series(
        tmp_path_factory.mktemp("series"), slices=80, rows=512, columns=512, spacing_mm=SPACING_MM
    )
    volume = assemble(choose(split(read_headers(paths))))
    labels = LabelMap(labels=ellipsoids(SHAPE, SPACING_MM), geometry=volume.geometry)
    return content_of(Head(paths=tuple(paths), volume=volume, labels=labels), read_card(model_folder))


def profiles() -> dict[str, ResultProfile]:
    """What is measured by itself; a report is written with its segmentation."""
    kinds = [kind for kind in get_args(ObjectKind) if kind not in ("seg", "sr", "refusal", "rejection")]
    return {
        "segmentation, bits": ResultProfile(objects=("seg",)),
        "segmentation, label map": ResultProfile(objects=("seg",), seg=SegForm(labelmap=True)),
        "segmentation and report": ResultProfile(),
        **{kind: ResultProfile(objects=(kind,)) for kind in kinds},
    }


@pytest.mark.parametrize("name", profiles())
def test_writing_and_checking(name: str, content: Content, figures: Figures) -> None:
    written: list[tuple[WrittenObject, ...]] = []

    def write() -> None:
        written.append(write_objects(content, [profiles()[name]])[0])

    writing = [seconds(write) for _ in range(REPEATS)]
    checking = [seconds(lambda: selfcheck.check(written[0], content)) for _ in range(REPEATS)]

    size = sum(len(it.content) for it in written[0]) / 1e6
    figures.add(
        Figure(what=f"{name}: written", unit="s", ours=writing),
        Figure(what=f"{name}: checked", unit="s", ours=checking),
        Figure(what=f"{name}: size", unit="MB", ours=[size]),
    )
    assert written[0]


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
