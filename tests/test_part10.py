import struct
from io import BytesIO

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.instance import read_received
from gpnet_node.web.part10 import announced
from tests.fuzz.dataset import EXPLICIT, Element, encoded

ENDS_TOO_EARLY = encoded([Element(tag=0x00081140, vr="SQ", value=b"1..2", length=0xFFFFFFFF)], EXPLICIT)


def test_file_meta_information_whose_sequence_ends_too_early_is_refused() -> None:
    head = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(ENDS_TOO_EARLY)) + ENDS_TOO_EARLY

    with pytest.raises(UnreadableInstanceError):
        announced(bytes(128) + b"DICM" + head, sender="STOW-RS")


def test_a_data_set_whose_sequence_ends_too_early_is_the_senders_fault_not_the_disks() -> None:
    with pytest.raises(UnreadableInstanceError):
        read_received(
            BytesIO(ENDS_TOO_EARLY), start=0, transfer_syntax=ExplicitVRLittleEndian, max_bytes=1 << 20
        )
