"""Real peers for the tests: DCMTK and Orthanc from Debian's packages, on free ports, in folders of their own.

A peer that is not installed fails the test under ``CI=true``; elsewhere the test is skipped and says which
package is missing.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

T = TypeVar("T")

DICOMWEB_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
PACKAGES = {
    "/usr/bin/storescu": "dcmtk",
    "/usr/bin/storescp": "dcmtk",
    "/usr/bin/echoscu": "dcmtk",
    "/usr/bin/dcmcjpeg": "dcmtk",
    "/usr/bin/findscu": "dcmtk",
    "/usr/bin/movescu": "dcmtk",
    "/usr/bin/getscu": "dcmtk",
    "/usr/sbin/Orthanc": "orthanc",
    DICOMWEB_PLUGIN: "orthanc-dicomweb",
    "/usr/bin/dcm2niix": "dcm2niix",
    "/usr/bin/openssl": "openssl",
    "/usr/bin/chromium": "chromium",
}


def program(path: str) -> str:
    """Return the path of an installed peer; without it the test is skipped, or fails under CI."""
    if shutil.which(path) is None:
        _missing(path)
    return path


def _missing(path: str) -> NoReturn:
    message = f"{path} is not installed: apt-get install {PACKAGES[path]}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def dicomweb_plugin() -> dict[str, Any]:
    """Return the settings by which Orthanc speaks DICOMweb under /dicom-web."""
    if not Path(DICOMWEB_PLUGIN).exists():
        _missing(DICOMWEB_PLUGIN)
    return {"Plugins": [DICOMWEB_PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}


def free_port() -> int:
    """Return a port that was free a moment ago, for a peer that cannot choose one itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], T], *, seconds: float = 30.0, what: str = "the condition") -> T:
    """Poll until ``condition`` returns something true, and return it; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail(f"{what} did not come about within {seconds:g} s")


def listens(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(
    command: Sequence[str], *, log: Path, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the length of the block, its output in ``log``; end it and only it afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=cwd)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def data_set_bytes(path: Path) -> bytes:
    """Return the encoded data set of a DICOM file, without preamble and file meta information."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")  # (0002,0000) UL, behind preamble, prefix and header
    return content[144 + length :]


@dataclass(frozen=True, kw_only=True)
class DcmtkStoreScp:
    """A DCMTK storescp and the folder that it fills."""

    port: int
    folder: Path

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@contextlib.contextmanager
def dcmtk_storescp(folder: Path, *options: str, port: int | None = None) -> Iterator[DcmtkStoreScp]:
    """Run DCMTK's storescp with ``options``, on a free port if none is given."""
    received = folder / "received"
    received.mkdir(parents=True)
    port = port or free_port()
    command = [program("/usr/bin/storescp"), "-od", str(received), "-aet", "PACS", *options, str(port)]
    with running(command, log=folder / "storescp.log"):
        wait_until(lambda: listens(port), what="storescp listening")
        yield DcmtkStoreScp(port=port, folder=received)


def storescu(
    port: int, paths: Sequence[Path], *options: str, calling: str = "SCANNER", called: str = "GPNET"
) -> subprocess.CompletedProcess[str]:
    """Send files with DCMTK's storescu; ``stdout`` holds what it says."""
    command = [program("/usr/bin/storescu"), "-v", "-aet", calling, "-aec", called, *options]
    return subprocess.run(
        [*command, "127.0.0.1", str(port), *map(str, paths)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
        errors="replace",
    )


def echoscu(
    port: int, *, calling: str = "SCANNER", called: str = "GPNET"
) -> subprocess.CompletedProcess[str]:
    """Verify with DCMTK's echoscu; the exit status is 0 where the answer is success."""
    command = [program("/usr/bin/echoscu"), "-v", "-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    return subprocess.run(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )


def queryscu(
    name: str, port: int, *options: str, keys: Sequence[str], calling: str = "STATION", called: str = "GPNET"
) -> subprocess.CompletedProcess[str]:
    """Ask with DCMTK's findscu, movescu or getscu; keys are as ``PatientName=*a*``, or without a value."""
    command = [program(f"/usr/bin/{name}"), "-d", "-aet", calling, "-aec", called, *options]
    asked = [word for key in keys for word in ("-k", key)]
    return subprocess.run(
        [*command, *asked, "127.0.0.1", str(port)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
        errors="replace",
    )


@dataclass(frozen=True, kw_only=True)
class Orthanc:
    """A running Orthanc: its DICOM port, and what its REST interface tells."""

    dicom_port: int
    http_port: int
    ae_title: str = "PACS"

    def get(self, path: str) -> Any:  # noqa: ANN401  # JSON has no narrower type
        """Return the JSON under a REST path."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        """Return the body under a REST path."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=20) as answer:
            body: bytes = answer.read()
            return body

    def tags(self) -> list[dict[str, str]]:
        """Return the main tags of every stored instance, by keyword."""
        return [self.get(f"/instances/{name}/simplified-tags") for name in self.get("/instances")]

    def sop_class_uids(self) -> list[str]:
        """Return the SOP Class UID of every stored instance, sorted."""
        return sorted(tags["SOPClassUID"] for tags in self.tags())


@contextlib.contextmanager
def orthanc(folder: Path, *, port: int | None = None, **settings: object) -> Iterator[Orthanc]:
    """Run Orthanc with its database in ``folder``; ``settings`` override its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    dicom_port, http_port = port or free_port(), free_port()
    configuration = {
        "Name": "PACS",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "PACS",
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        "UnknownSopClassAccepted": True,
        "StableAge": 1,
        "ConcurrentJobs": 1,
        **settings,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    with running([program("/usr/sbin/Orthanc"), str(path)], log=folder / "orthanc.log"):
        wait_until(lambda: listens(dicom_port) and listens(http_port), what="Orthanc listening")
        yield Orthanc(dicom_port=dicom_port, http_port=http_port)
