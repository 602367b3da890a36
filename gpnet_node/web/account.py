"""Tells the audit trail what was searched for, fetched and stored over HTTP (PS3.15 A.5.3.7, A.5.3.10).

The services note in ``request.state`` what a request is about: ``searched``, ``held`` or ``received``.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpnet_node.audit.trail import Traced, Trail, client
from gpnet_node.store.catalogue import Held

_LONGEST_SECONDS = 300.0
_MOST_INSTANCES = 20_000


@dataclass(kw_only=True)
class _Visit:
    """What one client fetched since it came, by SOP Instance UID; each once, however many its frames."""

    began: float
    last: float
    instances: dict[str, Traced] = field(default_factory=dict)


class Fetched:
    """Puts together what clients fetch: a viewer asks for the frames of a study in thousands of requests.

    It is told once a client has been quiet for some seconds, and every few minutes of one that is not.
    """

    def __init__(self, trail: Trail, *, quiet_seconds: float = 10.0) -> None:
        self._trail = trail
        self._quiet_seconds = quiet_seconds
        self._visits: dict[tuple[str, bool], _Visit] = {}
        self._lock = threading.Lock()

    def note(self, host: str, held: Sequence[Held], *, whole: bool) -> None:
        """Note what a request was answered with; not ``whole``: the answer failed, or broke off."""
        now = time.monotonic()
        with self._lock:
            visit = self._visits.setdefault((host, whole), _Visit(began=now, last=now))
            visit.last = now
            visit.instances |= {it.sop_instance_uid: Traced.of(it) for it in held}

    def tell(self, *, everything: bool = False) -> None:
        """Tell what is due, or all; call it now and then."""
        now = time.monotonic()
        with self._lock:
            due = [key for key, visit in self._visits.items() if everything or self._is_due(visit, now)]
            visits = [(host, whole, self._visits.pop((host, whole))) for host, whole in due]
        for host, whole, visit in visits:
            contents = Counter(visit.instances.values())
            sent, failed = (contents, Counter[Traced]()) if whole else (Counter[Traced](), contents)
            self._trail.sent(client(host), sent, failed=failed, asked_by=client(host))

    def _is_due(self, visit: _Visit, now: float) -> bool:
        late = now - visit.last >= self._quiet_seconds or now - visit.began >= _LONGEST_SECONDS
        return late or len(visit.instances) >= _MOST_INSTANCES


class Account:
    """ASGI middleware that sees how each request ends."""

    def __init__(self, app: ASGIApp, *, trail: Trail, fetched: Fetched) -> None:
        self._app = app
        self._trail = trail
        self._fetched = fetched

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and tell of it once it is answered."""
        if scope["type"] != "http" or not self._trail.is_on:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        status, whole = 0, False

        async def sending(message: Message) -> None:
            nonlocal status, whole
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                whole = not message.get("more_body", False)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._tell(scope, answered=whole and status < 300)

    def _tell(self, scope: Scope, *, answered: bool) -> None:
        host = (scope.get("client") or ("",))[0]
        state = scope["state"]
        if "searched" in state:
            self._trail.searched(client(host), scope["path"], scope["query_string"], answered=answered)
        if "held" in state:
            self._fetched.note(host, state["held"], whole=answered)
        for new, contents in state.get("received", {}).items():
            self._trail.received(client(host), contents, new=new)
