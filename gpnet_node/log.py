"""Log lines: a sentence and machine fields, as JSON or for the console; never a patient's data.

Fields are let through by name: what is not listed in ``FIELDS`` is left out, and the line says that it was.
Texts that this program did not write are not trusted either: of a foreign exception or warning a line has its
kind and place, not its message, because libraries quote the values that they could not read.
"""

import logging
import sys
import traceback
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.typing import FilteringBoundLogger, Processor

FIELDS = frozenset(
    {
        *("event", "level", "timestamp", "part", "exception", "traceback", "place", "left_out"),
        *("role", "owner", "pid", "signal", "exit_code", "device", "journal", "path"),
        *("job", "job_uid", "series", "series_uid", "study_uid", "revision", "route", "model"),
        *("instance", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "version", "object"),
        *("association_id", "calling_ae", "called_ae", "host", "port", "peer", "status", "outcome"),
        *("state", "reason", "why", "warning", "attempt", "attempts", "next_attempt_at"),
        *("count", "total", "completed", "failed", "kept", "refused", "waiting", "instances", "jobs"),
        *("seconds", "bytes", "free_bytes"),
    }
)
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# Libraries whose messages quote header values; their lines say only where they come from.
QUOTING_LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "py.warnings")

Event = MutableMapping[str, Any]


def configure(*, style: Literal["json", "console"], level: str, stream: TextIO) -> None:
    """Send this process's log lines, and its libraries' warnings, to ``stream``; called once, at start."""
    structlog.configure(
        processors=_processors(style, stream),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    warnings.simplefilter("always")  # else each text is kept for good; of each place one is written below
    root = logging.getLogger()
    root.handlers = [_Relay()]
    root.setLevel(logging.WARNING)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of one part of the program."""
    return cast(FilteringBoundLogger, structlog.get_logger(part=name))


def bound(**fields: object) -> AbstractContextManager[None]:
    """Put ``fields`` (the job, the series) on every line of this thread inside the block."""
    return cast(AbstractContextManager[None], bound_contextvars(**fields))


def _processors(style: str, stream: TextIO) -> Sequence[Processor]:
    last: Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    return [
        merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        keep_listed_fields,
        last,
    ]


def keep_listed_fields(_logger: object, _method: str, event: Event) -> Event:
    """Leave out every field that is not listed, and name it."""
    left_out = sorted(set(event) - FIELDS)
    kept: Event = {name: value for name, value in event.items() if name in FIELDS}
    return {**kept, "left_out": ", ".join(left_out)} if left_out else kept


def describe_exception(_logger: object, _method: str, event: Event) -> Event:
    """Replace an exception by its kind and the places it passed; our own errors keep their sentence."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()[1]
    if isinstance(info, tuple):
        info = info[1]
    if isinstance(info, BaseException):
        event["exception"] = _kind(info)
        event["traceback"] = _places(info.__traceback__)
    return event


def _kind(error: BaseException) -> str:
    ours = type(error).__module__.startswith("gpnet_node")
    return f"{type(error).__name__}: {error}" if ours else type(error).__name__


def _places(passed: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(passed)
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


class _Relay(logging.Handler):  # the standard library's extension point
    """Writes what libraries log through the same processors."""

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; of those that say no more than their place, one warning each."""
        # A library that logs an exception mostly logs its text, which may quote a value.
        quoting = record.name.startswith(QUOTING_LIBRARIES) or bool(record.exc_info)
        sentence = f"{record.name} has {_did(record)}" if quoting else record.getMessage()
        line = get_logger(record.name)
        place = _place(record)
        if quoting and record.levelno < logging.ERROR:
            if (record.name, place) in self._warned:
                return
            self._warned.add((record.name, place))
        if record.levelno >= logging.ERROR:
            line.error(sentence, place=place, exc_info=record.exc_info)
        else:
            line.warning(sentence, place=place)


def _place(record: logging.LogRecord) -> str:
    if record.name == "py.warnings":  # formatted by the warnings module, behind the place that it is about
        return Path(record.getMessage().partition(": ")[0]).name
    return f"{Path(record.pathname).name}:{record.lineno}"


def _did(record: logging.LogRecord) -> str:
    return "failed" if record.levelno >= logging.ERROR else "warned"


class BugLine:
    """As a context, turns what nobody expected into a log line and exit status 1.

    The line has kind and place of the error; a traceback on standard error would quote values of data sets.
    """

    def __enter__(self) -> None:
        """Nothing has happened yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        """Say so, and leave."""
        if isinstance(error, Exception):
            get_logger(__name__).error("this is a bug in gpnet_node", exc_info=error)
            sys.exit(1)
