"""Answers of the catalogue: rows of texts, and data sets made of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom import DataElement, Dataset
from pydicom.valuerep import IS, PersonName

from gpnet_node.store.attributes import Attribute, Level

UTF_8 = "ISO_IR 192"  # the character set of answers that are not plain ASCII


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """What matches, read as it is iterated over. A row has a text for each attribute, which are in order of
    their tags; several values are parted by a backslash, and what is not known is empty.
    """

    attributes: tuple[Attribute, ...]
    rows: Iterator[Sequence[str]]


def data_set_of(level: Level, attributes: Sequence[Attribute], row: Sequence[str]) -> Dataset:
    """Return a row as a data set, with what is said of every answer."""
    data_set = Dataset()
    for attribute, text in zip(attributes, row, strict=True):
        data_set.add(_element(attribute, text))
    if not all(text.isascii() for text in row):
        data_set.SpecificCharacterSet = UTF_8
    data_set.QueryRetrieveLevel = str(level)
    data_set.InstanceAvailability = "ONLINE"
    return data_set


def _element(attribute: Attribute, text: str) -> DataElement:
    """Return a text as an element, unchecked: it is what was received."""
    several = text.split("\\")
    value: object = text
    if attribute.vr in ("IS", "US"):
        value = (IS(text) if attribute.vr == "IS" else int(text)) if text else None
    elif attribute.vr == "PN":
        value = [PersonName(one) for one in several] if len(several) > 1 else PersonName(text)
    elif len(several) > 1:
        value = several
    return DataElement(attribute.tag, attribute.vr, value, already_converted=True)
