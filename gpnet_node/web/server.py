"""Listens for HTTP and answers, in threads of its own, until it is drained."""

import asyncio
import socket
import threading
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpnet_node.errors import StorageError
from gpnet_node.log import get_logger
from gpnet_node.web.access import server_tls
from gpnet_node.web.account import Fetched
from gpnet_node.web_config import WebConfig

_BACKLOG = 2048
_MAX_CONNECTIONS = 2000  # the next is answered 503
_MAX_HEADER_BYTES = 1 << 16  # of one request, query and all
_START_SECONDS = 30.0
_IDLE_SECONDS = 15  # of a connection between two requests, or before its first

log = get_logger(__name__)


class _Http(H11Protocol):  # uvicorn's extension point
    """Ends a connection that says nothing, also before its first request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


class WebServer:
    """One HTTP server; ``silent_seconds``: after so long a peer that does not acknowledge is given up."""

    def __init__(self, app: FastAPI, web: WebConfig, fetched: Fetched, *, silent_seconds: float) -> None:
        self._app = app
        self._web = web
        self._fetched = fetched
        self._silent_seconds = silent_seconds
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen, and return the port. Raises StorageError, ConfigurationError."""
        tls = server_tls(self._web)
        listener = self._listener()
        config = uvicorn.Config(
            self._app,
            http=_Http,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,  # a query may name a patient
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_IDLE_SECONDS,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
        )
        self._thread.start()
        _wait(lambda: server.started or not self._is_alive(), seconds=_START_SECONDS)
        if not server.started:
            raise StorageError("the web server does not start")
        port: int = listener.getsockname()[1]
        return port

    def _listener(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._web.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # connections inherit these
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each small answer waits 40 ms
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._silent_seconds * 1000))
        try:
            listener.bind((self._web.host, self._web.port))
            listener.listen(_BACKLOG)
        except OSError as exc:
            listener.close()
            raise StorageError(f"cannot listen on {self._web.host}:{self._web.port}: {exc.strerror}") from exc
        return listener

    def _is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def tend(self) -> None:
        """See to it that it works; call it now and then. Raises StorageError if it died of a bug."""
        if not self._is_alive():
            raise StorageError("the web server no longer listens and must start again")
        self._fetched.tell()

    def drain(self, *, seconds: float) -> bool:
        """Take no new request and let the open ones finish; whether all did within ``seconds``."""
        if self._server is None or self._thread is None:
            return True
        self._server.config.timeout_graceful_shutdown = max(1, int(seconds))
        self._server.should_exit = True
        self._thread.join(seconds + 1)
        self._fetched.tell(everything=True)
        return not self._thread.is_alive()


def _wait(condition: Callable[[], bool], *, seconds: float) -> None:
    tick = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        tick.wait(0.02)
