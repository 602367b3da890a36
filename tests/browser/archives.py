"""Archives that OHIF is pointed at: each holds the studies and yields the address of its web server."""

import contextlib
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpnet_node.parts import Role
from gpnet_node.web_config import WebConfig
from tests.browser.studies import Study
from tests.nodes import configuration_of, running_node
from tests.peers import dicomweb_plugin, orthanc, storescu

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
def orthanc_archive(folder: Path, studies: Sequence[Study]) -> Iterator[str]:
    """Run Orthanc with its DICOMweb plugin, and store the studies by STOW-RS."""
    with orthanc(folder, **dicomweb_plugin()) as server:
        address = f"http://127.0.0.1:{server.http_port}"
        for study in studies:
            stow(address, [*study.source, *study.segmentations.values()])
        yield address


@contextlib.contextmanager
def node_archive(folder: Path, studies: Sequence[Study], *, viewer: str) -> Iterator[str]:
    """Run a node that lets pages from ``viewer`` ask; store images by C-STORE, segmentations by STOW-RS."""
    web = WebConfig(enabled=True, port=0, may_store=True, allowed_origins=(viewer,))
    with running_node(configuration_of(folder, web=web), Role.RECEIVER, Role.WEB) as node:
        address = f"http://127.0.0.1:{node.web_port}"
        for study in studies:
            assert storescu(node.port, study.source).returncode == 0
            stow(address, list(study.segmentations.values()))
        yield address
