import time
from io import BytesIO
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt

from gpnet_node.dimse.contexts import QUERY_MODELS
from gpnet_node.dimse.identifier import Asked, read_identifier
from gpnet_node.dimse.normalized import items, read
from gpnet_node.errors import QueryError
from gpnet_node.store.attributes import Level
from tests.fuzz.dataset import EXPLICIT, IMPLICIT, Element, Items, encoded, texts


def nested(depth: int) -> bytes:
    """A sequence that ends too early, deep within others."""
    inner = Element(tag=0x00081140, vr="SQ", value=b"1..2")
    for _ in range(depth):
        inner = Element(tag=0x00081140, vr="SQ", value=Items(items=((inner,),)))
    return encoded([inner], EXPLICIT)


def test_what_cannot_be_read_deep_within_sequences_is_refused_at_once() -> None:
    event = SimpleNamespace(context=SimpleNamespace(transfer_syntax=ExplicitVRLittleEndian))
    began = time.monotonic()

    with pytest.raises(QueryError, match="cannot be parsed"):
        read(BytesIO(nested(16)), cast(evt.Event, event))
    with pytest.raises(QueryError, match="cannot be parsed"):
        read_identifier(
            BytesIO(nested(16)),
            transfer_syntax=ExplicitVRLittleEndian,
            model=QUERY_MODELS["1.2.840.10008.5.1.4.1.2.2.1"],
        )
    assert time.monotonic() - began < 1.0


def test_a_data_set_whose_sequence_ends_too_early_is_refused() -> None:
    event = SimpleNamespace(context=SimpleNamespace(transfer_syntax=ImplicitVRLittleEndian))
    sent = encoded([Element(tag=0x00081199, vr="SQ", value=b"1..2")], IMPLICIT)

    with pytest.raises(QueryError, match="cannot be parsed"):
        read(BytesIO(sent), cast(evt.Event, event))


def test_a_text_where_a_sequence_should_be_is_refused_by_name() -> None:
    data_set = Dataset()
    data_set.add_new(0x00400340, "LO", "text")

    with pytest.raises(QueryError, match="PerformedSeriesSequence is not a sequence"):
        items(data_set, "PerformedSeriesSequence")


def test_a_key_of_another_kind_is_taken_as_text_and_a_sequence_refused() -> None:
    level = texts(x00080052CS="STUDY")
    number = Element(tag=0x0020000D, vr="US", value=5)
    items_of_none = Element(tag=0x0020000D, vr="SQ", value=Items(items=((),)))

    def asked(key: Element) -> Asked:
        sent = BytesIO(encoded([*level, key], EXPLICIT))
        model = QUERY_MODELS["1.2.840.10008.5.1.4.1.2.2.1"]
        return read_identifier(sent, transfer_syntax=ExplicitVRLittleEndian, model=model)

    assert asked(number).unique_keys[Level.STUDY] == ("5",)
    with pytest.raises(QueryError, match="StudyInstanceUID is a sequence"):
        asked(items_of_none)
