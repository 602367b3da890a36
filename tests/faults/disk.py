"""A disk that fills up, and one that refuses what it is asked: real, below processes that run."""

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SMALL_BYTES = 32_000_000
CHANGES = (
    "pwrite64", "ftruncate", "fsync", "fdatasync", "link", "linkat", "unlink", "unlinkat", "rename", "mkdir",
)  # fmt: skip
_PIECE = b"\0" * 4096
_AGAIN_SECONDS = 0.005


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of SMALL_BYTES on ``folder`` for the length of the block; fails where it cannot."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES},mode=0700", "tmpfs", str(folder)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        pytest.fail(f"this fault needs a file system of its own, so run it as root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, seconds: float) -> None:
    """Leave no space on the disk for so long, whatever is given free meanwhile; return once it is full."""
    full = threading.Event()

    def hold() -> None:
        until = time.monotonic() + seconds
        with (folder / "ballast").open("wb", buffering=0) as ballast:
            while time.monotonic() < until:
                try:
                    ballast.write(_PIECE)
                except OSError:
                    full.set()
                    time.sleep(_AGAIN_SECONDS)
        (folder / "ballast").unlink(missing_ok=True)  # what came of it may be over, and the disk gone with it

    threading.Thread(target=hold, daemon=True).start()
    assert full.wait(30), "the disk did not fill up"


def refuse(process_ids: Sequence[int], error: str, *, seconds: float) -> None:
    """Have the kernel answer every change of a file by these processes with ``error`` for so long."""
    injected = f"inject={','.join(CHANGES)}:error={error}"
    command = ["strace", "-f", "-e", injected, "-e", "status=none"]
    for process_id in process_ids:
        command += ["-p", str(process_id)]
    tracer = attach(command)
    threading.Timer(seconds, tracer.terminate).start()


@contextlib.contextmanager
def one_error(process_ids: Sequence[int], calls: str, error: str, *, at: int, log: Path) -> Iterator[None]:
    """Have one of these calls fail in each process, the one of that number; ``log`` says if it came to it."""
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:error={error}:when={at}"]
    command += [word for process_id in process_ids for word in ("-p", str(process_id))]
    tracer = attach(command)
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait(timeout=60)


def attach(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a tracer and return once it holds what it is to trace; fails where that cannot be."""
    if shutil.which("strace") is None:
        pytest.fail("this test needs strace: apt-get install strace")
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    for _ in range(command.count("-p")):
        line = tracer.stderr.readline()
        assert "attached" in line, f"this test needs ptrace(2): {line}"
    threading.Thread(target=tracer.stderr.read, daemon=True).start()  # or its pipe fills up
    return tracer
