"""A node that can be asked: the receiver with its catalogue, in this process, over real files."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from sqlalchemy import Engine

from gpnet_node.audit.trail import open_trail
from gpnet_node.config import Configuration, NodeConfig, PeerConfig
from gpnet_node.dimse.indexer import Indexer
from gpnet_node.dimse.performed_step import PerformedSteps
from gpnet_node.dimse.receiver import Receiver
from gpnet_node.dimse.transport import bind, new_listener
from gpnet_node.store.archive import Archive
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.index import Index
from gpnet_node.store.steps import Steps
from tests.stores import keep, new_database, new_desk

STATION = PeerConfig(name="station", ae_title="STATION", may_query=True, may_retrieve=True)
ASKER = PeerConfig(name="asker", ae_title="ASKER", may_query=True)
SCANNER = PeerConfig(name="scanner", ae_title="SCANNER", may_store=True)


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A listening node, and the store behind it."""

    port: int
    receiver: Receiver
    archive: Archive
    catalogue: Catalogue
    index: Index
    engine: Engine

    def hold(self, paths: Sequence[Path]) -> None:
        """Keep files as if they had been received."""
        self.index.record([keep(self.archive, path) for path in paths])


@contextlib.contextmanager
def answering(
    folder: Path,
    *peers: PeerConfig,
    **settings: Any,  # noqa: ANN401  # as many types as node.toml has
) -> Iterator[Answering]:
    """Run a node for the length of the block, with the peers above and those given."""
    root = folder / "archive"
    given = {"archive": root, "port": 0, "host": "127.0.0.1", **settings}
    configuration = Configuration(
        node=NodeConfig.model_validate(given), peers=(STATION, ASKER, SCANNER, *peers)
    )
    archive = Archive(root)
    archive.prepare()
    engine = new_database(root)
    index, catalogue = Index(engine), Catalogue(engine)
    trail = open_trail(configuration.node, owner="receiver test", clock=lambda: datetime.now(UTC))
    receiver = Receiver(
        configuration=configuration,
        archive=archive,
        indexer=Indexer(index, owner="test"),
        catalogue=catalogue,
        performed_steps=PerformedSteps(Steps(engine), clock=lambda: datetime.now(UTC)),
        commitments=new_desk(configuration, engine),
        trail=trail,
        clock=lambda: datetime.now(UTC),
    )
    listener = new_listener("127.0.0.1")
    port = bind(listener, "127.0.0.1", 0)
    receiver.start(listener)
    try:
        yield Answering(
            port=port, receiver=receiver, archive=archive, catalogue=catalogue, index=index, engine=engine
        )
    finally:
        receiver.drain(seconds=5)
        trail.close()
        engine.dispose()


PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1.", "1.2.840.10008.5.1.4.1.2.2."
FIND, MOVE, GET = "1", "2", "3"  # the last component of a query/retrieve class


def keys(level: str, **values: object) -> Dataset:
    """An identifier; None asks for a value."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    return identifier


@contextlib.contextmanager
def asking(
    port: int,
    *contexts: PresentationContext,
    calling: str = "STATION",
    items: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """An association of a pynetdicom SCU with all query/retrieve classes; ``items`` are for negotiation."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    models = [
        build_context(UID(root + kind)) for root in (PATIENT_ROOT, STUDY_ROOT) for kind in (FIND, MOVE, GET)
    ]
    association = ae.associate(
        "127.0.0.1", port, contexts=[*models, *contexts], ae_title="GPNET", ext_neg=list(items),
        evt_handlers=list(handlers),
    )  # fmt: skip
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def found(
    port: int,
    identifier: Dataset,
    *,
    root: str = STUDY_ROOT,
    **options: Any,  # noqa: ANN401
) -> tuple[int, list[int], list[Dataset]]:
    """Ask by C-FIND; the final status, the pending ones, and the matches."""
    with asking(port, **options) as association:
        answers = [
            (int(status.Status), it) for status, it in association.send_c_find(identifier, UID(root + FIND))
        ]
    return answers[-1][0], [status for status, _ in answers[:-1]], [it for _, it in answers[:-1] if it]


def acceptors() -> list[threading.Thread]:
    """The threads of associations that nodes of this process hold open."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("AcceptorThread")]


def cut(association: Association) -> None:
    """End the connection without a word (TCP RST)."""
    connection = association.dul.socket.socket if association.dul.socket else None
    assert connection is not None
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    association.kill()
