"""How many associations are open, in all the processes that receive."""

from collections import Counter
from collections.abc import Mapping, Sequence
from ctypes import Array, c_int
from multiprocessing.sharedctypes import RawArray

from gpnet_node.config import Configuration


class Places:
    """One process's row of a table in memory that the processes share.

    Each AE title's associations are counted when another is asked for: of several that are asked for in the
    same instant, each process may let in one too many.
    """

    def __init__(self, calling_aes: Sequence[str], rows: Sequence["Array[c_int]"], *, mine: int) -> None:
        self._calling_aes = calling_aes
        self._rows = rows
        self._mine = rows[mine]

    def note(self, open_by: Mapping[str, int]) -> None:
        """Note how many associations each AE title has open in this process."""
        self._mine[:] = [open_by.get(calling_ae, 0) for calling_ae in self._calling_aes]

    def open_by(self) -> Mapping[str, int]:
        """Return how many associations each AE title has open in all processes."""
        sums = map(sum, zip(*self._rows, strict=True))
        return Counter(dict(zip(self._calling_aes, sums, strict=True)))


def new_places(configuration: Configuration, *, processes: int = 1) -> Sequence[Places]:
    """Make the table, before the processes are forked, and return a row for each."""
    calling_aes = sorted({peer.ae_title for peer in configuration.peers})
    rows = [RawArray(c_int, len(calling_aes)) for _ in range(processes)]
    return [Places(calling_aes, rows, mine=number) for number in range(processes)]
