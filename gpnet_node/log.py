"""Log lines: one sentence and machine fields; JSON for programs, or console lines for people.

No patient name, identifier, birth date or accession number is ever given to a logger. As a second fence the
fields that could carry them are dropped here by name, and other packages' records lose their traceback, whose
texts may quote values of a data set.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

_PATIENT_FIELDS = frozenset({"patient", "patient_name", "patient_id", "birth_date", "accession_number"})
_QUIET_PACKAGES = ("pynetdicom", "pydicom", "alembic", "sqlalchemy", "matplotlib", "highdicom", "PIL")

Event = MutableMapping[str, Any]


def configure(
    *,
    log_format: Literal["json", "console"],
    level: Literal["debug", "info", "warning", "error"],
    stream: TextIO | None = None,
) -> None:
    """Send this program's and its packages' log lines to ``stream`` (standard error by default)."""
    out = stream if stream is not None else sys.stderr
    renderer = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_patient,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_foreign, renderer])
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in _QUIET_PACKAGES:
        logging.getLogger(name).setLevel(logging.ERROR)


def _without_patient(_logger: object, _method: str, event: Event) -> Event:
    for field in _PATIENT_FIELDS & event.keys():
        del event[field]
    return event


def _foreign(_logger: object, _method: str, event: Event) -> Event:
    """Keep another package's sentence and level, drop its traceback and record."""
    record = event.pop("_record", None)
    event.pop("_from_structlog", None)
    event.pop("exc_info", None)
    if record is not None:
        event["package"] = record.name.split(".")[0]
        if record.exc_info is not None or isinstance(record.msg, BaseException):
            event["event"] = f"{event['package']} reported an error in {record.module}.{record.funcName}"
    return event
