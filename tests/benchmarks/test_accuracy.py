"""Dice on heads drawn from people whose maps were never trained on: the figures of the model card, again."""

from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from gpnet_node.model import atlas
from gpnet_node.model.evaluate import score, summarise
from gpnet_node.model.segment import GPNetSegmenter
from gpnet_node.model.train import read_settings

pytestmark = [pytest.mark.speed, pytest.mark.timeout(1800)]
CACHE = Path(__file__).resolve().parents[2] / "build" / "anatomies"
HEADS, LEAST_MEDIAN = 10, 0.75


def test_median_dice_of_each_structure_on_ten_held_out_heads(model_folder: Path, shared_data: Path) -> None:
    people = read_settings(model_folder / "train.toml").test_people
    atlas.build(shared_data / "atlases", people, CACHE, lambda _: None)
    segmenter = GPNetSegmenter(model_folder)

    rows = summarise(list(score(segmenter, CACHE, people, HEADS)), segmenter.card)

    table = Table(
        "structure", "Dice median", "lowest", "highest", title=f"{HEADS} drawn heads of {len(people)} people"
    )
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("structure", "dice_median", "dice_lowest", "dice_highest")))
    Console().print(table)
    assert all(float(str(row["dice_median"])) >= LEAST_MEDIAN for row in rows)
