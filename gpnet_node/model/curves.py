"""How a training went: one line of JSON for every save, and a figure of them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor


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
