"""The model card as a page, from scores that are made up."""

from pathlib import Path

import numpy as np

from gpnet_node.model.card import read_card
from gpnet_node.model.evaluation import bars, summary
from gpnet_node.model.evaluation.card_page import page
from gpnet_node.model.evaluation.scores import NETWORK
from tests.test_summary import ATLAS, _cohort


def test_the_page_tells_every_bar_and_says_which_is_not_met(model_folder: Path) -> None:
    table = bars.accuracy(_cohort("A", NETWORK, 0.50))

    lines = _page(model_folder, table).splitlines()

    for bar in table:
        line = next(line for line in lines if line.startswith(f"| {bar.what} |"))
        assert bar.measured in line
        assert line.endswith("| must |" if bar.meets_must else "| **no** |") or bar.meets_aim


def test_the_page_says_with_what_it_was_measured_and_on_whom(model_folder: Path) -> None:
    text = _page(model_folder, [])
    card = read_card(model_folder)

    assert "measured on 2026-11-25 with `gpnet-node evaluate`" in text
    assert "no real 7T cohort" in text
    assert card.weights_sha256[:16] in text
    assert "measured on: 11, 12, 14, 18, 19, 20" in text


def test_the_page_names_uses_licences_conditions_and_failures(model_folder: Path) -> None:
    text = _page(model_folder, [])
    card = read_card(model_folder)

    assert card.intended_use in text
    assert all(line in text for line in card.not_for)
    assert all(row["licence"] in text and row["source"] in text for row in card.data)
    assert "| medial lamina: clear |" in text
    assert "A: CIT168 atlas" in text
    assert "| interface | 0.40 (0.40-0.40), 0.40 |" in text  # the network's, not an atlas's
    assert all(f"({name}.png)" in text for name in ("failures", "dice", "curves", "real"))
    assert "- a T1: GPe left 971 mm3. To review: it is dim." in text
    assert "- a T2: no pallidum found" in text


def _page(model_folder: Path, table: list[bars.Bar]) -> str:
    scores = _cohort("A", NETWORK, 0.88) + _cohort("A", ATLAS, 0.68, interface_mm=9.9)
    worst = [
        {
            "image": "a07", "structure": "GPi", "side": "left", "dice": 0.41, "contrast": "t1",
            "visibility": "absent", "lesion": "lead", "artefact": "none", "snr": 11.0,
        }
    ]  # fmt: skip
    report = {
        "date": "2026-11-25T02:40:00+00:00",
        "command": "gpnet-node evaluate",
        "code": "0.1.0",
        "measured_on": "drawn images; no real 7T cohort was at hand",
        "medians": summary.table(scores),
        "differences": summary.differences(scores, np.random.default_rng(1)),
        "by_condition": summary.by_condition(scores),
        "worst": worst,
        "real_heads": {
            "a T1": {"volumes_mm3": {"GPe left": 971.2}, "needs_review": ("it is dim",)},
            "a T2": None,
        },
    }
    return page(read_card(model_folder), report, table)
