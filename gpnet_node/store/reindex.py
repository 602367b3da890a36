"""Fills index and catalogue up from the archive, which is the truth for instances."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.store.archive import Archive
from gpnet_node.store.header import TAGS, attributes_of, header_of
from gpnet_node.store.index import Index
from gpnet_node.store.instance import read_received
from gpnet_node.store.listing import Entry
from gpnet_node.store.removal import doomed, removing
from gpnet_node.store.states import Arrival, AssociationOutcome
from gpnet_node.store.versions import UNREADABLE, data_set_digest, data_set_start

_BATCH = 200
_OWNER = "receiver, before it listens"  # begins as the receiver's own do: the next start closes what is left
_UNREADABLE_FILE = (OSError, StorageError, UnreadableInstanceError, *UNREADABLE)
_T = TypeVar("_T")


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

    An instance dates from its file, and came on an association that ended with the receiver, so that its
    series waits for the sender to come again. Where the index is empty, it was lost or is new: what arrived
    longer than ``settled_after`` ago is then listed without being segmented and sent once more. ``progress``
    is told how many of how many missing instances are done. What is being removed is not added, and nothing
    is removed meanwhile. Raises StorageError.
    """
    senders = _Senders(index, now)
    with removing(archive):
        found = _fill_up(archive, index, senders, now - settled_after, progress)
    senders.lose()
    return found


class _Senders:
    """The associations that brought what the index lacks: nobody knows whether more was to come on them."""

    def __init__(self, index: Index, now: datetime) -> None:
        self._index = index
        self._now = now
        self._numbers: dict[str, int] = {}  # by calling AE title

    def known(self, arrival: Arrival) -> Arrival:
        """Return the arrival with an association."""
        sender = arrival.calling_ae
        if sender not in self._numbers:
            self._numbers[sender] = self._index.open_association(
                calling_ae=sender, host="", owner=_OWNER, now=self._now
            )
        return replace(arrival, association_id=self._numbers[sender])

    def lose(self) -> None:
        """Close them as lost with the receiver."""
        for number in self._numbers.values():
            self._index.close_association(number, AssociationOutcome.LOST, now=self._now)


def _fill_up(
    archive: Archive,
    index: Index,
    senders: _Senders,
    old: datetime,
    progress: Callable[[int, int], None],
) -> Reindexed:
    kept = index.paths()
    found = list(archive.instances())
    known = kept | doomed(archive)
    missing = [(version, path) for _, version, path in found if path not in known]
    missing.sort(key=lambda it: _arrived(archive.root / it[1]))  # what came last has the last word again
    if kept:
        old = datetime.min.replace(tzinfo=UTC)
    added, unreadable = 0, []
    for batch in _batches(missing):
        arrivals = []
        for version, path in batch:
            try:
                arrivals.append(_arrival(archive.root, path, version))
            except _UNREADABLE_FILE:
                unreadable.append(path)
        added += index.record([a for a in arrivals if a.received_at < old], settled=True)
        added += index.record([senders.known(a) for a in arrivals if a.received_at >= old])
        progress(added + len(unreadable), len(missing))
    _complete_catalogue(archive, index)
    return Reindexed(found=len(found), added=added, unreadable=tuple(unreadable))


def _complete_catalogue(archive: Archive, index: Index) -> None:
    """Read the headers that a database of an older version did not keep. A file that cannot be read stays as
    it is listed, and a result as it is not.
    """
    for batch in _batches(index.half_listed()):
        index.list_whole([entry for it in batch if (entry := _with_header(archive.root, it)) is not None])


def _with_header(root: Path, half: Entry) -> Entry | None:
    path = root / half.path
    try:
        data_set = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
        with path.open("rb") as file:
            size_bytes = path.stat().st_size - data_set_start(file)
    except _UNREADABLE_FILE:
        return None
    attributes = {**half.attributes, **attributes_of(data_set)}
    return replace(half, attributes=attributes, size_bytes=half.size_bytes or size_bytes, whole=True)


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for first in range(0, len(items), _BATCH):
        yield items[first : first + _BATCH]


def as_kept(root: Path, arrival: Arrival) -> Arrival:
    """Return an arrival whose equal was there already, as that one is encoded. Raises StorageError."""
    try:
        there = _arrival(root, arrival.path, arrival.version)
    except _UNREADABLE_FILE as exc:
        raise StorageError(f"{arrival.path} cannot be read again ({type(exc).__name__})") from exc
    return replace(there, received_at=arrival.received_at, calling_ae=arrival.calling_ae, new=arrival.new)


def _arrived(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it will be named when it is read
        return 0.0


def _arrival(root: Path, path: Path, version: int) -> Arrival:
    meta = read_file_meta_info(root / path)
    syntax = UID(meta.TransferSyntaxUID)
    with (root / path).open("rb") as file:
        start = data_set_start(file)
        received = read_received(file, start=start, transfer_syntax=syntax, max_bytes=sys.maxsize)
    sha256, size_bytes = data_set_digest(root / path)
    return Arrival(
        header=header_of(received.header),
        version=version,
        transfer_syntax_uid=str(syntax),
        sha256=sha256,
        size_bytes=size_bytes,
        path=path,
        received_at=datetime.fromtimestamp((root / path).stat().st_mtime, UTC),
        association_id=None,
        calling_ae=str(meta.get("SourceApplicationEntityTitle", "")),
    )
