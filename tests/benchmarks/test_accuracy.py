"""Dice on the first images of the fixed test cohort: whether the shipped weights still do what they did.

``gpnet-node evaluate --cohort test`` measures everything that the card states.
"""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from gpnet_node.errors import NoPallidumError
from gpnet_node.model.drawing import atlas
from gpnet_node.model.evaluation.cohort import TEST_PEOPLE, Case, as_volume, draw, set_a
from gpnet_node.model.evaluation.scores import FINE, Score, score_network, values
from gpnet_node.model.evaluation.summary import STRUCTURES, select
from gpnet_node.model.segment import GPNetSegmenter

pytestmark = [pytest.mark.speed, pytest.mark.timeout(1800)]
CACHE = Path(__file__).resolve().parents[2] / "build" / "anatomies"
IMAGES, LEAST_MEDIAN = 12, 0.75


def test_median_dice_of_each_structure_on_twelve_images_of_the_test_cohort(
    model_folder: Path, shared_data: Path
) -> None:
    atlas.build(shared_data / "atlases", TEST_PEOPLE, CACHE, lambda _: None)
    segmenter = GPNetSegmenter(model_folder)

    scores = [score for case in set_a()[:IMAGES] for score in _scores(case, segmenter)]

    table = Table(
        "structure", "Dice median", "lowest", title=f"{IMAGES} drawn images, {len(TEST_PEOPLE)} people"
    )
    medians = []
    for structure in STRUCTURES:
        found = values(select(scores, grid=FINE, structure=structure), "dice")
        medians.append(float(np.median(found)))
        table.add_row(structure, f"{medians[-1]:.3f}", f"{found.min():.3f}")
    Console().print(table)
    assert min(medians) >= LEAST_MEDIAN


def _scores(case: Case, segmenter: GPNetSegmenter) -> list[Score]:
    drawn = draw(case, CACHE, segmenter.card)
    try:
        found = segmenter.segment(as_volume(drawn))
    except NoPallidumError:
        found = None
    return list(score_network("A", case, drawn, found, segmenter.card))
