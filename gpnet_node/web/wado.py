"""WADO-RS (PS3.18 10.4): studies, series, instances, their metadata, frames, bulk data and pictures."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.log import get_logger
from gpnet_node.store.catalogue import Catalogue, Held
from gpnet_node.store.versions import UNREADABLE
from gpnet_node.web.answers import HEADERS, checked, in_pieces, multipart, root_url, url_of
from gpnet_node.web.bulk import bulk_of
from gpnet_node.web.json_model import as_json
from gpnet_node.web.media import (
    DICOM,
    DICOM_JSON,
    JSON,
    OCTETS,
    accepted,
    first_of,
    frame_type,
    in_parts,
    instance_syntax,
)
from gpnet_node.web.multipart import Part
from gpnet_node.web.pixel_data import as_stored, decoded, locate
from gpnet_node.web.rendered import PICTURES, render, wishes
from gpnet_node.web.whole import as_explicit_little_endian
from gpnet_node.web.whole import as_stored as file_as_stored

_MAX_FRAMES = 10_000  # named in one request

log = get_logger(__name__)


class Wado:
    """The retrieve transaction, over the files below ``root``.

    ``max_bytes``: an instance with more pixels than that is not decoded as a whole. ``url``: how clients
    reach the service, if not as they say.
    """

    def __init__(self, catalogue: Catalogue, *, root: Path, max_bytes: int, url: str | None) -> None:
        self._catalogue = catalogue
        self._root = root
        self._max_bytes = max_bytes
        self._url = url

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        study = "/studies/{study}"
        series = f"{study}/series/{{series}}"
        instance = f"{series}/instances/{{instance}}"
        routes: dict[str, Callable[..., Response]] = {
            f"{study}/metadata": self.metadata,
            f"{series}/metadata": self.metadata,
            f"{instance}/metadata": self.metadata,
            study: self.instances,
            series: self.instances,
            instance: self.instances,
            f"{instance}/frames/{{frames}}": self.frames,
            f"{instance}/frames/{{frames}}/rendered": self.rendered,
            f"{instance}/rendered": self.rendered,
            f"{instance}/bulkdata/{{element}}": self.bulk_data,
        }
        for path, answer in routes.items():
            router.add_api_route(path, answer, methods=["GET"])
        return router

    # -- instances -------------------------------------------------------------------------------------------

    def instances(self, request: Request) -> Response:
        """Send the instances of a study, a series, or one: as stored where that is accepted, else decoded."""
        ranges = accepted(request)
        held = self._held(request)
        chosen = [(it, instance_syntax(ranges, UID(it.transfer_syntax_uid))) for it in held]
        if "instance" in request.path_params and not in_parts(ranges, DICOM):
            return in_pieces(self._content(*chosen[0]), DICOM)
        if len(chosen) == 1:  # what cannot be decoded is told by the status
            return multipart([self._part(*chosen[0])], DICOM)
        return multipart(self._parts(chosen), DICOM)

    def _parts(self, chosen: Sequence[tuple[Held, UID]]) -> Iterator[Part]:
        """One that cannot be decoded goes as it is stored, and says so: the others go in any case."""
        for it, syntax in chosen:
            try:
                yield self._part(it, syntax)
            except UnreadableInstanceError as exc:
                log.warning("an instance is sent as stored", instance=it.sop_instance_uid, why=str(exc))
                yield self._part(it, UID(it.transfer_syntax_uid))

    def _part(self, it: Held, syntax: UID) -> Part:
        return Part(content_type=f"{DICOM}; transfer-syntax={syntax}", content=self._content(it, syntax))

    def _content(self, it: Held, syntax: UID) -> Iterator[bytes]:
        path = self._root / it.path
        stored = syntax == it.transfer_syntax_uid
        return file_as_stored(path) if stored else as_explicit_little_endian(path, max_bytes=self._max_bytes)

    def _held(self, request: Request) -> tuple[Held, ...]:
        """Return what the path names. Raises HTTPException 400 and 404."""
        names = ("study", "series", "instance")
        uids = checked(*(request.path_params[name] for name in names if name in request.path_params))
        held = self._catalogue.held(study_uids=uids[:1], series_uids=uids[1:2], sop_instance_uids=uids[2:3])
        if not held:
            raise HTTPException(404, "the archive holds nothing of this name")
        request.state.held = held
        return held

    # -- metadata --------------------------------------------------------------------------------------------

    def metadata(self, request: Request) -> Response:
        """Send all elements but the pixels and other long values, which are named by their address."""
        media_type = first_of(accepted(request), (DICOM_JSON, JSON))
        held, root = self._held(request), root_url(request, self._url)
        if len(held) == 1:  # what cannot be read is told by the status
            return Response(b"[" + self._metadata_of(held[0], root) + b"]", 200, HEADERS, media_type)
        return in_pieces(self._all_metadata(held, root), media_type)

    def _all_metadata(self, held: Sequence[Held], root: str) -> Iterator[bytes]:
        separator = b"["
        for it in held:
            try:
                yield separator + self._metadata_of(it, root)
                separator = b","
            except UnreadableInstanceError as exc:
                log.error("an instance has no metadata", instance=it.sop_instance_uid, why=str(exc))
        yield b"[]" if separator == b"[" else b"]"

    def _metadata_of(self, it: Held, root: str) -> bytes:
        base = url_of(root, it.study_uid, it.series_uid, it.sop_instance_uid)
        header = _header(self._root / it.path)
        model = as_json(header, lambda path: f"{base}/bulkdata/{path}")
        with suppress(UnreadableInstanceError):  # it has none
            name, vr = _pixels_of(self._root / it.path)
            model[name] = {"vr": vr, "BulkDataURI": f"{base}/bulkdata/{name}"}
        return json.dumps(model, separators=(",", ":")).encode()

    # -- pixels ----------------------------------------------------------------------------------------------

    def frames(self, request: Request) -> Response:
        """Send frames, counted from 1, in the order asked for."""
        ranges = accepted(request)
        (it,) = self._held(request)
        pixels = locate(self._root / it.path)
        indices = _indices(request.path_params["frames"], pixels.number_of_frames)
        media_type, syntax = frame_type(ranges, pixels.transfer_syntax)
        stored = pixels.is_encapsulated and syntax == pixels.transfer_syntax
        content = (as_stored if stored else decoded)(pixels, indices)
        first = next(content)  # what cannot be decoded is told by the status
        if len(indices) == 1 and not in_parts(ranges, media_type):
            return Response(first, 200, HEADERS, media_type)
        content_type = f"{media_type}; transfer-syntax={syntax}"
        base = url_of(root_url(request, self._url), it.study_uid, it.series_uid, it.sop_instance_uid)
        return multipart(_frame_parts(first, content, content_type, f"{base}/frames", indices), media_type)

    def rendered(self, request: Request) -> Response:
        """Send a frame as a picture; of an instance without a frame named, the middle one."""
        media_type = first_of(accepted(request), PICTURES)
        query = request.query_params
        wanted = wishes(query.get("window"), query.get("viewport"), query.get("quality"))
        (it,) = self._held(request)
        pixels = locate(self._root / it.path)
        indices = [pixels.number_of_frames // 2]
        if "frames" in request.path_params:
            indices = _indices(request.path_params["frames"], pixels.number_of_frames)
        pictures = (render(pixels, index, media_type, wanted) for index in indices)
        if len(indices) == 1:
            return Response(next(pictures), 200, HEADERS, media_type)
        return multipart((Part(content_type=media_type, content=[it]) for it in pictures), media_type)

    def bulk_data(self, request: Request) -> Response:
        """Send the value of one element, named as the metadata names it."""
        ranges = accepted(request)
        (it,) = self._held(request)
        content = bulk_of(self._root / it.path, request.path_params["element"])
        if in_parts(ranges, OCTETS):
            return multipart([Part(content_type=OCTETS, content=content)], OCTETS)
        return in_pieces(content, OCTETS)


def _frame_parts(
    first: bytes, rest: Iterator[bytes], content_type: str, base: str, indices: Sequence[int]
) -> Iterator[Part]:
    yield Part(content_type=content_type, content=[first], location=f"{base}/{indices[0] + 1}")
    for index, content in zip(indices[1:], rest, strict=True):
        yield Part(content_type=content_type, content=[content], location=f"{base}/{index + 1}")


def _indices(text: str, number_of_frames: int) -> list[int]:
    """Read a list of frame numbers. Raises HTTPException 400, and 404 for a frame that is not there."""
    names = text.split(",")
    if len(names) > _MAX_FRAMES or not all(name.isascii() and name.isdigit() for name in names):
        raise HTTPException(400, "frames are named by their numbers, with commas between them")
    numbers = [int(name) for name in names if len(name) < 10]
    if len(numbers) < len(names) or not all(1 <= number <= number_of_frames for number in numbers):
        raise HTTPException(404, f"the instance has frames 1 to {number_of_frames}")
    return [number - 1 for number in numbers]


def _header(path: Path) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True)
    except UNREADABLE as exc:
        raise UnreadableInstanceError(f"the header cannot be read ({type(exc).__name__})") from exc
    except OSError as exc:
        raise StorageError(f"archive: {exc.strerror}") from exc


def _pixels_of(path: Path) -> tuple[str, str]:
    """Return tag and VR of the pixel data."""
    pixels = locate(path)
    name = f"{pixels.tag:08X}"
    if name == "7FE00010":
        return name, "OB" if pixels.is_encapsulated else "OW"
    return name, "OF" if name == "7FE00008" else "OD"
