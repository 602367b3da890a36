"""STOW-RS (PS3.18 10.5): instances come in, one after the other, however many a request holds."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydicom import Dataset
from starlette.requests import ClientDisconnect

from gpnet_node.config import NodeConfig
from gpnet_node.store.archive import Archive
from gpnet_node.store.index import Index
from gpnet_node.store.states import AssociationOutcome
from gpnet_node.web.answers import HEADERS, checked, root_url, url_of
from gpnet_node.web.json_model import as_json
from gpnet_node.web.media import DICOM, DICOM_JSON, JSON, MULTIPART, accepted, first_of, parameters
from gpnet_node.web.multipart import Reader
from gpnet_node.web.stow_intake import Result, StowIntake

_GATHER_BYTES = 1 << 20  # of the body, before a thread takes it on


class Stow:
    """The store transaction. ``owner`` names this process in the index."""

    def __init__(
        self,
        *,
        node: NodeConfig,
        archive: Archive,
        index: Index,
        clock: Callable[[], datetime],
        owner: str,
    ) -> None:
        self._node = node
        self._archive = archive
        self._index = index
        self._clock = clock
        self._owner = owner

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        router.add_api_route("/studies", self.store, methods=["POST"])
        router.add_api_route("/studies/{study}", self.store, methods=["POST"])
        return router

    async def store(self, request: Request) -> Response:
        """Store what the request holds: 200 all of it, 202 some, 409 nothing (PS3.18 10.5.3)."""
        if not self._node.web.may_store:
            raise HTTPException(403, "this node takes no instances by STOW-RS")
        study = request.path_params.get("study")
        if study is not None:
            checked(study)
        media_type = first_of(accepted(request), (DICOM_JSON, JSON))
        reader, intake = self._opened(request, study)
        outcome = AssociationOutcome.ABORTED
        try:
            async for piece in _gathered(request, seconds=self._node.network_timeout_seconds):
                await run_in_threadpool(reader.feed, piece)
            reader.finish()
            outcome = AssociationOutcome.RELEASED
        except (ClientDisconnect, TimeoutError) as exc:
            raise HTTPException(400, "the request broke off") from exc
        finally:
            results = await asyncio.shield(run_in_threadpool(intake.close, outcome))
            request.state.received = intake.traced
        if not results:
            raise HTTPException(400, "the request holds no instance")
        root = root_url(request, self._node.web.url)
        body = json.dumps(as_json(_response(results, root), lambda path: ""))
        return Response(body, _status(results), HEADERS, media_type)

    def _opened(self, request: Request, study: str | None) -> tuple[Reader, StowIntake]:
        name, given = parameters(request.headers.get("content-type", ""))
        if name != MULTIPART or given.get("type", "").lower() != DICOM:
            raise HTTPException(415, f'instances come as {MULTIPART}; type="{DICOM}"')
        intake = StowIntake(
            archive=self._archive,
            index=self._index,
            clock=self._clock,
            owner=self._owner,
            host=request.client.host if request.client else "",
            study_uid=study,
            max_bytes=self._node.max_instance_bytes,
        )
        return Reader(given.get("boundary", ""), intake, max_parts=self._node.web.max_parts), intake


async def _gathered(request: Request, *, seconds: float) -> AsyncIterator[bytes]:
    """Yield the body in pieces that are worth a thread. Raises TimeoutError if nothing comes for so long."""
    buffer = bytearray()
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(seconds):
                piece = await anext(stream)
        except StopAsyncIteration:
            break
        buffer += piece
        if len(buffer) >= _GATHER_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


def _status(results: Sequence[Result]) -> int:
    stored = [it.reason is None for it in results]
    return 200 if all(stored) else 202 if any(stored) else 409


def _response(results: Sequence[Result], root: str) -> Dataset:
    """The store instances response module (PS3.18 I.2)."""
    data_set = Dataset()
    stored = [it for it in results if it.reason is None]
    failed = [it for it in results if it.reason is not None]
    studies = {it.study_uid for it in stored}
    if len(studies) == 1:
        data_set.RetrieveURL = url_of(root, *studies)
    if stored:
        data_set.ReferencedSOPSequence = [_item(it, root) for it in stored]
    if failed:
        data_set.FailedSOPSequence = [_item(it, root) for it in failed]
    return data_set


def _item(result: Result, root: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = result.sop_class_uid
    item.ReferencedSOPInstanceUID = result.sop_instance_uid
    if result.reason is None:
        item.RetrieveURL = url_of(root, result.study_uid, result.series_uid, result.sop_instance_uid)
    else:
        item.FailureReason = result.reason
    return item
