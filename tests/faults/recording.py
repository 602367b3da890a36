"""What processes do to a folder, as the kernel saw it, in the order in which it was done.

``strace`` follows this process and all that it starts. Marks stand in the same order, so that they tell what
was known at a moment: an answer that a sender had got, say.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.disk import attach

_CALLS = (
    "write", "pwrite64", "writev", "pwritev", "ftruncate", "truncate", "fsync", "fdatasync", "link", "linkat",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
)  # fmt: skip
_SAME = {"fsync": "sync", "fdatasync": "sync", "linkat": "link", "unlinkat": "unlink", "mkdirat": "mkdir"}
_MARKS = "/marks/"  # there is no such folder: a mark is a call that fails
_LONGEST = 1 << 26
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_PATH = re.compile(r'[<"]((?:\\x[0-9a-f]{2})*)[>"](\(deleted\))?')
_NUMBERS = re.compile(r", (\d+)(?=,|$)")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One call that changed something. ``at``: an offset or a length in bytes; None: behind what is there."""

    call: str
    path: str
    to: str = ""
    data: bytes = b""
    at: int | None = None


@dataclass
class Recording:
    """``changes`` are there once the block has ended."""

    changes: list[Change] = field(default_factory=list)


def mark(text: str) -> None:
    """Set a mark; it is a change whose call is ``mark`` and whose path is the text."""
    with contextlib.suppress(OSError):
        Path(_MARKS, text).rmdir()


@contextlib.contextmanager
def recording(root: Path, log: Path) -> Iterator[Recording]:
    """Record what happens below ``root`` for the length of the block; fails where that cannot be."""
    command = ["strace", "-f", "-y", "-xx", "-s", str(_LONGEST), "-o", str(log), "-p", str(os.getpid())]
    tracer = attach([*command, "-e", f"trace={','.join(_CALLS)}"])
    done = Recording()
    try:
        yield done
    finally:
        tracer.terminate()
        tracer.wait(timeout=60)
    done.changes += [change for line in _whole(log) if (change := _read(line, str(root))) is not None]


def _whole(log: Path) -> Iterator[str]:
    """Each call where it ended: another may have begun meanwhile."""
    begun: dict[str, str] = {}
    with log.open(encoding="ascii") as lines:
        for line in lines:
            thread, _, call = line.rstrip("\n").partition(" ")
            call = call.lstrip()
            if call.endswith(_UNFINISHED):
                begun[thread] = call.removesuffix(_UNFINISHED)
            elif resumed := _RESUMED.fullmatch(call):
                yield begun.pop(thread) + resumed[1]
            else:
                yield call


def _read(line: str, root: str) -> Change | None:
    """Understand one line, or None: it failed, or is about something else."""
    match = _CALL.match(line)
    if match is None:
        return None
    call, arguments, result = match[1], match[2], int(match[3])
    texts = [bytes.fromhex(it[1].replace("\\x", "")) for it in _PATH.finditer(arguments)]
    if call == "rmdir" and texts[0].startswith(_MARKS.encode()):
        return Change(call="mark", path=texts[0].decode().removeprefix(_MARKS))
    paths = [path for text in texts if (path := text.decode("utf-8", "replace")).startswith(root)]
    if result < 0 or "(deleted)" in arguments or not paths:
        return None
    numbers = [int(number) for number in _NUMBERS.findall(arguments)]
    if call in ("write", "pwrite64"):
        at = numbers[-1] if call == "pwrite64" else None
        return Change(call="write", path=paths[0], data=texts[1][:result], at=at)
    if call == "ftruncate":
        return Change(call="truncate", path=paths[0], at=numbers[-1])
    return Change(call=_SAME.get(call, call), path=paths[0], to=paths[-1])
