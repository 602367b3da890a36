"""Keys of a query as conditions of the database (PS3.4 C.2.2.2)."""

import json
from collections.abc import Callable, Iterator

from sqlalchemy import ColumnElement, func, select

from gpnet_node.store.attributes import Attribute
from gpnet_node.store.gathered import any_of_study, below
from gpnet_node.store.matching import bounds, check, has_wildcard, is_universal

ColumnOf = Callable[[str], ColumnElement[str]]

# Pairs that are one moment where that was negotiated.
_PAIRS = (
    ("StudyDate", "StudyTime"),
    ("SeriesDate", "SeriesTime"),
    ("ContentDate", "ContentTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
)
_COMPARED_AS_TEXT = frozenset({"AE", "AS", "CS", "LO", "LT", "SH", "ST"})
_SEVERAL = frozenset({"ImageType", "OtherPatientIDs"})  # attributes that have several values


def condition(
    attribute: Attribute, key: str, column_of: ColumnOf, *, fuzzy: bool
) -> Iterator[ColumnElement[bool]]:
    """Yield the condition of a key, or nothing if it matches everything. Raises QueryError."""
    if is_universal(key):
        return
    keyword, vr = attribute.keyword, attribute.vr
    if attribute.gathered and vr not in ("CS", "UI"):
        return  # a count is returned, and not matched by
    check(keyword, vr, key)
    if attribute.gathered:
        yield any_of_study(keyword, _compared(below(keyword), attribute, key))
    elif vr == "PN" and fuzzy:
        yield func.dicom_resembles(column_of(keyword), key) == 1
    else:
        yield _compared(column_of(keyword), attribute, key)


def combined_range(keys: dict[str, str], column_of: ColumnOf) -> list[ColumnElement[bool]]:
    """Take each date with its time out of ``keys`` and return their conditions. Raises QueryError."""
    found = []
    for date, time in _PAIRS:
        if is_universal(keys.get(date, "")) or is_universal(keys.get(time, "")):
            continue
        days, times = bounds(date, "DA", keys.pop(date)), bounds(time, "TM", keys.pop(time))
        moment = column_of(date).concat(column_of(time))
        found += [
            column_of(date) != "",
            func.dicom_matches("DT", moment, f"{days[0]}{times[0]}-{days[1]}{times[1]}") == 1,
        ]
    return found


def _compared(column: ColumnElement[str], attribute: Attribute, key: str) -> ColumnElement[bool]:
    """Compare in the database where it can do so, else by ``store.matching``."""
    vr = attribute.vr
    if vr == "UI":
        uids = [uid.strip(" \0") for uid in key.split("\\")]
        return column.in_(select(func.json_each(json.dumps(uids)).table_valued("value").c.value))
    if vr == "DA" and "\\" not in key:
        low, high = bounds(attribute.keyword, vr, key)
        return column.between(low, high)
    plain = vr in _COMPARED_AS_TEXT and not has_wildcard(key) and "\\" not in key
    if plain and attribute.keyword not in _SEVERAL:
        return column == key.strip()
    return func.dicom_matches(vr, column, key) == 1
