"""The archive: files that are safe on the disk, whose bytes never change while they are there.

A file is written under ``tmp/``, synchronised, linked to its name, and the folder that holds the name is
synchronised: only then does it count. After a failed fsync the kernel may have dropped what it could not
write and call the next one a success, so the file is discarded. A file dates from when it was last received;
only ``store.removal`` takes one away.

::

    instances/<2 hex digits>/<SOP Instance UID>.<version>.dcm     as received, PS3.10
    results/<job>/<name>                                           as written here
    tmp/incoming/, tmp/stow/, tmp/results/                         unfinished, removed at their role's start
    removals/<series>.json                                         what is being removed (store.removal)
    locks/<role>.lock                                              one process per role
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal
from uuid import uuid4

from gpnet_node.errors import ConfigurationError, StorageError, UnreadableInstanceError
from gpnet_node.store.versions import same_instance

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_INSTANCE_NAME = re.compile(r"([0-9.]+)\.([0-9]+)\.dcm")
_BUFFER_BYTES = 1 << 13  # more would be copied twice on its way to the disk
_FOLDERS = ("instances", "results", "tmp/incoming", "tmp/stow", "tmp/results", "removals", "locks")

Unfinished = Literal["incoming", "stow", "results"]  # the receiver's, the web's, the worker's


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One instance that is safe; ``path`` is relative to the archive. Not ``new``: an equal one was there."""

    path: Path
    version: int
    new: bool


@dataclass(frozen=True, kw_only=True)
class KeptResult:
    """One written object that is safe. ``path`` is relative to the archive; ``sha256`` is the file's."""

    path: Path
    sha256: str


