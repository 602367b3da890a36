"""The paper's figure of Dice per side: one box per method and structure, every side a dot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Medians per side, read off the figures of Solomon 2021 (doi:10.1002/hbm.25409), by our method's place.
PUBLISHED = {
    "GPe": {"GP-net": 0.824, "CIT168 atlas": 0.636},
    "GPi": {"GP-net": 0.839, "CIT168 atlas": 0.672},
}
_COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#999999")
_GREY, _PALE = "#555555", "#e4e4e4"
_GAP = 2.4  # between the structures, in widths of a box: the published medians are written there

DiceOfMethod = Mapping[str, Sequence[float]]


def draw_box_plot(dice: Mapping[str, DiceOfMethod], path: Path, *, title: str, caption: str) -> None:
    """Write a PNG. ``dice``: by structure (GPe, GPi), then by method in the order of drawing; one per side.

    Lines of ``caption`` should hold at most 150 characters.
    """
    figure = Figure(figsize=(12.4, 6.6), dpi=150, facecolor="white")
    axes = figure.add_axes((0.06, 0.265, 0.925, 0.615))
    methods = list(next(iter(dice.values())))
    lowest = min(min(values) for values_of in dice.values() for values in values_of.values())
    floor = max(0.0, np.floor(lowest * 10 - 0.2) / 10)
    for group, (structure, values_of) in enumerate(dice.items()):
        start = group * (len(methods) + _GAP - 1)
        _published(axes, structure, methods, start)
        for k, method in enumerate(methods):
            _box(axes, start + k, values_of[method], _COLOURS[k % len(_COLOURS)], seed=k)
            _name(axes, start + k, method, values_of[method])
        axes.text(start + (len(methods) - 1) / 2, 1.02, structure, ha="center", fontsize=14, weight="bold")
    axes.set_xlim(-0.7, len(dice) * (len(methods) + _GAP - 1) - 0.7)
    axes.set_ylim(floor, 1.0)
    _furnish(axes)
    figure.text(0.06, 0.955, title, fontsize=14, weight="bold", va="center")
    figure.text(0.06, 0.025, caption, fontsize=9, color=_GREY, va="bottom", linespacing=1.5)
    figure.savefig(path)


def _box(axes: Axes, place: float, values: Sequence[float], colour: str, *, seed: int) -> None:
    spread = np.random.default_rng(seed).uniform(-0.24, 0.24, len(values))
    axes.scatter(place + spread, values, s=10, color=colour, alpha=0.45, linewidths=0, zorder=2)
    line = {"color": colour, "linewidth": 1.6}
    axes.boxplot(
        [list(values)],
        positions=[place],
        widths=0.64,
        showfliers=False,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops={"color": "black", "linewidth": 2.2},
        manage_ticks=False,
        zorder=3,
    )


def _name(axes: Axes, place: float, method: str, values: Sequence[float]) -> None:
    """Below the axis: the method in two lines, its median, its quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    first, _, rest = method.partition(" ")
    words: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "baseline"}
    axes.text(place, -0.06, first, fontsize=9.5, **words)
    axes.text(place, -0.1, rest, fontsize=9.5, **words)
    axes.text(place, -0.16, f"{middle:.2f}", fontsize=12, weight="bold", **words)
    axes.text(place, -0.205, f"{low:.2f}-{high:.2f}", fontsize=8, color=_GREY, **words)


def _published(axes: Axes, structure: str, methods: Sequence[str], start: float) -> None:
    """A dashed line across the structure's boxes for each median of the paper, named at its right end."""
    right = start + len(methods) - 0.55
    for method, value in PUBLISHED.get(structure, {}).items():
        if method in methods:
            colour = _COLOURS[methods.index(method) % len(_COLOURS)]
            axes.plot([start - 0.5, right], [value] * 2, color=colour, lw=1.1, ls=(0, (5, 3)), zorder=1)
            words = f"{value:.3f} {method}\nSolomon 2021"
            axes.text(right + 0.06, value, words, fontsize=8, color=colour, va="center", linespacing=1.15)


def _furnish(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_ylabel("Dice per side", fontsize=11)
    axes.grid(axis="y", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
