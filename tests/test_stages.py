"""What an evaluation keeps, and who does its work. People are made; the network is the shipped one."""

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from gpnet_node.errors import NoPallidumError
from gpnet_node.model.card import read_card
from gpnet_node.model.evaluation.cohort import set_a
from gpnet_node.model.evaluation.scores import FINE, NATIVE
from gpnet_node.model.evaluation.stages import Evaluation, processes, score_cases
from tests.drawn import CLEAR, MODEL
from tests.made_people import an_evaluation, keep_people

CASE = replace(
    set_a()[0],
    scene=CLEAR,
    spacing_mm=(2.4, 1.6, 1.6),
    slices=24,
    turned_degrees=(0, 0, 0),
    centre_mm=(0, 0, 0),
)


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def evaluation(work: Path, pool: Executor, told: list[tuple[str, int, int]] | None = None) -> Evaluation:
    (work / "anatomies").mkdir(exist_ok=True)
    keep_people(work / "anatomies")
    told = [] if told is None else told
    return an_evaluation(work, pool, model=MODEL, progress=lambda *step: told.append(step))


def kept(work: Path) -> list[Path]:
    return sorted(work.glob("scores-*/*.json"))


def test_each_case_gets_a_row_for_every_side_structure_and_grid(tmp_path: Path, pool: Executor) -> None:
    told: list[tuple[str, int, int]] = []

    scores = score_cases(evaluation(tmp_path, pool, told), read_card(MODEL), "A", [CASE])

    assert sorted((s.side, s.structure, s.grid) for s in scores) == sorted(
        (side, structure, grid)
        for side in ("left", "right")
        for structure in ("GPe", "GPi")
        for grid in (FINE, NATIVE)
    )
    assert told == [("GP-net on A", 1, 1)]


def test_what_was_scored_is_taken_from_where_it_is_kept(tmp_path: Path, pool: Executor) -> None:
    run = evaluation(tmp_path, pool)
    score_cases(run, read_card(MODEL), "A", [CASE])
    [path] = kept(tmp_path)
    rows = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps([row | {"person": "kept"} for row in rows]), encoding="utf-8")

    again = score_cases(run, read_card(MODEL), "A", [CASE])

    assert {score.person for score in again} == {"kept"}


def test_another_scene_or_other_weights_are_scored_anew(tmp_path: Path, pool: Executor) -> None:
    run, card = evaluation(tmp_path, pool), read_card(MODEL)
    score_cases(run, card, "A", [CASE])

    score_cases(run, card, "A", [replace(CASE, scene=replace(CLEAR, snr=9.0))])
    score_cases(run, card.model_copy(update={"weights_sha256": "other"}), "A", [CASE])

    assert len(kept(tmp_path)) == 3


def test_the_pool_of_an_evaluation_is_one_process_for_each_core(tmp_path: Path) -> None:
    with processes() as pool:
        scores = score_cases(evaluation(tmp_path, pool), read_card(MODEL), "A", [CASE])

    assert len(scores) == 8


def test_a_task_that_fails_ends_the_run(tmp_path: Path, pool: Executor) -> None:
    def failing(number: int) -> None:
        raise NoPallidumError(f"task {number}")

    with pytest.raises(NoPallidumError, match="task 1"):
        evaluation(tmp_path, pool).each(failing, [(1,)], "a stage")
