"""Removes files from the archive, so that a crash at any moment leaves all of a series or none of it.

::

    note written --> rows deleted, in one transaction --> files deleted --> note deleted

The rows decide. Of a note whose rows are still there nothing was done, and it is dropped; where they are gone
the files follow, now or at the next round. A file that was received since, or received again, stays: its date
says so.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from gpnet_node.errors import StorageError
from gpnet_node.log import get_logger
from gpnet_node.store.archive import Archive, locked
from gpnet_node.store.backup import sync

_NOTES = "removals"

log = get_logger(__name__)


class Removal(BaseModel):
    """What is to be removed of a series: files of instances that date from before a moment, results of jobs.

    ``instances`` are relative to the archive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    series_uid: str
    before: datetime
    instances: tuple[Path, ...]
    jobs: tuple[str, ...]


@contextmanager
def removing(archive: Archive) -> Iterator[None]:
    """Be the only process that removes, or during whose work nothing is removed. Raises StorageError."""
    with _translated(archive.root), locked(archive.root / _NOTES):
        yield


def note(archive: Archive, removal: Removal) -> None:
    """Write down, durably, what is about to be removed. Raises StorageError."""
    path = _note_of(archive, removal)
    unfinished = path.with_suffix(".part")
    with _translated(archive.root):
        unfinished.write_text(removal.model_dump_json(), encoding="utf-8")
        sync(unfinished)
        unfinished.replace(path)
        sync(path.parent)


def noted(archive: Archive) -> tuple[Removal, ...]:
    """Return what is being removed. Raises StorageError.

    One that is damaged is put aside: the files of which it spoke stay, and the next ``reindex`` finds them.
    """
    found = []
    with _translated(archive.root):
        for path in sorted((archive.root / _NOTES).glob("*.json")):
            try:
                found.append(Removal.model_validate_json(path.read_text(encoding="utf-8")))
            except (ValidationError, UnicodeDecodeError):
                path.rename(path.with_suffix(".damaged"))
                log.error("a note of what was being removed is damaged and put aside", path=str(path))
    return tuple(found)


def doomed(archive: Archive) -> frozenset[Path]:
    """Return the files of instances that a removal has still to take away. Raises StorageError."""
    return frozenset(
        path for it in noted(archive) for path in it.instances if not is_newer(archive, path, it.before)
    )


def is_newer(archive: Archive, path: Path, before: datetime) -> bool:
    """Whether an instance's file was received, or received again, since that moment. Raises StorageError."""
    with _translated(archive.root):
        try:
            dated = (archive.root / path).stat().st_mtime
        except FileNotFoundError:
            return False
    return datetime.fromtimestamp(dated, UTC) >= before


def carry_out(archive: Archive, removal: Removal, *, spared: Collection[Path | str]) -> int:
    """Delete the files, and then the note; return how many bytes that freed.

    ``spared``: paths and jobs that have rows. Running it again finishes what was begun. Raises StorageError.
    """
    freed = 0
    with _translated(archive.root):
        for path in removal.instances:
            if path not in spared:
                freed += _delete(archive, path, removal.before)
        for folder in {(archive.root / path).parent for path in removal.instances}:
            sync(folder)
        for job in removal.jobs:
            if job not in spared:
                freed += _delete_results(archive.root / "results" / job)
        sync(archive.root / "results")
        _note_of(archive, removal).unlink()
    return freed


def _delete(archive: Archive, path: Path, before: datetime) -> int:
    file = archive.root / path
    with locked(file.parent):
        if not file.exists() or is_newer(archive, path, before):
            return 0
        size = file.stat().st_size
        file.unlink()
        return size


def _delete_results(folder: Path) -> int:
    if not folder.exists():
        return 0
    size = sum(file.stat().st_size for file in folder.iterdir())
    shutil.rmtree(folder)
    return size


def _note_of(archive: Archive, removal: Removal) -> Path:
    return archive.root / _NOTES / f"{removal.series_uid}.json"


@contextmanager
def _translated(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageError(f"archive {root}: {exc.filename or 'a file'}: {exc.strerror}") from exc
