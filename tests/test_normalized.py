from io import BytesIO
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt

from gpnet_node.dimse.normalized import read
from gpnet_node.errors import QueryError
from tests.fuzz.dataset import IMPLICIT, Element, encoded


def test_a_data_set_whose_sequence_ends_too_early_is_refused() -> None:
    event = SimpleNamespace(context=SimpleNamespace(transfer_syntax=ImplicitVRLittleEndian))
    sent = encoded([Element(tag=0x00081199, vr="SQ", value=b"1..2")], IMPLICIT)

    with pytest.raises(QueryError, match="cannot be parsed"):
        read(BytesIO(sent), cast(evt.Event, event))
