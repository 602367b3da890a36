"""Which series is being looked into: one that ends the process each time must not hold up the others."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

TOO_OFTEN = 3  # processes that ended while they looked into a series


class Looks:
    """A note in the archive of the series that is being looked into, and of those that ended a process.

    One that cannot be written is done without: it saves no data, but the time of others. Only one process
    may look.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "looks"
        self._ended = _read(self._path)  # processes, by the UID of the series

    @contextlib.contextmanager
    def into(self, series_uid: str) -> Iterator[bool]:
        """Look into a series within this; False where that ended too many processes, one after another."""
        ended = self._ended.pop(series_uid, 0)
        self._write({**self._ended, series_uid: ended + 1})
        try:
            yield ended < TOO_OFTEN
        finally:
            self._write(self._ended)

    def _write(self, ended: Mapping[str, int]) -> None:
        lines = "".join(f"{uid} {count}\n" for uid, count in ended.items())
        with contextlib.suppress(OSError), self._path.open("a", encoding="ascii") as note:
            note.truncate(0)
            note.write(lines)


def _read(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return {uid: int(count) for uid, count in map(str.split, lines)}
    except (OSError, ValueError):  # as a rule there is none
        return {}
