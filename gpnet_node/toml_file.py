"""A TOML file whose faults are told with file, line and key, in words for the person who wrote it."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gpnet_node.errors import ConfigurationError

KeyPath = tuple[str | int, ...]  # names of tables and keys; numbers of elements, from 0
_Section = TypeVar("_Section", bound=BaseModel)


class TomlFile:
    """The values of one file, and where they stand in it. A file that is not there is an empty one.

    Raises ConfigurationError if it cannot be read as TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._text = path.read_text(encoding="utf-8") if path.exists() else ""
            self._values = tomllib.loads(self._text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise ConfigurationError(f"{path}: not readable as TOML: {exc}") from exc

    def validated(self, model: type[_Section]) -> _Section:
        """Check the values strictly: a number in quotes is a string, not a number.

        Raises ConfigurationError with one line per fault.
        """
        try:
            return model.model_validate_json(json.dumps(self._values, default=str), strict=True)
        except ValidationError as exc:
            faults = [self.fault(error["loc"], _sentence(error)) for error in exc.errors(include_url=False)]
            raise ConfigurationError("\n".join(faults)) from exc

    def fault(self, key: KeyPath, sentence: str) -> str:
        """One line for the operator: file, line, key, what is wrong."""
        name = ".".join(str(part + 1) if isinstance(part, int) else part for part in key)
        return f"{self.path}, line {line_of(self._text, key)}: {name or 'the file'}: {sentence}"


def _sentence(error: ErrorDetails) -> str:
    """Say what pydantic found in an operator's words."""
    if error["type"] == "extra_forbidden":
        return "unknown key"
    return error["msg"].removeprefix("Value error, ")


def line_of(text: str, key: KeyPath) -> int:
    """Return the 1-based line of the statement that sets ``key``, or of the nearest table or key around."""
    best_line, best_length = 1, 0
    for line, path in _statements(text):
        length = len(path)
        if length <= len(key) and path == key[:length] and length > best_length:
            best_line, best_length = line, length
    return best_line


def _statements(text: str) -> Iterator[tuple[int, KeyPath]]:
    """Yield (line, full key) for each table header and assignment of a valid TOML text."""
    lines = text.split("\n")
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}  # of each array of tables, the number of its last element
    for index, line in enumerate(lines):
        if not re.match(r"\s*[^\s#]", line) or _parsed("\n".join(lines[:index])) is None:
            continue  # blank, a comment, or inside a value that runs over several lines
        if not line.lstrip().startswith("["):
            yield index + 1, table + _assigned(line)
            continue
        names, value = _names(_parsed(line))
        table = _indexed(names, counts)
        if isinstance(value, list):
            counts[table] = counts.get(table, -1) + 1
            table = (*table, counts[table])
        yield index + 1, table


def _assigned(line: str) -> KeyPath:
    """Return the key of an assignment; its value may run on, its name may hold an equals sign in quotes."""
    for equals in re.finditer("=", line):
        if (values := _parsed(line[: equals.start()] + "= 0")) is not None:
            return _names(values)[0]
    return ()


def _indexed(names: KeyPath, counts: dict[KeyPath, int]) -> KeyPath:
    """Insert the current element number behind each array of tables on the way to the last name."""
    path: KeyPath = ()
    for position, name in enumerate(names):
        path = (*path, name)
        if path in counts and position < len(names) - 1:
            path = (*path, counts[path])
    return path


def _names(value: object) -> tuple[KeyPath, object]:
    """Follow the only key of nested tables; return the names passed, and what stands at the end."""
    names: KeyPath = ()
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        names = (*names, name)
    return names, value


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
