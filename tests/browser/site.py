"""A web server as a hospital would set it up: OHIF's files and the archive's /dicom-web at one address."""

import contextlib
import http.client
import http.server
import mimetypes
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

PREFIX = "/dicom-web"
PASSED_ON = ("Accept", "Host")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers from OHIF's folder, with index.html for the application's own routes, or from the archive."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: object, dist: Path, config: str, archive: str | None) -> None:
        self.dist, self.config, self.archive = dist.resolve(), config, archive
        super().__init__(*arguments)  # type: ignore[arg-type]  # what the server hands on

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(f"{PREFIX}/") and self.archive:
            self._from_archive(self.archive)
        elif path == "/app-config.js":
            self._answer(200, "text/javascript", self.config.encode(), cached=False)
        else:
            self._from_dist(path)

    def log_message(self, *_: object) -> None:
        """Say nothing: pytest shows what matters."""

    def _from_archive(self, archive: str) -> None:
        address = urlsplit(archive)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        with contextlib.closing(connection):
            headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
            connection.request("GET", self.path, headers=headers)
            answer = connection.getresponse()
            kind = answer.headers.get("Content-Type", "application/octet-stream")
            self._answer(answer.status, kind, answer.read(), cached=False)

    def _from_dist(self, path: str) -> None:
        file = (self.dist / path.lstrip("/")).resolve()
        if not (file.is_relative_to(self.dist) and file.is_file()):
            file = self.dist / "index.html"
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._answer(200, kind, file.read_bytes(), cached=file.name != "index.html")

    def _answer(self, status: int, kind: str, body: bytes, *, cached: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=3600" if cached else "no-store")
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the browser left
            self.wfile.write(body)


@contextlib.contextmanager
def site(dist: Path, config: str, *, archive: str | None = None, port: int = 0) -> Iterator[str]:
    """Serve OHIF, and an archive's DICOMweb if one is given, while the block lasts; yields the address."""
    handler = partial(_Handler, dist=dist, config=config, archive=archive)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
