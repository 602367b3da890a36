import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gpnet_node.errors import StorageError
from gpnet_node.log import bound, configure, get_logger


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A configured log whose lines can be read; the process is left as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    with warnings.catch_warnings():
        configure(style="json", level="info", stream=written)
        yield written
        logging.captureWarnings(False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_a_sentence_with_time_level_and_fields(stream: io.StringIO) -> None:
    get_logger("store").info("a job was claimed", job="job-1", attempt=2)

    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "a job was claimed", "level": "info", "part": "store", "job": "job-1", "attempt": 2
    }  # fmt: skip


def test_bound_fields_are_on_every_line_inside_the_block_and_on_none_after_it(stream: io.StringIO) -> None:
    with bound(job="job-1", series="1.2"):
        get_logger("worker").info("inside")
    get_logger("worker").info("outside")

    inside, outside = lines(stream)
    assert (inside["job"], inside["series"]) == ("job-1", "1.2")
    assert "job" not in outside


@pytest.mark.parametrize("field", ["patient_name", "PatientID", "birth_date", "accession_number", "data_set"])
def test_a_field_that_is_not_listed_is_left_out_and_the_line_says_so(stream: io.StringIO, field: str) -> None:
    get_logger("store").info("received", **{field: "Doe^John"})

    assert "Doe" not in stream.getvalue()
    assert lines(stream)[0]["left_out"] == field


def test_of_a_foreign_exception_the_kind_and_the_place_are_logged_but_not_its_text(
    stream: io.StringIO,
) -> None:
    try:
        float("Doe^John")
    except ValueError:
        get_logger("worker").error("the job failed", exc_info=True)

    (line,) = lines(stream)
    assert line["exception"] == "ValueError"
    assert line["traceback"][0].startswith("test_log.py:")
    assert "Doe" not in stream.getvalue()


def test_our_own_errors_keep_their_sentence(stream: io.StringIO) -> None:
    get_logger("store").error("not stored", exc_info=StorageError("archive /a: the disk is full"))

    assert lines(stream)[0]["exception"] == "StorageError: archive /a: the disk is full"


def test_a_librarys_warning_that_quotes_a_value_loses_it(stream: io.StringIO) -> None:
    warnings.warn("Invalid value for VR PN: 'Doe^John'", stacklevel=1)
    logging.getLogger("pydicom").warning("Invalid value for VR PN: %s", "Doe^John")

    assert "Doe" not in stream.getvalue()
    assert [line["event"] for line in lines(stream)] == ["py.warnings has warned", "pydicom has warned"]
    assert all(re.fullmatch(r"test_log\.py:\d+", line["place"]) for line in lines(stream))


def test_a_librarys_warning_that_loses_its_text_is_one_line_a_place(stream: io.StringIO) -> None:
    for number in range(3):
        logging.getLogger("pydicom").warning("Unknown encoding '%s'", "Doe^John")
        warnings.warn(f"Invalid value for VR UI: '{number}'", stacklevel=1)
    warnings.warn("Invalid value for VR PN: 'Doe^John'", stacklevel=1)
    logging.getLogger("pydicom").warning("Unknown encoding '%s'", "Doe^John")
    for _ in range(2):
        logging.getLogger("sqlalchemy").warning("the pool is exhausted")

    assert sorted(line["event"] for line in lines(stream)) == [
        *["py.warnings has warned"] * 2,
        *["pydicom has warned"] * 2,
        *["the pool is exhausted"] * 2,
    ]


def test_an_exception_that_a_library_logs_with_its_text_loses_the_text(stream: io.StringIO) -> None:
    try:
        raise ValueError("Invalid value for VR PN: 'Doe^John'")
    except ValueError as exc:
        logging.getLogger("pynetdicom.service_class").exception(exc)

    (line,) = lines(stream)
    assert "Doe" not in stream.getvalue()
    assert (line["event"], line["exception"]) == ("pynetdicom.service_class has failed", "ValueError")


@pytest.mark.parametrize("library", ["pydicom", "pynetdicom.utils", "highdicom.seg"])
def test_what_a_library_of_the_field_says_of_a_value_is_left_out(stream: io.StringIO, library: str) -> None:
    logging.getLogger(library).error("Invalid 'Affected SOP Instance UID' value '%s'", "Doe^John")

    assert "Doe" not in stream.getvalue()
    assert lines(stream)[0]["event"] == f"{library} has failed"


def test_another_librarys_error_is_a_line_like_ours(stream: io.StringIO) -> None:
    logging.getLogger("sqlalchemy").error("the pool is exhausted")

    (line,) = lines(stream)
    assert (line["event"], line["level"], line["part"]) == ("the pool is exhausted", "error", "sqlalchemy")


def test_lines_below_the_level_are_not_written(stream: io.StringIO) -> None:
    get_logger("store").debug("every detail")

    assert stream.getvalue() == ""


def test_console_lines_hold_the_sentence_and_the_fields(stream: io.StringIO) -> None:
    configure(style="console", level="info", stream=stream)

    get_logger("store").info("a job was claimed", job="job-1")

    assert "a job was claimed" in stream.getvalue()
    assert "job=job-1" in stream.getvalue()


def test_the_text_of_a_warning_is_not_kept_in_memory(stream: io.StringIO) -> None:
    for number in range(10):
        warnings.warn(f"Invalid value for VR PN: 'Doe^John {number}'", stacklevel=1)

    kept = globals().get("__warningregistry__", {})
    assert "py.warnings has warned" in stream.getvalue()
    assert not [key for key in kept if "Doe" in str(key)]
