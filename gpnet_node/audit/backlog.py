"""Audit messages on their way out: a thread writes them, and who reports waits for nothing.

While the destination fails, messages wait for it, up to a limit; further ones are lost, counted, and the log
says how many. What waits when the process ends is tried once more.
"""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

from gpnet_node.audit.message import Outcome
from gpnet_node.errors import ConfigurationError
from gpnet_node.log import BugLine, get_logger

Write = Callable[[bytes, datetime, Outcome], None]  # raises OSError, or ConfigurationError for certificates

_MOST_BYTES = 8 << 20  # of waiting messages
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_TELL_SECONDS = 60.0  # between two log lines about losses

log = get_logger(__name__)


class Backlog:
    """Hands messages to ``write``, one after the other, in a thread that begins with the first."""

    def __init__(self, write: Write, *, most_bytes: int = _MOST_BYTES) -> None:
        self._write = write
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[bytes, datetime, Outcome]] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._told_at = -_TELL_SECONDS

    def put(self, content: bytes, at: datetime, outcome: Outcome) -> None:
        """Add a message; where too much waits, or after the end, it is lost."""
        with self._changed:
            if self._closing.is_set() or self._size + len(content) > self._most_bytes:
                self._lose(1)
                return
            self._waiting.append((content, at, outcome))
            self._size += len(content)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, *, seconds: float) -> None:
        """Write what waits, for at most so long; what is not written then is lost."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)
        with self._changed:
            self._lost += len(self._waiting)
            self._tell()

    def _run(self) -> None:
        with BugLine():
            while self._write_next():
                pass

    def _write_next(self) -> bool:
        """Wait for a message and write it; False where there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            if not self._waiting:
                return False
            content, at, outcome = self._waiting[0]
        written = self._written(content, at, outcome)
        with self._changed:
            self._waiting.popleft()
            self._size -= len(content)
            if not written:
                self._lose(1)
            elif not self._waiting:
                self._tell()
        return True

    def _written(self, content: bytes, at: datetime, outcome: Outcome) -> bool:
        """Write one message, however often it takes; False if it never will be."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._write(content, at, outcome)
            except (OSError, ConfigurationError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else str(exc)
                if isinstance(exc, OSError) and exc.errno == errno.EMSGSIZE:
                    log.error("an audit message is too long for its destination", reason=reason)
                    return False
                if self._closing.is_set():
                    return False
                if pause == _FIRST_PAUSE_SECONDS:
                    log.error("audit messages cannot be written; they wait", reason=reason)
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return True

    def _lose(self, count: int) -> None:
        """Count what is lost, and tell the log now and then; the caller holds the lock."""
        self._lost += count
        if time.monotonic() - self._told_at >= _TELL_SECONDS:
            self._tell()

    def _tell(self) -> None:
        if self._lost:
            log.error("audit messages were lost", count=self._lost)
            self._lost, self._told_at = 0, time.monotonic()
