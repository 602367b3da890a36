import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread

from gpnet_node.model.training.curves import Journal, draw_curves, read_journal


def a_line(step: int, **more: object) -> dict[str, Any]:
    terms = {"cross_entropy": 1 / step, "tversky": 2 / step}
    return {"step": step, "loss": 3 / step, "terms": terms, "learning_rate": 1e-3, "waiting": 0.01, **more}


def test_a_line_holds_the_means_since_the_line_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "segmenter.jsonl")
    for cost in (1.0, 3.0):
        journal.add({"tversky": torch.tensor(cost)})
    journal.write(2, 1e-3, {})
    journal.add({"tversky": torch.tensor(8.0), "boundary": torch.tensor(0.5)})
    journal.write(3, 1e-3, {})

    first, second = read_journal(tmp_path / "segmenter.jsonl")

    assert first["terms"] == {"tversky": 2.0}
    assert second["terms"] == {"tversky": 8.0, "boundary": 0.5}
    assert second["loss"] == 8.5


def test_time_spent_in_the_samples_counts_as_waiting(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "segmenter.jsonl")
    busy = (torch.linalg.inv(torch.randn(200, 200)) for _ in range(3))

    for value in range(3):
        journal.wait_for([tensor] for tensor in busy)
        journal.add({"tversky": torch.tensor(float(value))})
    told = journal.write(3, 1e-3, {"Dice GPi": 0.8})

    (line,) = read_journal(tmp_path / "segmenter.jsonl")
    assert 0.1 < line["waiting"] <= 1
    assert "Dice GPi 0.800" in told
    assert "waiting for data" in told


def test_a_step_that_was_done_twice_is_told_once(tmp_path: Path) -> None:
    lines = [a_line(100), a_line(200), a_line(200, validation={"Dice GPi": 0.7}), a_line(300)]
    path = tmp_path / "segmenter.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    read = read_journal(path)

    assert [line["step"] for line in read] == [100, 200, 300]
    assert read[1]["validation"] == {"Dice GPi": 0.7}


def test_a_network_that_was_not_trained_yet_has_no_lines(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "localiser.jsonl") == []


@pytest.mark.parametrize("validation", [{}, {"validation": {"Dice GPe": 0.5, "Dice GPi": 0.4}}])
def test_the_figure_has_a_row_for_each_network_with_lines(
    tmp_path: Path, validation: dict[str, object]
) -> None:
    lines = [a_line(100), a_line(200, **validation)]

    draw_curves({"segmenter": lines, "localiser": []}, tmp_path / "one.png")
    draw_curves({"segmenter": lines, "localiser": lines}, tmp_path / "two.png")

    one, two = (imread(tmp_path / name) for name in ("one.png", "two.png"))
    assert two.shape[0] > 1.6 * one.shape[0]
    assert one[..., :3].min() < 0.2  # something is drawn


def test_no_lines_at_all_draw_no_figure(tmp_path: Path) -> None:
    draw_curves({"segmenter": [], "localiser": []}, tmp_path / "none.png")

    assert not (tmp_path / "none.png").exists()
