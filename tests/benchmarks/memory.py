"""What a process and those that it has forked hold in memory, as the kernel counts it."""

import re
from pathlib import Path

import psutil

MB = 1_000_000


def resident_mb(process_id: int) -> float:
    """Resident set now (VmRSS of proc(5)), MB."""
    return _status(process_id, "VmRSS")


def peak_mb(process_id: int) -> float:
    """Largest resident set since the process began (VmHWM of proc(5)), MB."""
    return _status(process_id, "VmHWM")


def _status(process_id: int, key: str) -> float:
    process = psutil.Process(process_id)
    held = 0.0
    for each in (process, *process.children(recursive=True)):
        text = Path(f"/proc/{each.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None, f"the kernel does not tell {key}"
        held += int(found[1]) * 1024 / MB
    return held
