"""Attributes of a dataset that may be broken: read at one boundary, where pydicom's errors become ours."""

import math
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from gpnet_node.errors import NotAVolumeError, StorageError, UnreadableInstanceError

# What pydicom raises on bytes that are not DICOM, are cut short, or hold another VR than the dictionary's.
# OSError is one of them: pydicom raises it, without an error number, for a sequence that ends too early.
PARSE_FAILURES = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    struct.error,
    zlib.error,
)

_UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 9.1; components with a leading zero exist and harm nobody


def file_failure(exc: OSError, where: str) -> StorageError | UnreadableInstanceError:
    """Say who must act: the operator, for what the system could not read, else the sender."""
    if exc.errno is None:
        return UnreadableInstanceError(f"{where} cannot be parsed ({type(exc).__name__})")
    return StorageError(f"{where} cannot be read: {exc.strerror}")


def look_up(header: Dataset, keyword: str, where: str) -> Any:  # noqa: ANN401
    """Value of ``keyword`` at top level, None where it is absent or empty.

    Raises UnreadableInstanceError, naming ``where``, for a value that cannot be parsed.
    """
    try:
        value = header.get(keyword)
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"{where}: {keyword} cannot be read ({type(exc).__name__})") from exc
    return None if value is None or value == "" else value


def as_items(value: Any) -> tuple[Dataset, ...]:  # noqa: ANN401
    """Items of a sequence; empty where it is absent or something else."""
    return tuple(item for item in value if isinstance(item, Dataset)) if isinstance(value, Sequence) else ()


def as_strings(value: Any) -> tuple[str, ...]:  # noqa: ANN401
    """All values of an attribute as text without padding, empty ones too; none where all are empty.

    Raises TypeError for the items of a sequence.
    """
    if value is None:
        return ()
    items = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    if any(isinstance(item, Dataset) for item in items):
        raise TypeError("a sequence where a text should be")
    strings = tuple(str(item).strip(" \0") for item in items)
    return strings if any(strings) else ()


def stated(header: Dataset, keyword: str, where: str) -> tuple[str, ...]:
    """All values of ``keyword`` at top level, as ``as_strings`` has them. Raises UnreadableInstanceError."""
    value = look_up(header, keyword, where)
    try:
        return as_strings(value)
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"{where}: {keyword} cannot be read ({type(exc).__name__})") from exc


def finite_numbers(strings: Sequence[str], name: object, where: str) -> tuple[float, ...]:
    """All values of an attribute as finite numbers. Raises UnreadableInstanceError naming it."""
    try:
        numbers = tuple(float(text) for text in strings)
    except ValueError as exc:
        raise UnreadableInstanceError(f"{where}: {name} is not a number") from exc
    if not all(math.isfinite(number) for number in numbers):
        raise UnreadableInstanceError(f"{where}: {name} is not a finite number")
    return numbers


def required_integer(header: Dataset, keyword: str, where: str, *, default: int | None = None) -> int:
    """One whole number at top level; ``default`` where it is absent.

    Raises NotAVolumeError where it is absent and has no default, UnreadableInstanceError where it is wrong.
    """
    numbers = finite_numbers(stated(header, keyword, where), keyword, where)
    if not numbers:
        if default is not None:
            return default
        raise NotAVolumeError(f"{where} has no {keyword}")
    if len(numbers) != 1:
        raise UnreadableInstanceError(f"{where}: {keyword} holds {len(numbers)} values instead of 1")
    if numbers[0] != int(numbers[0]):
        raise UnreadableInstanceError(f"{where}: {keyword} is {numbers[0]:g}, not a whole number")
    return int(numbers[0])


def as_uid(strings: Sequence[str], keyword: str, where: str) -> str:
    """One UID (PS3.5 9.1). Raises NotAVolumeError where absent, UnreadableInstanceError where wrong."""
    if not strings:
        raise NotAVolumeError(f"{where} has no {keyword}")
    if len(strings) > 1 or not _UID.fullmatch(strings[0]):
        raise UnreadableInstanceError(f"{where}: {keyword} is not a UID (PS3.5 9.1)")
    return strings[0]


def header_uid(header: Dataset, keyword: str, where: str) -> str:
    """A UID at top level of a dataset. Raises as ``as_uid`` does."""
    return as_uid(stated(header, keyword, where), keyword, where)