class Archive:
    """The files below ``root``, which lies on one local file system.

    What is received is refused where less than ``reserve_bytes`` are free, so that what is here can still be
    segmented and delivered.
    """

    def __init__(self, root: Path, *, reserve_bytes: int = 0) -> None:
        self.root = root
        self._reserve_bytes = reserve_bytes

    def prepare(self) -> None:
        """Make the folders, safely, so that keeping a file needs no new ones. Raises StorageError.

        What is made here is for the node's own account alone; what is there keeps its permissions.
        """
        with _translated(self.root):
            for name in _FOLDERS:
                _make_folder(self.root / name)
            for number in range(256):
                (self.root / "instances" / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
            _sync(self.root / "instances")

    def discard_unfinished(self, kind: Unfinished) -> int:
        """Remove what a dead process left unfinished; return how many files.

        For a role that holds its lock of this archive and has not begun yet. Raises
        StorageError.
        """
        with _translated(self.root):
            unfinished = list((self.root / "tmp" / kind).iterdir())
            for path in unfinished:
                path.unlink(missing_ok=True)
        return len(unfinished)

    @contextmanager
    def lock(self, role: str) -> Iterator[None]:
        """Be the only process that plays ``role`` on this archive, until the block ends or the process dies.

        Raises ConfigurationError if another process plays it.
        """
        path = self.root / "locks" / f"{role}.lock"
        with _translated(self.root):
            _make_folder(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, role, path)
            yield
        finally:
            os.close(descriptor)

    # -- instances -------------------------------------------------------------------------------------------

    def incoming(self, kind: Unfinished = "incoming") -> BinaryIO:
        """Open an unfinished file, to read and write; ``keep`` or ``discard`` it.

        Raises StorageError, also where nothing more is to be received.
        """
        if self.is_full:
            raise StorageError(f"archive {self.root}: less is free than is held in reserve (min_free_bytes)")
        return self._unfinished(kind)

    def _unfinished(self, kind: Unfinished) -> BinaryIO:
        path = self.root / "tmp" / kind / f"{uuid4().hex}.part"
        with _translated(self.root):
            return path.open("x+b", buffering=_BUFFER_BYTES)

    def discard(self, file: BinaryIO) -> None:
        """Close and remove an unfinished file, unless that was done."""
        if file.closed:
            return
        with _translated(self.root):
            Path(file.name).unlink(missing_ok=True)
        with suppress(OSError):  # closing may try once more to write what nobody wants any longer
            file.close()

    def keep(self, file: BinaryIO, sop_instance_uid: str) -> Kept:
        """Make an unfinished file safe under its instance's name, and close it.

        If a kept version has equal content, that one is the answer and the file is discarded; if all differ,
        it becomes a further version. Raises StorageError (nothing is kept, nothing may be acknowledged) and
        UnreadableInstanceError (the UID is none).
        """
        try:
            shard = self.root / instance_path(sop_instance_uid, 1).parent
            with _translated(self.root):
                file.flush()
                os.fsync(file.fileno())
                with locked(shard, shared=True) as folder:
                    return self._name(Path(file.name), sop_instance_uid, folder)
        finally:
            self.discard(file)

    def _name(self, source: Path, sop_instance_uid: str, folder: int) -> Kept:
        version = 1
        while True:
            path = instance_path(sop_instance_uid, version)
            target = self.root / path
            if _link(source, target, folder):
                return Kept(path=path, version=version, new=True)
            if same_instance(source, target):
                os.utime(target)  # it was received again, which a removal must see
                _sync(target)
                os.fsync(folder)  # another process may have linked it a moment ago
                return Kept(path=path, version=version, new=False)
            version += 1

    def instances(self) -> Iterator[tuple[str, int, Path]]:
        """Yield (SOP Instance UID, version, relative path) of every kept instance."""
        with _translated(self.root):
            for shard in sorted((self.root / "instances").iterdir()):
                for entry in sorted(shard.iterdir()):
                    if match := _INSTANCE_NAME.fullmatch(entry.name):
                        yield match[1], int(match[2]), entry.relative_to(self.root)

    # -- results ---------------------------------------------------------------------------------------------

    def keep_result(self, job_uid: str, name: str, content: bytes) -> KeptResult:
        """Make a written object safe as ``results/<job>/<name>``; return where it is.

        The same content again is found, not written. Other content under the same name, left by a run that
        died before it was recorded, is never replaced: the new one is numbered beside it.

        Raises StorageError.
        """
        folder = self.root / "results" / job_uid
        digest = hashlib.sha256(content).hexdigest()
        with _translated(self.root):
            _make_folder(folder)
        file = self._unfinished("results")
        try:
            with _translated(self.root):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                target = _free_or_equal(folder / name, Path(file.name), content)
        finally:
            self.discard(file)
        return KeptResult(path=target.relative_to(self.root), sha256=digest)

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be received. Raises StorageError."""
        return self._reserve_bytes > 0 and self.free_bytes() < self._reserve_bytes

    def free_bytes(self) -> int:
        """Return the space left on the archive's file system. Raises StorageError."""
        with _translated(self.root):
            return shutil.disk_usage(self.root).free


def instance_path(sop_instance_uid: str, version: int) -> Path:
    """Return where a version of an instance lies, relative to the archive.

    Raises UnreadableInstanceError for what is not a UID (PS3.5 9.1), which might name a file elsewhere.
    """
    if len(sop_instance_uid) > 64 or not _UID.fullmatch(sop_instance_uid):
        raise UnreadableInstanceError(
            "the SOP Instance UID is not a UID: digits and dots, at most 64 characters"
        )
    shard = hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:2]
    return Path("instances", shard, f"{sop_instance_uid}.{version}.dcm")


def _free_or_equal(wanted: Path, source: Path, content: bytes) -> Path:
    number = 1
    with _opened(wanted.parent) as folder:
        while True:
            target = wanted if number == 1 else wanted.with_name(f"{wanted.stem}.{number}{wanted.suffix}")
            if _link(source, target, folder):
                return target
            if target.read_bytes() == content:
                os.fsync(folder)
                return target
            number += 1


def _link(source: Path, target: Path, folder: int) -> bool:
    """Give ``source`` its name in the open folder, durably; False if the name is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    try:
        os.fsync(folder)
    except OSError:
        target.unlink(missing_ok=True)
        raise
    return True


def _make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each durable before the next.

    One that is there may have been made by a process that died before its name was on the disk.
    """
    if not folder.is_dir():
        if not folder.parent.is_dir():
            _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    _sync(folder.parent)


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[int]:
    """Hold the lock of a folder in the archive, alone or with others that share it; yield it, open.

    Raises OSError.

    Of a folder of instances: nothing in it is removed between its being found equal to what came and its date
    telling so.
    """
    with _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield descriptor


def _sync(path: Path) -> None:
    with _opened(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, role: str, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise ConfigurationError(
            f"another gpnet-node {role} (process {holder}) works on this archive: {path} is locked. "
            "Stop it, or give this node another archive"
        ) from exc
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


@contextmanager
def _translated(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        hint = ": the disk is full" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise StorageError(f"archive {root}: {exc.strerror}{hint}") from exc
