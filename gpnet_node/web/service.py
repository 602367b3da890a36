"""Builds the web role's parts, once."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine, select

from gpnet_node.audit.trail import Trail
from gpnet_node.config import NodeConfig
from gpnet_node.store.archive import Archive
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.database import reading
from gpnet_node.store.index import Index
from gpnet_node.web.account import Fetched
from gpnet_node.web.app import build_app
from gpnet_node.web.qido import Qido
from gpnet_node.web.server import WebServer
from gpnet_node.web.stow import Stow
from gpnet_node.web.wado import Wado


def build_service(
    *,
    node: NodeConfig,
    engine: Engine,
    archive: Archive,
    index: Index,
    trail: Trail,
    clock: Callable[[], datetime],
    owner: str,
) -> WebServer:
    """Return the server, which does not listen yet; ``owner`` names this process in the index.

    Raises ConfigurationError.
    """

    def is_well() -> None:
        archive.free_bytes()
        with reading(engine) as connection:
            connection.execute(select(1))

    catalogue, fetched = Catalogue(engine), Fetched(trail)
    app = build_app(
        web=node.web,
        qido=Qido(catalogue, url=node.web.url),
        wado=Wado(catalogue, root=archive.root, max_bytes=node.max_instance_bytes, url=node.web.url),
        stow=Stow(node=node, archive=archive, index=index, clock=clock, owner=owner),
        is_well=is_well,
        trail=trail,
        fetched=fetched,
    )
    return WebServer(app, node.web, fetched, silent_seconds=node.network_timeout_seconds)
