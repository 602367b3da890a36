"""Repeats the model's table from scratch: drawn cohorts, atlases in the same run, real images, speed.

Every image's scores and every registration are kept in the work folder, so that a run that was stopped goes
on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import tomlkit

from gpnet_node.model.card import CARD_NAME, ModelCard
from gpnet_node.model.evaluation import bars, contenders, summary
from gpnet_node.model.evaluation.bootstrap import Interval
from gpnet_node.model.evaluation.card_page import PAGE_NAME, page
from gpnet_node.model.evaluation.cohort import (
    TEST_PEOPLE,
    VALIDATE_PEOPLE,
    VALIDATION_IMAGES,
    degraded,
    set_a,
    validation,
)
from gpnet_node.model.evaluation.contenders import CANDIDATES, CHOSEN
from gpnet_node.model.evaluation.figures import draw_dice, failure
from gpnet_node.model.evaluation.panels import draw_panels
from gpnet_node.model.evaluation.real_images import RealHead, real_heads, template_dice
from gpnet_node.model.evaluation.scores import FINE, Score, write_csv
from gpnet_node.model.evaluation.speed import measure
from gpnet_node.model.evaluation.stages import (
    Evaluation,
    build_anatomies,
    open_segmenter,
    score_cases,
    score_contenders,
    score_sets,
    try_absent,
)
from gpnet_node.model.quality import fit_predicted_dice
from gpnet_node.model.training.release import code_version

_FAILURES = "The worst images of set A. Orange GPe, blue GPi; solid: found, dashed: truth. Bar 10 mm."
_REAL = "Real heads, no truth. Orange GPe, blue GPi. Bar 10 mm."


def evaluate_test(evaluation: Evaluation) -> list[bars.Bar]:
    """Write ``evaluation.json``, ``scores.csv``, ``CARD.md`` and its pictures; the bars.

    Raises ConfigurationError for weights that were trained on a person of the cohort.
    """
    segmenter = open_segmenter(evaluation, TEST_PEOPLE)
    build_anatomies(evaluation, (*TEST_PEOPLE, *contenders.FUSED_PEOPLE), judged=TEST_PEOPLE)
    everything = score_sets(evaluation, segmenter.card)
    if not evaluation.network_only:
        everything += score_contenders(evaluation, set_a(), "A", CANDIDATES[CHOSEN])
    poor = score_cases(evaluation, segmenter.card, "degraded", degraded(TEST_PEOPLE, seed=6))
    outcomes = try_absent(evaluation, segmenter.card)
    evaluation.progress("real images and speed", 0, 2)
    on_template = template_dice(segmenter, evaluation.atlases)
    heads = dict(real_heads(segmenter, evaluation.atlases.parent))
    evaluation.progress("real images and speed", 1, 2)
    speed = measure(evaluation.model, evaluation.anatomies)
    evaluation.progress("real images and speed", 2, 2)

    rng = np.random.default_rng(20261122)
    differences = summary.differences(everything, rng)
    threshold = segmenter.card.quality.threshold if segmenter.card.quality else 0.0
    trusted = summary.calibration(poor, threshold)
    table = [
        *bars.accuracy(everything),
        bars.against_contenders(differences),
        bars.interface(everything),
        *bars.elsewhere(everything),
        bars.template(on_template),
        bars.predicted(trusted),
        bars.localiser(everything),
        bars.absent(outcomes, everything),
        bars.speed(speed),
    ]
    worst = summary.worst_images(everything)
    report = _heading(evaluation, segmenter.card) | {
        "bars": [asdict(bar) for bar in table],
        "medians": summary.table([*everything, *poor]),
        "intervals": _plain(summary.intervals(everything, rng)),
        "differences": _plain(differences),
        "by_condition": summary.by_condition(everything),
        "predicted_dice": trusted,
        "no_pallidum": outcomes,
        "template_whole_gp_dice": on_template,
        "real_heads": {name: _told(head) for name, head in heads.items()},
        "worst": [_case_told(score) for score in worst],
        "speed": asdict(speed),
    }
    _write(evaluation, report, [*everything, *poor])
    (evaluation.out / PAGE_NAME).write_text(page(segmenter.card, report, table), encoding="utf-8")
    source = f"{evaluation.now:%Y-%m-%d}, {evaluation.command}"
    draw_dice(everything, evaluation.out / "dice.png", model=segmenter.card.name, source=source)
    cases = {case.name: case for case in set_a()}
    panels = [failure(segmenter, evaluation.anatomies, cases[score.image], score) for score in worst]
    draw_panels(panels, evaluation.out / "failures.png", _FAILURES)
    if any(heads.values()):
        panels = [panel for head in heads.values() if head for panel in head.panels]
        draw_panels(panels, evaluation.out / "real.png", _REAL)
    return table


def evaluate_validation(evaluation: Evaluation) -> list[bars.Bar]:
    """Choose on the validation people: fit the predicted Dice, and compare the contenders' settings.

    Writes the card's ``[quality]`` table and ``validation.json``; returns the medians of network and
    contenders as lines without a bar.
    """
    segmenter = open_segmenter(evaluation, VALIDATE_PEOPLE)
    build_anatomies(evaluation, (*VALIDATE_PEOPLE, *contenders.FUSED_PEOPLE))
    good = score_cases(evaluation, segmenter.card, "validation", validation())
    degraded_too = degraded(VALIDATE_PEOPLE, seed=9, count=VALIDATION_IMAGES)
    poor = score_cases(evaluation, segmenter.card, "degraded validation", degraded_too)
    rows = [s for s in summary.select([*good, *poor], grid=FINE) if not s.refused]
    regression = fit_predicted_dice(
        [row.features for row in rows],
        [row.metrics.dice for row in rows],
        fitted_on=f"{len(rows)} structures of people {', '.join(VALIDATE_PEOPLE)}, {evaluation.now:%Y-%m-%d}",
    )
    path = evaluation.model / CARD_NAME
    card = tomlkit.parse(path.read_text(encoding="utf-8"))
    card["quality"] = regression.model_dump(mode="json")
    path.write_text(tomlkit.dumps(card), encoding="utf-8")
    tried: list[Score] = []
    for name, settings in ({} if evaluation.network_only else CANDIDATES).items():
        tried += [
            replace(score, cohort=name)
            for score in score_contenders(evaluation, validation(), "validation", settings)
        ]
    report = _heading(evaluation, segmenter.card) | {
        "network": summary.table([*good, *poor]),
        "contenders": summary.table(tried) if tried else {},
        "regression": regression.model_dump(mode="json"),
    }
    evaluation.out.mkdir(parents=True, exist_ok=True)
    (evaluation.out / "validation.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return bars.medians([*good, *poor, *tried])


# -- what is written -----------------------------------------------------------------------------------------


def _write(evaluation: Evaluation, report: Mapping[str, object], scores: Sequence[Score]) -> None:
    evaluation.out.mkdir(parents=True, exist_ok=True)
    (evaluation.out / "evaluation.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    write_csv(evaluation.out / "scores.csv", scores)


def _heading(evaluation: Evaluation, card: ModelCard) -> dict[str, object]:
    return {
        "date": evaluation.now.isoformat(timespec="seconds"),
        "command": evaluation.command,
        "code": code_version(),
        "model": {"name": card.name, "version": card.version, "weights_sha256": card.weights_sha256},
        "measured_on": "drawn images of people who were never trained on; no real 7T cohort was at hand",
    }


def _plain(intervals: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {
            structure: {key: round(value, 4) for key, value in asdict(interval).items()}
            for structure, interval in of.items()
        }
        for name, of in intervals.items()
    }


def _told(head: RealHead | None) -> dict[str, object] | None:
    return None if head is None else {k: v for k, v in vars(head).items() if k != "panels"}


def _case_told(score: Score) -> dict[str, object]:
    kept = (
        "image",
        "person",
        "side",
        "structure",
        "contrast",
        "visibility",
        "lesion",
        "artefact",
        "snr",
        "spacing_mm",
    )
    return {name: getattr(score, name) for name in kept} | {"dice": round(score.metrics.dice, 3)}
