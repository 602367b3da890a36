"""Who may ask: a bearer token compared in constant time, or whoever showed a certificate, or this machine."""

import hashlib
import hmac
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpnet_node.audit.trail import Trail, client
from gpnet_node.errors import ConfigurationError
from gpnet_node.log import get_logger
from gpnet_node.web_config import WebConfig

OPEN_PATHS = frozenset({"/health"})
_SHORTEST_TOKEN = 16
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

log = get_logger(__name__)


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """Return the SHA-256 of each token of the file. Raises ConfigurationError, which quotes none."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: cannot be read as ASCII text ({type(exc).__name__})") from exc
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens or any(len(token) < _SHORTEST_TOKEN or " " in token for token in tokens):
        raise ConfigurationError(
            f"{path}: it needs a token a line, each of at least {_SHORTEST_TOKEN} characters without spaces"
        )
    return tuple(hashlib.sha256(token.encode()).digest() for token in tokens)


def server_tls(web: WebConfig) -> ssl.SSLContext | None:
    """Return what TLS is spoken by, with clients' certificates required where the settings say so.

    Raises ConfigurationError.
    """
    if web.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(web.tls_certificate, web.tls_key)
        if web.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(web.client_ca)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(f"web: the certificate, its key or client_ca cannot be used: {exc}") from exc
    return context


class Gate:
    """ASGI middleware that lets only known clients through.

    ``tokens``: SHA-256 of each, none if certificates or the loopback address do the telling. Where the node
    cannot tell clients at all, a request must at least name this machine as its host: else a web page whose
    name was made to resolve to this machine could have a browser read the images.
    """

    def __init__(self, app: ASGIApp, *, web: WebConfig, tokens: Sequence[bytes], trail: Trail) -> None:
        self._app = app
        self._trail = trail
        self._tokens = tokens
        self._hosts = None if web.knows_clients else _LOCAL_NAMES | _names(web.url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 421."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST":
            send = _hanging_up(send)
        headers = Headers(scope=scope)
        if self._hosts is not None and not _names(f"http://{headers.get('host', '')}") <= self._hosts:
            answer = PlainTextResponse("this node speaks to its own machine only", 421)
        elif self._tokens and not self._bears_token(headers.get("authorization", "")):
            host = (scope.get("client") or ("?",))[0]
            log.warning("a request without a valid token was refused", host=host)
            self._trail.refused(client(host), "a request without a valid token was refused")
            challenge = {"WWW-Authenticate": "Bearer"}
            answer = PlainTextResponse("a bearer token is needed", 401, challenge)
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)

    def _bears_token(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        shown = hashlib.sha256(token.strip().encode()).digest()
        matches = [hmac.compare_digest(shown, known) for known in self._tokens]  # all of them, every time
        return scheme.lower() == "bearer" and any(matches)


def _hanging_up(send: Send) -> Send:
    """Close the connection behind a refusal: the rest of what is refused may be endless."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return sending


def _names(url: str | None) -> frozenset[str]:
    """Return the host that a URL names, in lower case; the empty name where it names none."""
    if url is None:
        return frozenset()
    try:
        return frozenset({(urlsplit(url).hostname or "").lower()})
    except ValueError:
        return frozenset({""})
