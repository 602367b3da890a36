"""The web service over a store of its own, in this process, on a real socket; and what asks it."""

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from sqlalchemy import Engine

from gpnet_node.audit.trail import open_trail
from gpnet_node.config import NodeConfig
from gpnet_node.parts import now
from gpnet_node.store.archive import Archive
from gpnet_node.store.index import Index
from gpnet_node.web.answers import ROOT
from gpnet_node.web.service import build_service
from gpnet_node.web_config import WebConfig
from tests.stores import keep, new_archive, new_database

OCTETS = 'multipart/related; type="application/octet-stream"'


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  # JSON has no narrower type
        return json.loads(self.body)

    def parts(self) -> list[tuple[str, bytes]]:
        """Take multipart/related apart: content type and content of each part."""
        assert self.headers.get_content_type() == "multipart/related"
        boundary = f"--{self.headers.get_param('boundary')}".encode()
        first, *pieces, last = (b"\r\n" + self.body).split(b"\r\n" + boundary)
        assert first in (b"", b"\r\n")
        assert last.startswith(b"--")
        split = [piece.removeprefix(b"\r\n").split(b"\r\n\r\n", 1) for piece in pieces]
        return [(_header(head, "content-type"), content) for head, content in split]


def _header(head: bytes, name: str) -> str:
    pairs = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n"))
    return pairs[name]


@dataclass(frozen=True, kw_only=True)
class Web:
    """A running service."""

    port: int
    archive: Archive
    index: Index
    engine: Engine

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{ROOT}"

    def client(self, **settings: Any) -> DICOMwebClient:  # noqa: ANN401  # the client's own settings
        return DICOMwebClient(self.url, **settings)

    def hold(self, *paths: Path) -> None:
        """Put files into archive and index, as the receiver does."""
        self.index.record([keep(self.archive, path) for path in paths])

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        accept: str = "*/*",
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request on a connection of its own; ``path`` goes below /dicom-web, exactly as it is."""
        return ask(self.port, ROOT + path, method=method, accept=accept, body=body, headers=headers)


def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    accept: str = "*/*",
    body: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a connection of its own, and take the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers={"Accept": accept, **(headers or {})})
        answer = connection.getresponse()
        return Answer(status=answer.status, headers=answer.headers, body=answer.read())


@contextlib.contextmanager
def web_service(
    folder: Path,
    *paths: Path,
    node: Mapping[str, object] | None = None,
    **web: Any,  # noqa: ANN401  # as many types as [web] has
) -> Iterator[Web]:
    """Serve ``paths`` for the length of the block; ``web`` are the settings of [web], ``node`` others'."""
    archive, engine = new_archive(folder), new_database(folder)
    index = Index(engine)
    settings = WebConfig.model_validate({"enabled": True, "port": 0, "may_store": True, **web})
    configuration = NodeConfig.model_validate({"archive": archive.root, **(node or {}), "web": settings})
    trail = open_trail(configuration, owner="web test", clock=now)
    server = build_service(
        node=configuration,
        engine=engine,
        archive=archive,
        index=index,
        trail=trail,
        clock=now,
        owner="web test",
    )
    running = Web(port=server.start(), archive=archive, index=index, engine=engine)
    try:
        running.hold(*paths)
        yield running
    finally:
        assert server.drain(seconds=10)
        trail.close()
        engine.dispose()


def path_of(data_set: Dataset | Path, level: str = "instances") -> str:
    """Where a study, series or instance is, below /dicom-web."""
    it = dcmread(data_set, stop_before_pixels=True) if isinstance(data_set, Path) else data_set
    path = f"/studies/{it.StudyInstanceUID}"
    if level != "studies":
        path += f"/series/{it.SeriesInstanceUID}"
    return path + (f"/instances/{it.SOPInstanceUID}" if level == "instances" else "")


def stow_body(parts: Sequence[bytes], *, boundary: str = "b") -> bytes:
    """A multipart/related message of PS3.10 files."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--".encode()


STOW_HEADERS = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
