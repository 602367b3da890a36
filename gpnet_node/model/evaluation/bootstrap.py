"""Medians over sides that know how few people they come from: 43 images of 6 people are not 86 subjects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
Statistic = Callable[[NDArray[np.float64]], float]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float


def clustered(
    values: NDArray[np.float64],
    people: Sequence[str],
    statistic: Statistic,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap that draws people with replacement, then images of each person drawn.

    ``values``: (image, ...), one entry of ``people`` per image; ``statistic`` sees an array of that form.
    Raises ValueError when there is not one person per image.
    """
    if len(values) != len(people) or not len(values):
        raise ValueError(f"{len(values)} images, {len(people)} people named")
    images_of = [np.flatnonzero(np.array(people) == person) for person in sorted(set(people))]
    found = np.empty(resamples)
    for i in range(resamples):
        drawn = (images_of[k] for k in rng.integers(len(images_of), size=len(images_of)))
        chosen = np.concatenate([images[rng.integers(len(images), size=len(images))] for images in drawn])
        found[i] = statistic(values[chosen])
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(estimate=statistic(values), low=float(low), high=float(high))


def median(values: NDArray[np.float64]) -> float:
    """Median over images and sides."""
    return float(np.median(values))


def difference_of_medians(values: NDArray[np.float64]) -> float:
    """Median of the first method less that of the second; ``values``: (image, side, 2)."""
    return float(np.median(values[..., 0]) - np.median(values[..., 1]))
