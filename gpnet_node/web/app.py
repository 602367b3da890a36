"""The application: DICOMweb under /dicom-web, and whether the node is well under /health."""

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from gpnet_node.audit.trail import Trail
from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.log import get_logger
from gpnet_node.web.access import Gate, read_tokens
from gpnet_node.web.account import Account, Fetched
from gpnet_node.web.answers import HEADERS, ROOT
from gpnet_node.web.qido import Qido
from gpnet_node.web.stow import Stow
from gpnet_node.web.wado import Wado
from gpnet_node.web_config import WebConfig

log = get_logger(__name__)


def build_app(
    *,
    web: WebConfig,
    qido: Qido,
    wado: Wado,
    stow: Stow,
    is_well: Callable[[], None],
    trail: Trail,
    fetched: Fetched,
) -> FastAPI:
    """Put the services together. ``is_well`` raises StorageError where archive or database do not work.

    Raises ConfigurationError for a token file that cannot be used.
    """
    tokens = read_tokens(web.token_file) if web.token_file is not None else ()
    middleware = [
        Middleware(Gate, web=web, tokens=tokens, trail=trail),
        Middleware(Account, trail=trail, fetched=fetched),
    ]
    if web.allowed_origins:
        middleware.insert(0, _cors(web))  # a browser asks first, without a token, whether it may ask
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, middleware=middleware)
    for service in (qido, wado, stow):
        app.include_router(service.router(), prefix=ROOT)
    app.add_api_route("/health", lambda: _health(is_well), methods=["GET"])
    app.add_exception_handler(StarletteHTTPException, _told)
    app.add_exception_handler(UnreadableInstanceError, _unreadable)
    app.add_exception_handler(StorageError, _unavailable)
    return app


def _cors(web: WebConfig) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(web.allowed_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Accept", "Authorization", "Content-Type"],
        expose_headers=["Warning"],
    )


def _health(is_well: Callable[[], None]) -> Response:
    """Say whether archive and database do their work; anybody may ask."""
    try:
        is_well()
    except StorageError as exc:
        log.error("the node is not well", reason=str(exc))
        return JSONResponse({"status": "unavailable"}, 503)
    return JSONResponse({"status": "ok"})


async def _told(_request: Request, fault: Exception) -> Response:
    assert isinstance(fault, StarletteHTTPException)  # registered for it
    return PlainTextResponse(str(fault.detail), fault.status_code, {**HEADERS, **(fault.headers or {})})


async def _unreadable(_request: Request, fault: Exception) -> Response:
    """It is there, and cannot be given in this form; as stored it can (PS3.18 8.5)."""
    return PlainTextResponse(str(fault), 406, HEADERS)


async def _unavailable(_request: Request, fault: Exception) -> Response:
    """What is told of our own troubles names no path."""
    log.error("a request could not be answered", reason=str(fault))
    return PlainTextResponse("out of order; the node's log says why", 503, HEADERS)
