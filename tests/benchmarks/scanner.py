"""A scanner that is quick: instances written by the hundred, sent by DCMTK's storescu, which is not ours."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil

from tests.factories import mr_series
from tests.peers import program

_INSTANCE, _SERIES = "2.25." + "1" * 39, "2.25." + "2" * 39
_POSITION = "+9999.00"
_LIMIT_SECONDS = 600.0


def new_uid() -> str:
    """A UID under 2.25, always as long as any other."""
    return f"2.25.{10**38 + uuid4().int % 10**38}"


class Printer:
    """Writes series of classic MR images that differ in their UIDs and positions only."""

    def __init__(self, folder: Path, *, side: int) -> None:
        noise = np.random.default_rng(1).integers(0, 4096, (1, side, side), np.uint16)
        (path,) = mr_series(
            folder,
            voxels=noise,
            SOPInstanceUID=_INSTANCE,
            SeriesInstanceUID=_SERIES,
            ImagePositionPatient=["-12.0", "-12.0", _POSITION],
        )
        self._content = path.read_bytes()

    def series(self, folder: Path, count: int) -> Path:
        """Write a whole volume of ``count`` images into a folder, over another that was there; return it.

        To remove that instead would slow down who makes files next: ext4 without a journal looks at every
        inode that was freed a moment ago.
        """
        folder.mkdir(parents=True, exist_ok=True)
        content = self._content.replace(_SERIES.encode(), new_uid().encode())
        for index in range(count):
            image = content.replace(_INSTANCE.encode(), new_uid().encode())
            image = image.replace(_POSITION.encode(), f"{index:+08.2f}".encode())
            (folder / f"{index:05d}.dcm").write_bytes(image)
        return folder


def send(port: int, called: str, series: Sequence[Path], *, subfolders: bool = False) -> float:
    """Send each folder on an association of its own, all at once; the seconds until the last is released.

    ``subfolders``: send what is in them too, on the same association.

    That counts from the start of storescu, which takes as long for one peer as for the other.
    """
    command = [program("/usr/bin/storescu"), "-aet", "SCANNER", "-aec", called, "127.0.0.1", str(port), "+sd"]
    command += ["+r"] if subfolders else []
    began = time.perf_counter()
    senders = [
        subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for folder in series
    ]
    said = [sender.communicate(timeout=_LIMIT_SECONDS)[0] for sender in senders]
    seconds = time.perf_counter() - began
    assert all(sender.returncode == 0 for sender in senders), "\n".join(said)
    return seconds


def child_named(name: str) -> psutil.Process:
    """The child of this process that runs the program ``name``."""
    (child,) = [child for child in psutil.Process().children() if child.name() == name]
    return child
