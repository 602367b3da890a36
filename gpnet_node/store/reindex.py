"""Fills the index up from the archive, which is the truth for instances."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.archive import Archive
from gpnet_node.store.header import TAGS, header_of
from gpnet_node.store.index import Index
from gpnet_node.store.states import Arrival
from gpnet_node.store.versions import UNREADABLE, data_set_start

_BATCH = 200
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Reindexed:
    """What a walk through the archive found. ``unreadable`` paths are relative to the archive."""

    found: int
    added: int
    unreadable: tuple[Path, ...]


def reindex(
    archive: Archive,
    index: Index,
    *,
    now: datetime,
    settled_after: timedelta = timedelta(hours=24),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reindexed:
    """Add what the archive has and the index lacks; running it again adds nothing.

    An instance dates from its file. Where the index is empty, it was lost or is new: what arrived longer than
    ``settled_after`` ago is then listed without being segmented and sent once more. ``progress`` is told how
    many of how many missing instances are done. Raises StorageError.
    """
    kept = index.paths()
    found = list(archive.instances())
    missing = [(version, path) for _, version, path in found if path not in kept]
    old = now - settled_after if not kept else datetime.min.replace(tzinfo=UTC)
    added, unreadable = 0, []
    for batch in _batches(missing):
        arrivals = []
        for version, path in batch:
            try:
                arrivals.append(_arrival(archive.root, path, version))
            except (OSError, UnreadableInstanceError, *UNREADABLE):
                unreadable.append(path)
        added += index.record([a for a in arrivals if a.received_at < old], settled=True)
        added += index.record([a for a in arrivals if a.received_at >= old])
        progress(added + len(unreadable), len(missing))
    return Reindexed(found=len(found), added=added, unreadable=tuple(unreadable))


def _batches(missing: list[tuple[int, Path]]) -> Iterator[list[tuple[int, Path]]]:
    for first in range(0, len(missing), _BATCH):
        yield missing[first : first + _BATCH]


def _arrival(root: Path, path: Path, version: int) -> Arrival:
    data_set = pydicom.dcmread(root / path, stop_before_pixels=True, specific_tags=list(TAGS))
    digest = hashlib.sha256()
    with (root / path).open("rb") as file:
        start = data_set_start(file)
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        size_bytes = file.tell() - start
    return Arrival(
        header=header_of(data_set),
        version=version,
        transfer_syntax_uid=str(data_set.file_meta.TransferSyntaxUID),
        sha256=digest.hexdigest(),
        size_bytes=size_bytes,
        path=path,
        received_at=datetime.fromtimestamp((root / path).stat().st_mtime, UTC),
        association_id=None,
        calling_ae=str(data_set.file_meta.get("SourceApplicationEntityTitle", "")),
    )
