"""The DICOM JSON Model (PS3.18 F): data sets as JSON, long binary values as a URI."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from gpnet_node.store.versions import UNREADABLE

_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW"})
_NUMBERS = frozenset({"FL", "FD", "SL", "SS", "SV", "UL", "US", "UV", "IS", "DS", "US or SS", "US or OW"})
_INLINE_BYTES = 1024  # longer binary values are left out, and fetched by their URI
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

Json = dict[str, Any]
UriOf = Callable[[str], str]


def as_json(data_set: Dataset, uri_of: UriOf, *, path: str = "") -> Json:
    """Return the model of a data set, elements in the order of their tags, without group lengths.

    ``uri_of`` gives the URI of a long binary value by its path: tags and item numbers (from 1), joined by
    dots. A value that is not what its VR says is given as the bytes that it is, with VR UN.
    """
    model: Json = {}
    for tag in sorted(data_set.keys()):
        if tag.element != 0:
            model[f"{tag:08X}"] = _element(data_set, tag, uri_of, f"{path}{tag:08X}")
    return model


def _element(data_set: Dataset, tag: BaseTag, uri_of: UriOf, path: str) -> Json:
    raw = data_set.get_item(tag)
    try:
        return _valued(data_set[tag], uri_of, path)
    except UNREADABLE:
        value = raw.value if raw is not None and isinstance(raw.value, bytes) else b""
        return {"vr": "UN", "InlineBinary": base64.b64encode(value[:_INLINE_BYTES]).decode()}


def _valued(element: DataElement, uri_of: UriOf, path: str) -> Json:
    vr = str(element.VR)
    if vr == "SQ":
        items = [as_json(item, uri_of, path=f"{path}.{n}.") for n, item in enumerate(element.value, 1)]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    if vr in _BINARY or isinstance(element.value, bytes):
        return _binary("OW" if " " in vr else vr, element.value or b"", uri_of, path)
    shown = "US" if " " in vr else vr
    if element.is_empty:
        return {"vr": shown}
    values = list(element.value) if isinstance(element.value, MultiValue | list) else [element.value]
    return {"vr": shown, "Value": _converted(shown, values)}


def _binary(vr: str, value: bytes, uri_of: UriOf, path: str) -> Json:
    if not value:
        return {"vr": vr}
    if len(value) > _INLINE_BYTES:
        return {"vr": vr, "BulkDataURI": uri_of(path)}
    return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()}


def _converted(vr: str, values: Sequence[Any]) -> list[Any]:
    if vr in _NUMBERS:
        return [_number(value) for value in values]
    if vr == "PN":
        return [_name(value) for value in values]
    if vr == "AT":
        return [f"{BaseTag(value):08X}" for value in values]
    return [None if value == "" else str(value) for value in values]


def _number(value: Any) -> int | float | str | None:  # noqa: ANN401  # IS, DSfloat, DSdecimal, int, float
    if value is None or value == "":
        return None
    number = value if isinstance(value, int) else float(value)
    if isinstance(number, int):
        return int(number)
    if not math.isfinite(number):  # JSON has no number for it (PS3.18 F.2.3)
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return number


def _name(value: PersonName | str) -> Mapping[str, str] | None:
    groups = PersonName(value).components if isinstance(value, str) else value.components
    return {name: text for name, text in zip(_GROUPS, groups, strict=False) if text} or None
