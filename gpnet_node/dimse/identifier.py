"""What a peer asks for: reads the identifier of a query or retrieval and checks its form (PS3.4 C.4)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from gpnet_node.dimse.contexts import QueryModel
from gpnet_node.errors import QueryError
from gpnet_node.intake.spool import Identifier
from gpnet_node.store.attributes import UNIQUE_KEYS
from gpnet_node.store.catalogue import Level
from gpnet_node.store.versions import UNREADABLE

_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """An identifier whose level the model has and whose upper levels are each named by one unique key."""

    level: Level
    identifier: Dataset
    unique_keys: Mapping[Level, tuple[str, ...]]  # of the levels down to this one; empty where not given


def read_identifier(stream: BytesIO | None, *, transfer_syntax: UID, model: QueryModel) -> Asked:
    """Read what a C-FIND asks. Raises QueryError: which attribute is wrong, and how, but not its value."""
    identifier = _decoded(stream, transfer_syntax)
    level = _level(identifier, model)
    keys = {it: _values(identifier, UNIQUE_KEYS[it]) for it in model.levels if level.includes(it)}
    for upper, values in keys.items():
        if upper is not level and len(values) != 1:
            raise QueryError(f"{UNIQUE_KEYS[upper]} must name one {upper.lower()}")
        if upper is not level and "*" in values[0]:
            raise QueryError(f"{UNIQUE_KEYS[upper]} must have no wildcard")
    return Asked(level=level, identifier=identifier, unique_keys=keys)


def read_retrieval(stream: BytesIO | None, *, transfer_syntax: UID, model: QueryModel) -> Asked:
    """Read what is to be sent (C-MOVE, C-GET): one patient, or some studies, series or instances.

    Raises QueryError.
    """
    asked = read_identifier(stream, transfer_syntax=transfer_syntax, model=model)
    values = asked.unique_keys[asked.level]
    keyword = UNIQUE_KEYS[asked.level]
    if not values:
        raise QueryError(f"{keyword} is missing")
    if asked.level is Level.PATIENT and len(values) != 1:
        raise QueryError(f"{keyword} must name one patient")
    if asked.level is not Level.PATIENT and not all(map(_UID.fullmatch, values)):
        raise QueryError(f"{keyword} is not a UID")
    return asked


def _decoded(stream: BytesIO | None, transfer_syntax: UID) -> Dataset:
    if stream is None:
        raise QueryError("there is no identifier")
    if isinstance(stream, Identifier) and stream.too_long:
        raise QueryError("the identifier is too long")
    try:
        identifier = decode(stream, transfer_syntax.is_implicit_VR, transfer_syntax.is_little_endian)
        list(identifier.iterall())  # not walk nor decode: of a fault their text doubles with each level
    except (*UNREADABLE, OSError) as exc:
        raise QueryError("the identifier cannot be parsed") from exc
    return identifier


def _level(identifier: Dataset, model: QueryModel) -> Level:
    value = str(identifier.get("QueryRetrieveLevel", "")).strip()
    if value not in model.levels:
        words = ", ".join(model.levels)
        raise QueryError(f"QueryRetrieveLevel must be one of {words}")
    return Level(value)


def _values(identifier: Dataset, keyword: str) -> tuple[str, ...]:
    value = identifier.get(keyword)
    if value is None:
        return ()
    if isinstance(value, Items):
        raise QueryError(f"{keyword} is a sequence")
    many = value if isinstance(value, MultiValue | list) else [value]
    return tuple(text for one in many if (text := str(one).strip(" \0")))
