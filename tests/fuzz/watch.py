"""What must hold of a node whatever it was sent, looked at from outside its process."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

import gpnet_node
from gpnet_node.parts import Role
from tests.fuzz.dataset import MARK
from tests.fuzz.lane import echo_seconds
from tests.nodes import RunningNode
from tests.peers import data_set_bytes

_ECHO_SECONDS = 1.0
_ECHOES = 3  # the best counts: others may keep the machine busy
_SETTLE_SECONDS = 20.0  # for threads and sockets of broken associations to be gone
_MOST_GROWTH_BYTES = 50 << 20  # of each process
_BUGS = ("this is a bug", "died of a bug", "dies of a bug", "Exception in DUL.run()", "Traceback")
# By whose name alone a place in a traceback is known to be ours; pynetdicom has a transport.py too.
_OURS = {path.name for path in Path(gpnet_node.__file__).parent.rglob("*.py")} - {
    "transport.py",
    "bounded_socket.py",  # raises what a connection that breaks raises
}


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What the receiver's processes hold, besides memory."""

    threads: int
    files: int


class Watch:
    """Watches the receiver of a node that nobody has spoken to yet.

    ``said`` returns what it has logged since it was last asked.
    """

    def __init__(self, node: RunningNode, said: Callable[[], str]) -> None:
        self._node = node
        self._said = said
        self._processes = node.processes(Role.RECEIVER)
        self._before = self._held()
        self._rss_before = self._rss_bytes()
        self._kept = 0

    def warmed_up(self) -> None:
        """The node has loaded what it needs; its memory is to stay as it is now."""
        self._rss_before = self._rss_bytes()

    def faults(self, kept: Mapping[str, bytes]) -> list[str]:
        """Return a sentence for each thing that does not hold, after all connections are closed."""
        return [*self._process_faults(), *self._log_faults(), *self._archive_faults(kept)]

    def summary(self) -> str:
        """Say what this node has kept, and by how much its memory has grown."""
        grown = (self._rss_bytes() - self._rss_before) / (1 << 20)
        return f"this node keeps {self._kept} instances and has grown by {grown:.1f} MiB"

    def _held(self) -> _Held:
        return _Held(
            threads=sum(process.num_threads() for process in self._processes),
            files=sum(_files(process) for process in self._processes),
        )

    def _rss_bytes(self) -> int:
        return sum(process.memory_info().rss for process in self._processes)

    def _process_faults(self) -> Iterator[str]:
        self._node.supervisor.tend()
        if self._node.processes(Role.RECEIVER) != self._processes:
            yield "the receiver died"
            return
        seconds = min(echo_seconds(self._node.port) for _ in range(_ECHOES))
        if seconds > _ECHO_SECONDS:
            yield f"a C-ECHO took {seconds:.2f} s"
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not self._is_settled(now := self._held()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not self._is_settled(now):
            before = self._before
            yield f"threads, files: {before.threads}, {before.files} -> {now.threads}, {now.files}"
        grown = self._rss_bytes() - self._rss_before
        if grown > _MOST_GROWTH_BYTES * len(self._processes):
            yield f"memory grew by {grown >> 20} MiB"

    def _is_settled(self, now: _Held) -> bool:
        return now.threads <= self._before.threads and now.files <= self._before.files

    def _log_faults(self) -> Iterator[str]:
        for line in self._said().splitlines():
            if MARK in line:
                yield f"the log names the patient: {line}"
            if any(bug in line for bug in _BUGS) or _passed_our_code(line):
                yield f"the log tells of a bug: {line}"

    def _archive_faults(self, kept: Mapping[str, bytes]) -> Iterator[str]:
        left = list((self._node.parts.archive.root / "tmp" / "incoming").iterdir())
        if left:
            yield f"{len(left)} files are left in tmp/incoming"
        held: dict[str, list[Path]] = defaultdict(list)
        for uid, _, path in self._node.parts.archive.instances():
            held[uid].append(self._node.parts.archive.root / path)
        lost = [uid for uid, sent in kept.items() if all(data_set_bytes(it) != sent for it in held[uid])]
        if lost:
            yield f"{len(lost)} instances that were answered 0x0000 are not kept as sent: {lost[0]}"
        self._kept += len(kept)


def _files(process: psutil.Process) -> int:
    """Count what is open, sockets too; not the database, which each process opens when it first needs it."""
    count = 0
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += ".sqlite" not in str(descriptor.readlink())
    return count


def _passed_our_code(line: str) -> bool:
    """Whether an exception is logged that came out of our own code: a handler's, which pynetdicom catches."""
    places = json.loads(line).get("traceback", []) if line.startswith("{") else []
    return any(place.partition(":")[0] in _OURS for place in places)
