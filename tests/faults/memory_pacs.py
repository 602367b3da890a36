"""A PACS that keeps what it is sent in memory, and can be moody: a real Storage SCP in this process."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from io import BytesIO
from typing import cast

from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE


class Mood(Enum):
    """How the PACS takes an object."""

    STORES = auto()
    REFUSES = auto()
    """Out of resources: try again later (PS3.4 B.2.3)."""
    LOSES_CONNECTION = auto()
    """It stores the object, and its answer never comes."""


@dataclass
class MemoryPacs:
    """``held``: the data sets as they came, by SOP Instance UID; of each ``stored`` is told."""

    port: int = 0
    mood: Mood = Mood.STORES
    held: dict[str, bytes] = field(default_factory=dict)
    stored: Callable[[str], None] = lambda uid: None

    def store(self, event: evt.Event) -> int:
        """Answer one C-STORE request."""
        if self.mood is Mood.REFUSES:
            return 0xA700
        request = cast(C_STORE, event.request)
        uid = str(request.AffectedSOPInstanceUID)
        self.held[uid] = cast(BytesIO, request.DataSet).getvalue()
        self.stored(uid)
        if self.mood is Mood.LOSES_CONNECTION:
            connection = event.assoc.dul.socket
            assert connection is not None
            assert connection.socket is not None
            connection.socket.shutdown(socket.SHUT_RDWR)
        return 0x0000


@contextmanager
def memory_pacs(stored: Callable[[str], None] = lambda uid: None) -> Iterator[MemoryPacs]:
    """Listen for the length of the block."""
    pacs, ae = MemoryPacs(stored=stored), AE(ae_title="PACS")
    ae.supported_contexts = StoragePresentationContexts
    handlers = cast(list[evt.EventHandlerType], [(evt.EVT_C_STORE, pacs.store)])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        server.shutdown()
