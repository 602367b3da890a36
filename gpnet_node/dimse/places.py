"""How many associations are open, in all the processes that receive."""

from collections import Counter
from collections.abc import Mapping
from ctypes import c_int
from multiprocessing.sharedctypes import RawArray

from gpnet_node.config import Configuration


class Places:
    """A table in memory that processes share once they are forked; each writes a row of its own."""

    def __init__(self, configuration: Configuration, *, processes: int = 1) -> None:
        self._columns = sorted({peer.ae_title for peer in configuration.peers})
        self._rows = [RawArray(c_int, len(self._columns)) for _ in range(processes)]

    def note(self, process: int, open_by: Mapping[str, int]) -> None:
        """Note how many associations each AE title has open in this process."""
        self._rows[process][:] = [open_by.get(calling_ae, 0) for calling_ae in self._columns]

    def open_by(self) -> Mapping[str, int]:
        """Return how many associations each AE title has open in all processes."""
        return Counter(dict(zip(self._columns, map(sum, zip(*self._rows, strict=True)), strict=True)))
