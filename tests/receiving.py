"""A receiver in this process, with a store of its own, and who sends to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from sqlalchemy import Engine, select

from gpnet_node.audit.trail import open_trail
from gpnet_node.config import Configuration, NodeConfig, PeerConfig
from gpnet_node.dimse.indexer import Indexer
from gpnet_node.dimse.performed_step import PerformedSteps
from gpnet_node.dimse.receiver import Receiver
from gpnet_node.dimse.transport import bind, new_listener
from gpnet_node.store.archive import Archive
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.database import associations, open_engine, reading, upgrade
from gpnet_node.store.index import Index
from gpnet_node.store.states import Instance
from gpnet_node.store.steps import Steps
from tests.peers import wait_until
from tests.stores import new_desk

SCANNER = PeerConfig(name="scanner", ae_title="SCANNER", may_store=True)
CONSOLE = PeerConfig(name="console", ae_title="CONSOLE", may_store=True, accept_other_classes=True)
PACS = PeerConfig(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
ELSEWHERE = PeerConfig(name="elsewhere", ae_title="ELSEWHERE", may_store=True, hosts=("192.0.2.7",))


@dataclass(frozen=True, kw_only=True)
class Node:
    """A listening receiver, and the store behind it."""

    port: int
    receiver: Receiver
    archive: Archive
    index: Index
    engine: Engine

    def files(self) -> list[Path]:
        return [self.archive.root / path for _, _, path in self.archive.instances()]

    def outcomes(self) -> list[str]:
        """How each association stands that an instance came on."""
        with reading(self.engine) as connection:
            return list(connection.scalars(select(associations.c.outcome).order_by(associations.c.id)))

    def unfinished(self) -> list[Path]:
        return list((self.archive.root / "tmp" / "incoming").iterdir())

    def indexed(self, sop_instance_uid: str, *, count: int = 1) -> tuple[Instance, ...]:
        def versions() -> tuple[Instance, ...]:
            found = self.index.versions(sop_instance_uid)
            return found if len(found) >= count else ()

        return wait_until(versions, what=f"{count} versions in the index")


@contextmanager
def receiving(
    folder: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC), **settings: object
) -> Iterator[Node]:
    root = folder / "archive"
    given: dict[str, object] = {"archive": root, "port": 0, "host": "127.0.0.1", **settings}
    configuration = Configuration(
        node=NodeConfig.model_validate(given), peers=(SCANNER, CONSOLE, PACS, ELSEWHERE)
    )
    archive = Archive(root, reserve_bytes=configuration.node.min_free_bytes)
    archive.prepare()
    engine = open_engine(configuration.node.database)
    upgrade(engine)
    index = Index(engine)
    receiver = Receiver(
        configuration=configuration,
        archive=archive,
        indexer=Indexer(index, owner="test"),
        catalogue=Catalogue(engine),
        performed_steps=PerformedSteps(Steps(engine), clock=clock),
        commitments=new_desk(configuration, engine),
        trail=open_trail(configuration.node, owner="receiver test", clock=clock),
        clock=clock,
    )
    listener = new_listener("127.0.0.1")
    port = bind(listener, "127.0.0.1", 0)
    receiver.start(listener)
    try:
        yield Node(port=port, receiver=receiver, archive=archive, index=index, engine=engine)
    finally:
        receiver.drain(seconds=5)
        engine.dispose()


def associate(
    port: int,
    contexts: Sequence[tuple[str, str]],
    *,
    calling: str = "SCANNER",
    called: str = "GPNET",
    host: str = "127.0.0.1",
) -> Association:
    """Ask for an association, from the address ``host``."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # the files' own bytes, whatever they are
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = 20
    for sop_class, transfer_syntax in contexts:
        ae.add_requested_context(UID(sop_class), [UID(transfer_syntax)])
    return ae.associate("127.0.0.1", port, ae_title=called, bind_address=(host, 0))


def store(port: int, *paths: Path, calling: str = "SCANNER") -> list[Dataset]:
    """Send files on one association; the answers."""
    metas = [dcmread(path, stop_before_pixels=True, force=True).file_meta for path in paths]
    contexts = {(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID): None for meta in metas}
    association = associate(port, list(contexts), calling=calling)
    assert association.is_established
    answers = [association.send_c_store(path) for path in paths]
    association.release()
    return answers
