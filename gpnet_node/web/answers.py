"""Answers that are sent piece by piece, and addresses of things (PS3.18 8.6, 8.3.2)."""

from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from itertools import islice
from typing import Any
from uuid import uuid4

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from gpnet_node.store.instance import is_safe_uid
from gpnet_node.web.media import MULTIPART
from gpnet_node.web.multipart import Part, written

ROOT = "/dicom-web"
_PIECE_BYTES = 1 << 18
HEADERS = {"Cache-Control": "private, no-store"}  # what is answered is about patients


def in_pieces(
    pieces: Iterable[bytes], media_type: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Send what ``pieces`` yields while it yields it; it is closed when the client goes away, too.

    The beginning is made at once, in this thread: what goes wrong there can still be told by the status, and
    an answer that is short is whole by then.
    """
    gathered = _gathered(pieces)
    head = list(islice(gathered, 2))
    said = {**HEADERS, **(headers or {})}
    if len(head) < 2:
        return Response(b"".join(head), 200, said, media_type)
    return StreamingResponse(_pumped(head, gathered), media_type=media_type, headers=said)


def multipart(parts: Iterable[Part], content_type: str) -> Response:
    """Send parts of one content type as multipart/related."""
    boundary = uuid4().hex
    return in_pieces(written(parts, boundary), f'{MULTIPART}; type="{content_type}"; boundary={boundary}')


def warning(sentence: str) -> str:
    """Return the value of a Warning header (PS3.18 8.5.4, RFC 7234 5.5)."""
    return f'299 gpnet-node "{sentence}"'


def checked(*uids: str) -> tuple[str, ...]:
    """Return the UIDs of a path. Raises HTTPException 400 for what is none."""
    if not all(map(is_safe_uid, uids)):
        raise HTTPException(400, "the path names something that is not a UID")
    return uids


def root_url(request: Request, configured: str | None) -> str:
    """Return the address of the service as the client knows it, without a slash at its end.

    Some clients leave our port out of the Host header (dicomweb-client does), so it is put there; behind a
    proxy the settings say what the address is.
    """
    if configured is not None:
        return configured
    url, (_, port) = request.url, request.scope["server"]
    host = url.netloc if url.port else f"{url.netloc}:{port}"
    return f"{url.scheme}://{host}{ROOT}"


def url_of(root: str, study: str, series: str = "", instance: str = "") -> str:
    """Return where a study, series or instance is retrieved."""
    url = f"{root}/studies/{study}"
    url += f"/series/{series}" if series else ""
    return url + (f"/instances/{instance}" if instance else "")


def _gathered(pieces: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Join small pieces and split large ones: each is a step of its own for the server."""
    buffer = bytearray()
    for piece in pieces:
        for start in range(0, len(piece), _PIECE_BYTES):
            buffer += memoryview(piece)[start : start + _PIECE_BYTES]
            if len(buffer) >= _PIECE_BYTES:
                yield bytes(buffer)
                buffer.clear()
    if buffer:
        yield bytes(buffer)


async def _pumped(head: Iterable[bytes], pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    end: Any = object()
    try:
        for piece in head:
            yield piece
        while (piece := await run_in_threadpool(next, pieces, end)) is not end:
            yield piece
    finally:
        pieces.close()
