"""Measured figures: repeats that take turns, medians, and the table at the end."""

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a figure should be: below or above a limit. A hard bar fails its test, an aim does not."""

    words: str
    met: bool
    hard: bool


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table. The samples are of repeats; what is compared and shown is their median.

    ``ratio``: above 1 means better than the peer.
    """

    what: str
    unit: str
    ours: Sequence[float]
    peer: str = ""
    theirs: Sequence[float] = ()
    ratio: float | None = None
    bar: Bar | None = None


@dataclass(kw_only=True)
class Figures:
    """What has been measured in this run."""

    circumstances: list[str] = field(default_factory=list)
    lines: list[Figure] = field(default_factory=list)

    def add(self, *figures: Figure) -> None:
        """Put figures into the table, then fail if one misses a hard bar."""
        self.lines += figures
        for figure in figures:
            if figure.bar is not None and figure.bar.hard:
                reached = f"{figure.what}: {_shown(figure.ours)} {figure.unit}"
                assert figure.bar.met, f"{reached}; it should be {figure.bar.words}"

    def table(self, *, width: int, coloured: bool) -> str:
        """Return the table as text."""
        table = Table(title="Speed and size", title_justify="left", caption="\n".join(self.circumstances))
        table.caption_justify = "left"
        table.add_column("what was measured", overflow="fold", min_width=40)
        table.add_column("gpnet_node", justify="right", no_wrap=True)
        table.add_column("peer", overflow="fold")
        for name in ("its figure", "ratio"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("bar", overflow="fold")
        for line in self.lines:
            table.add_row(*_cells(line))
        console = Console(file=io.StringIO(), width=width, force_terminal=coloured, no_color=not coloured)
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()


def compared(
    what: str,
    unit: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    *,
    better: Literal["more", "less"],
    aim: str = "",
    at_least: float = 1,
) -> Figure:
    """Compare medians with a peer's; with an aim, the line says whether the ratio is ``at_least`` so much."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    ratio = mine / other if better == "more" else other / mine
    bar = Bar(words=f"aim: {aim}", met=ratio >= at_least, hard=False) if aim else None
    return Figure(what=what, unit=unit, ours=ours, peer=peer, theirs=theirs, ratio=ratio, bar=bar)


def take_turns(contenders: Mapping[str, Callable[[], float]], *, repeats: int) -> dict[str, list[float]]:
    """Measure each contender ``repeats`` times, one after the other, each repeat begun by another one.

    So a machine that gets slower or faster meanwhile does so for all.
    """
    names = list(contenders)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(contenders[name]())
    return samples


def _cells(line: Figure) -> tuple[str, ...]:
    verdict = ""
    if line.bar is not None:
        colour, word = ("green", "met") if line.bar.met else ("red", "NOT MET")
        verdict = f"[{colour}]{line.bar.words}: {word}[/]"
    return (
        line.what,
        f"{_shown(line.ours)} {line.unit}",
        line.peer,
        f"{_shown(line.theirs)} {line.unit}" if line.theirs else "",
        "" if line.ratio is None else f"{line.ratio:.2f}",
        verdict,
    )


def _shown(samples: Sequence[float]) -> str:
    """Median, and the range where there is one."""
    median = _number(statistics.median(samples))
    return median if len(samples) == 1 else f"{median} ({_number(min(samples))}-{_number(max(samples))})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
