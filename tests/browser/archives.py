"""Archives that OHIF is pointed at, each a context manager that yields the address of its web server."""

import contextlib
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.peers import orthanc, program

DICOMWEB_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
BOUNDARY = "gpnet-test-boundary"


def stow(address: str, paths: Sequence[Path]) -> None:
    """Store files by STOW-RS (PS3.18 10.5); an archive that refuses one is an error."""
    parts = [
        f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes() + b"\r\n"
        for path in paths
    ]
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    request = urllib.request.Request(
        f"{address}/dicom-web/studies",
        data=b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(),
        headers={"Content-Type": kind, "Accept": "application/dicom+json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200, answer.read()


@contextlib.contextmanager
def orthanc_archive(folder: Path) -> Iterator[str]:
    """Run Orthanc with its DICOMweb plugin."""
    plugin = program(DICOMWEB_PLUGIN)
    web = {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"}
    with orthanc(folder, Plugins=[plugin], DicomWeb=web) as server:
        yield f"http://127.0.0.1:{server.http_port}"
