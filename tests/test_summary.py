"""Tables and bars, from scores that are made up."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from gpnet_node.model.evaluation import bars, summary
from gpnet_node.model.evaluation.metrics import StructureMetrics
from gpnet_node.model.evaluation.scores import FINE, NETWORK, Score, load, save, write_csv
from gpnet_node.model.evaluation.speed import Speed

ATLAS = "CIT168 atlas"


def _metrics(dice: float, interface_mm: float = 0.4) -> StructureMetrics:
    return StructureMetrics(
        dice=dice,
        hd95_mm=1.0,
        surface_mm=0.3,
        volume_mm3=950,
        true_volume_mm3=1000,
        volume_error_mm3=-50,
        volume_error_percent=-5,
        centre_mm=0.3,
        centre_x_mm=0.1,
        centre_y_mm=-0.2,
        centre_z_mm=0.2,
        precision=dice,
        recall=dice,
        interface_mm=interface_mm,
    )


def _score(dice: float, **changed: object) -> Score:
    score = Score(
        cohort="A", image="a01", person="11", side="left", structure="GPe", method=NETWORK, grid=FINE,
        contrast="t2", visibility="clear", lesion="none", artefact="none", age_years=50.0, snr=20.0,
        drop_out=0.0, ventricle_mm=0.0, spacing_mm="1 x 0.4 x 0.4", extent_mm=60.0, refused=False,
        located_mm=1.0, reasons=(), predicted_dice=float("nan"), features={}, metrics=_metrics(dice),
    )  # fmt: skip
    return replace(score, **changed)  # type: ignore[arg-type]


def _cohort(
    name: str, method: str, dice: float, *, suffix: str = "", interface_mm: float = 0.4
) -> list[Score]:
    """Twelve images of six people, each Dice a little different."""
    return [
        _score(
            dice + 0.002 * number,
            cohort=name,
            method=method,
            image=f"a{number:02d}{suffix}",
            person=str(11 + number % 6),
            side=side,
            structure=structure,
            metrics=_metrics(dice + 0.002 * number, interface_mm),
        )
        for number, side, structure in product(range(12), ("left", "right"), summary.STRUCTURES)
    ]


def test_a_refused_side_is_the_worst_and_told_as_infinitely_far() -> None:
    lost = replace(_metrics(0.0), hd95_mm=float("inf"))
    scores = [_score(0.9), _score(0.8), _score(0.0, refused=True, metrics=lost)]

    assert summary.spread(scores, "dice")["worst"] == 0.0
    assert summary.spread(scores, "hd95_mm") == {
        "median": 1.0,
        "q1": 1.0,
        "q3": 1.0,
        "worst": None,
        "sides": 3,
    }


def test_a_lead_over_an_atlas_is_told_with_its_interval() -> None:
    found = summary.differences(
        _cohort("A", NETWORK, 0.88) + _cohort("A", ATLAS, 0.68), np.random.default_rng(1)
    )

    lead = found[ATLAS]["GPi"]
    assert lead.low <= lead.estimate <= lead.high
    assert lead.estimate == pytest.approx(0.2)
    assert bars.against_contenders(found).meets_aim


def test_bars_tell_what_is_met_and_what_is_not() -> None:
    good, poor = (bars.accuracy(_cohort("A", NETWORK, dice)) for dice in (0.88, 0.50))

    assert [bar.meets_must for bar in good] == [True, True, True]
    assert [bar.meets_must for bar in poor] == [False, False, True]
    assert "0.891 / 0.891" in good[0].measured


def test_a_side_with_a_lesion_is_not_the_worst_that_is_asked_for() -> None:
    scores = _cohort("A", NETWORK, 0.88)
    scores.append(_score(0.2, image="a99", lesion="lead"))

    assert bars.accuracy(scores)[1].meets_must


def test_the_interface_bar_asks_the_control_whether_the_lamina_was_seen() -> None:
    seen = _cohort("A", NETWORK, 0.90, interface_mm=0.4)
    blind = _cohort("control", NETWORK, 0.80, suffix="-control", interface_mm=0.9)
    as_good = _cohort("control", NETWORK, 0.90, suffix="-control", interface_mm=0.4)

    assert bars.interface(seen + blind).meets_must
    assert not bars.interface(seen + as_good).meets_must


def test_a_predicted_dice_is_judged_against_a_constant_guess() -> None:
    true = np.linspace(0.05, 0.95, 40)
    told = [_score(float(t), cohort="degraded", predicted_dice=float(t) + 0.02) for t in true]
    guessed = [_score(float(t), cohort="degraded", predicted_dice=0.5) for t in true]

    good, poor = (summary.calibration(scores, 0.74) for scores in (told, guessed))

    assert bars.predicted(good).meets_must
    assert not bars.predicted(poor).meets_must
    assert good["poor_flagged_percent"] == 100
    assert good["good_flagged_percent"] == pytest.approx(9.0909)


def test_one_claimed_phantom_or_too_many_refusals_miss_the_bar() -> None:
    scores = _cohort("A", NETWORK, 0.88)
    kept = {"phantom": {"refused": 39, "held for review": 1, "claimed": 0}}
    claimed = {"phantom": {"refused": 39, "held for review": 0, "claimed": 1}}
    refusing = [replace(score, refused=score.image == "a01") for score in scores]

    assert bars.absent(kept, scores).meets_must
    assert not bars.absent(claimed, scores).meets_must
    assert not bars.absent(kept, refusing).meets_must


def test_one_centre_that_lies_too_far_misses_the_localisers_bar() -> None:
    scores = _cohort("A", NETWORK, 0.88)
    lost = [replace(score, located_mm=3.4 if score.image == "a02" else 1.0) for score in scores]
    refused = [*scores, _score(0.0, structure="GPi", refused=True, located_mm=float("nan"))]

    assert bars.localiser(scores).meets_must
    assert bars.localiser(refused).meets_must  # a refusal is held against the next bar
    assert not bars.localiser(lost).meets_must
    assert "worst 3.4 mm; 22 of 24 sides" in bars.localiser(lost).measured


def test_what_was_not_measured_is_not_said_to_be_met() -> None:
    lines = [*bars.elsewhere(_cohort("A", NETWORK, 0.88)), bars.against_contenders({})]

    assert {line.meets_must for line in lines} == {None}


def test_speed_is_held_to_time_and_memory() -> None:
    quick = Speed(matrix="512 x 512 x 80", seconds=2.5, peak_gb=2.0, cores=2, busy=0.1)

    assert bars.speed(quick).meets_aim
    assert not bars.speed(replace(quick, peak_gb=3.0)).meets_must


def test_scores_survive_being_kept_infinities_and_all(tmp_path: Path) -> None:
    scores = [_score(0.0, metrics=replace(_metrics(0.0), hd95_mm=float("inf")), predicted_dice=0.4)]

    save(tmp_path / "kept.json", scores)

    assert load(tmp_path / "kept.json") == scores


def test_the_table_for_programs_has_one_line_per_score(tmp_path: Path) -> None:
    write_csv(tmp_path / "scores.csv", _cohort("A", NETWORK, 0.88))

    lines = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 48
    assert {"image", "side", "structure", "method", "dice", "hd95_mm"} <= set(lines[0].split(","))
