import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.dimse.instance import read_received
from gpnet_node.errors import StorageError


@pytest.fixture
def full_disk() -> Iterator[BinaryIO]:
    """A file of which some bytes are still in the buffer, on a disk that has no room for them."""
    with contextlib.suppress(OSError), Path("/dev/full").open("r+b", buffering=1 << 16) as file:
        file.write(b"the rest of a data set")
        yield file  # closing tries once more, in vain


def test_a_disk_that_is_full_at_the_last_bytes_is_no_fault_of_the_data_set(full_disk: BinaryIO) -> None:
    with pytest.raises(StorageError, match="No space left"):
        read_received(full_disk, start=0, transfer_syntax=ExplicitVRLittleEndian, max_bytes=1 << 20)
