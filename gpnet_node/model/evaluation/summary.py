"""What many scores come to: medians, quartiles and worst; differences with intervals; by condition."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnet_node.model.evaluation.bootstrap import Interval, clustered, difference_of_medians, median
from gpnet_node.model.evaluation.scores import FINE, NETWORK, Score, values
from gpnet_node.model.quality import POOR_DICE

METRICS = (
    "dice",
    "hd95_mm",
    "surface_mm",
    "interface_mm",
    "centre_mm",
    "centre_x_mm",
    "centre_y_mm",
    "centre_z_mm",
    "volume_error_mm3",
    "volume_error_percent",
    "precision",
    "recall",
)
_BETTER_WHEN_MORE = ("dice", "precision", "recall")
_SIGNED = ("centre_x_mm", "centre_y_mm", "centre_z_mm", "volume_error_mm3", "volume_error_percent")
CONDITIONS = ("contrast", "visibility", "lesion", "artefact", "spacing_mm", "ventricle_mm", "person")
STRUCTURES = ("GPe", "GPi")

Table = dict[str, object]


def spread(scores: Sequence[Score], metric: str) -> dict[str, float | int | None]:
    """Median, quartiles and worst of one metric; None stands for "infinitely far", which JSON cannot say."""
    found = values(scores, metric)
    if metric in _SIGNED:
        worst = found[np.argmax(np.abs(found))]
    else:
        worst = found.min() if metric in _BETTER_WHEN_MORE else found.max()
    low, high = np.percentile(found, [25, 75], method="closest_observation")  # infinities stay what they are
    return {
        "median": _number(np.median(found)),
        "q1": _number(low),
        "q3": _number(high),
        "worst": _number(worst),
        "sides": len(found),
    }


def table(scores: Sequence[Score]) -> Table:
    """Every metric by cohort, method, grid and structure; which is which is in the keys."""
    keys = sorted({(s.cohort, s.method, s.grid) for s in scores})
    result: Table = {}
    for cohort, method, grid in keys:
        rows = select(scores, cohort=cohort, method=method, grid=grid)
        result[f"{cohort}: {method}, {grid}"] = {
            structure: {metric: spread(select(rows, structure=structure), metric) for metric in METRICS}
            for structure in STRUCTURES
        }
    return result


def by_condition(scores: Sequence[Score]) -> Table:
    """Median and worst Dice of the network on set A, by each condition."""
    mine = select(scores, cohort="A", method=NETWORK, grid=FINE)
    return {
        condition: {
            str(value): {
                structure: spread(select(mine, structure=structure, **{condition: value}), "dice")
                for structure in STRUCTURES
            }
            for value in sorted({getattr(s, condition) for s in mine})
        }
        for condition in CONDITIONS
    }


def differences(scores: Sequence[Score], rng: np.random.Generator) -> dict[str, dict[str, Interval]]:
    """Median Dice of the network less each contender's on set A, 95 % interval of the clustered bootstrap."""
    rows = select(scores, cohort="A", grid=FINE)
    methods = sorted({s.method for s in rows} - {NETWORK})
    result: dict[str, dict[str, Interval]] = {}
    for method in methods:
        result[method] = {}
        for structure in STRUCTURES:
            ours, people = per_image(select(rows, method=NETWORK, structure=structure))
            theirs, _ = per_image(select(rows, method=method, structure=structure))
            pairs = np.stack([ours, theirs], -1)
            result[method][structure] = clustered(pairs, people, difference_of_medians, rng)
    return result


def intervals(scores: Sequence[Score], rng: np.random.Generator) -> dict[str, dict[str, Interval]]:
    """Median Dice of the network on each cohort with its 95 % interval."""
    result: dict[str, dict[str, Interval]] = {}
    for cohort in sorted({s.cohort for s in scores}):
        result[cohort] = {}
        for structure in STRUCTURES:
            rows = select(scores, cohort=cohort, method=NETWORK, grid=FINE, structure=structure)
            result[cohort][structure] = clustered(*per_image(rows), median, rng)
    return result


def calibration(scores: Sequence[Score], threshold: float) -> dict[str, float | int | None]:
    """How well the predicted Dice tells the true one, structure by structure, on poor and good images.

    ``flagged``: the structure's predicted Dice is below the card's threshold, or the image was refused.
    The constant guess is the median of the true Dice.
    """
    rows = select(scores, method=NETWORK, grid=FINE)
    true = values(rows, "dice")
    predicted = np.array([0.0 if s.refused else s.predicted_dice for s in rows])
    told = ~np.isnan(predicted)
    if not told.any():
        return {"structures": 0}
    flagged = np.array([s.refused for s in rows]) | (predicted < threshold)
    poor = true < POOR_DICE
    error = float(np.abs(predicted - true)[told].mean())
    constant = float(np.abs(true - np.median(true))[told].mean())
    return {
        "structures": int(told.sum()),
        "lowest_dice": _number(true.min()),
        "highest_dice": _number(true.max()),
        "error": _number(error),
        "error_of_constant": _number(constant),
        "error_below_constant_percent": _number(100 * (1 - error / constant)) if constant else None,
        "spearman": _number(_spearman(predicted[told], true[told])),
        "poor": int(poor.sum()),
        "poor_flagged_percent": _number(100 * flagged[poor].mean()) if poor.any() else None,
        "good_flagged_percent": _number(100 * flagged[~poor].mean()) if (~poor).any() else None,
    }


def worst_images(scores: Sequence[Score], count: int = 3) -> list[Score]:
    """Of set A: the lowest Dice of each image's structures, the worst images first."""
    rows = sorted(select(scores, cohort="A", method=NETWORK, grid=FINE), key=lambda s: s.metrics.dice)
    seen: dict[str, Score] = {}
    for score in rows:
        seen.setdefault(score.image, score)
    return list(seen.values())[:count]


def select(scores: Sequence[Score], **wanted: object) -> list[Score]:
    """The scores whose fields have these values."""
    return [s for s in scores if all(getattr(s, key) == value for key, value in wanted.items())]


def per_image(
    scores: Sequence[Score], value: Callable[[Score], float] = lambda s: s.metrics.dice
) -> tuple[NDArray[np.float64], list[str]]:
    """One structure's values as (image, side), and the person of each image."""
    images = sorted({s.image for s in scores})
    of: Mapping[tuple[str, str], Score] = {(s.image, s.side): s for s in scores}
    sides = sorted({s.side for s in scores})
    found = np.array([[value(of[image, side]) for side in sides] for image in images])
    return found, [of[image, sides[0]].person for image in images]


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlation of ranks; NaN where one of them is constant."""
    from scipy.stats import spearmanr  # noqa: PLC0415 - slow to import, and for this alone

    if min(np.ptp(one), np.ptp(other)) == 0:
        return float("nan")
    return float(spearmanr(one, other).statistic)


def _number(value: float | np.floating[Any]) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
