"""The composition root: every part of the store is built once, here, for roles and for commands."""

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from random import SystemRandom
from uuid import uuid4

from sqlalchemy import Engine

from gpnet_node.audit.trail import Trail, open_trail
from gpnet_node.config import Configuration
from gpnet_node.store.archive import Archive
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.commitments import Commitments
from gpnet_node.store.database import open_engine, require_current, upgrade
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.outbox import Outbox
from gpnet_node.store.retention import Retention
from gpnet_node.store.steps import Steps


class Role(StrEnum):
    """What one process of the node does."""

    RECEIVER = "receiver"
    """Takes in what peers send, and decides when a series is complete."""
    WORKER = "worker"
    """Segments one series after the other."""
    COURIER = "courier"
    """Sends the results, backs up the database, and removes what is old."""
    WEB = "web"
    """Answers DICOMweb; played where ``[web]`` in node.toml is enabled."""


def owner_of(role: Role) -> str:
    """Name this process where it holds a thing: its role, its host, its number."""
    return f"{role} {socket.gethostname()} {os.getpid()}"


def now() -> datetime:
    """The clock of the node."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What roles and commands work with, built once. ``owner`` names this process where it holds a thing."""

    configuration: Configuration
    engine: Engine
    archive: Archive
    index: Index
    catalogue: Catalogue
    steps: Steps
    jobs: Jobs
    outbox: Outbox
    commitments: Commitments
    retention: Retention
    trail: Trail
    owner: str

    def close(self) -> None:
        """Let go of the database, and write what audit messages wait."""
        self.engine.dispose()
        self.trail.close()


def build(configuration: Configuration, *, owner: str) -> Parts:
    """Open archive and database, made and brought up to date if need be. Raises StorageError."""
    node = configuration.node
    archive = Archive(node.archive)
    archive.prepare()
    engine = open_engine(node.database)
    upgrade(engine)
    return _parts(configuration, engine, owner)


def attach(configuration: Configuration, *, owner: str) -> Parts:
    """Open what a node has made, and make nothing. Raises StorageError, also if no node has run."""
    engine = open_engine(configuration.node.database, make=False)
    require_current(engine)
    return _parts(configuration, engine, owner)


def _parts(configuration: Configuration, engine: Engine, owner: str) -> Parts:
    node = configuration.node
    archive = Archive(node.archive, reserve_bytes=node.min_free_bytes)
    confirming = [peer.name for peer in configuration.peers if peer.confirm]
    return Parts(
        configuration=configuration,
        engine=engine,
        archive=archive,
        index=Index(engine, which_version=node.which_version),
        catalogue=Catalogue(engine),
        steps=Steps(engine),
        jobs=Jobs(
            engine,
            new_uid=lambda: f"2.25.{uuid4().int}",
            lease_seconds=node.lease_seconds,
            max_attempts=node.max_attempts,
        ),
        outbox=Outbox(engine, retry=node.retry, chance=SystemRandom().random),
        commitments=Commitments(engine, node.archive, retry=node.retry, chance=SystemRandom().random),
        retention=Retention(engine, archive, confirming=confirming),
        trail=open_trail(node, owner=owner, clock=now),
        owner=owner,
    )
