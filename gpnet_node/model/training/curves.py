"""How a training went: one line of JSON for every save, and a figure of them."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

_COLOURS = ("black", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#666666")


class Journal:
    """Means over the steps since the last line. A resumed run appends to the same file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._waited, self._steps, self._began = 0.0, 0, time.monotonic()

    def wait_for(self, batches: Iterator[list[Tensor]]) -> list[Tensor]:
        """The next batch; how long it took counts as waiting for data."""
        asked = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - asked
        return batch

    def add(self, terms: dict[str, Tensor]) -> None:
        """What one step cost, by term."""
        self._steps += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
            self._counts[name] = self._counts.get(name, 0) + 1

    def write(self, step: int, learning_rate: float, validation: dict[str, float]) -> str:
        """Append a line; the same as a sentence for the one who watches."""
        seconds = time.monotonic() - self._began
        terms = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        line: dict[str, object] = {
            "step": step,
            "loss": round(sum(terms.values()), 5),
            "terms": {name: round(value, 6) for name, value in terms.items()},
            "learning_rate": learning_rate,
            "seconds_per_step": round(seconds / max(1, self._steps), 3),
            "waiting": round(self._waited / seconds, 4),
        }
        if validation:
            line["validation"] = {name: round(value, 4) for name, value in validation.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        told = "".join(f", {name} {value:.3f}" for name, value in validation.items())
        sentence = (
            f"step {step}: loss {line['loss']}{told}; {line['seconds_per_step']} s a step, "
            f"{self._waited / seconds:.1%} of it waiting for data"
        )
        self._reset()
        return sentence

    def restart_clock(self) -> None:
        """What was done since the last line was no step: validating, saving."""
        self._began = time.monotonic()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Lines in the order of their steps. Of a step that a stopped run did twice, the last line counts."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    by_step = {line["step"]: line for line in map(json.loads, text.splitlines())}
    return [by_step[step] for step in sorted(by_step)]


def draw_curves(journals: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Write a PNG: for each network, one row, its loss by terms, its validation and its learning rate.

    ``journals``: lines of :class:`Journal` by the network's name; a network without lines has no row,
    and where no network has any there is no figure.
    """
    rows = {name: lines for name, lines in journals.items() if lines}
    if not rows:
        return
    figure = Figure(figsize=(13, 0.9 + 3.5 * len(rows)), dpi=110, facecolor="white", layout="constrained")
    grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(1.4, 1.2, 0.8))
    for (loss, validation, rate), (name, lines) in zip(grid, rows.items(), strict=True):
        steps = [line["step"] for line in lines]
        _lines(loss, {"all terms": (steps, [line["loss"] for line in lines])} | _series(lines, "terms"))
        loss.set_yscale("log")
        loss.set_title(f"{name}: loss, mean since the point before", loc="left", fontsize=11)
        told = _series(lines, "validation")
        _lines(validation, told)
        validation.set_title("averaged weights, on the validation people", loc="left", fontsize=11)
        if all(key.startswith("Dice") for key in told):
            validation.set_ylim(0, 1)
        rate.plot(steps, [line["learning_rate"] for line in lines], color="black", linewidth=1.2)
        rate.set_ylim(bottom=0)
        rate.set_title("learning rate", loc="left", fontsize=11)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, -3))
        for axes in (loss, validation, rate):
            axes.set_xlabel("step")
            axes.set_xlim(0, max(steps) * 1.02)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.grid(color="#e4e4e4", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _series(lines: Sequence[Mapping[str, Any]], table: str) -> dict[str, tuple[list[int], list[float]]]:
    """One curve for each name in a table of the lines; a term may begin late, validation is not in each."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        for name, value in line.get(table, {}).items():
            steps, values = curves.setdefault(name.replace("_", " "), ([], []))
            steps.append(line["step"])
            values.append(value)
    return curves if len(curves) > 1 or table != "terms" else {}  # one term is the loss itself


def _lines(axes: Axes, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    for (name, (steps, values)), colour in zip(curves.items(), itertools.cycle(_COLOURS), strict=False):
        style = "--" if name.startswith("head") else "-"
        axes.plot(
            steps,
            values,
            style,
            color=colour,
            linewidth=1.4,
            label=name,
            marker="." if len(steps) < 40 else "",
        )
    if curves:
        axes.legend(fontsize=8.5, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
