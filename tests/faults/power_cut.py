"""What a disk holds after the power was cut: a model that promises no more than POSIX does.

- What was written to a file counts up to its last fsync; later writes are gone, or there in part (torn
  between sectors), in any order.
- A name counts after an fsync of the folder that holds it, and only if the folder's own name counts. Later
  changes of names are gone, or there in part; a rename is there or not.
- Nothing else is promised: not that an fsync of a file keeps its name, nor that writes arrive in their order.
"""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.recording import Change

_SECTOR_BYTES = 512


@dataclass(eq=False)
class _File:
    """One file or folder; ``written`` is what was asked for, ``safe`` what an fsync has confirmed."""

    is_folder: bool = False
    written: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    waiting: list[Change] = field(default_factory=list)

    def write(self, change: Change) -> None:
        _write(self.written, change, change.data)
        self.waiting.append(change)

    def sync(self) -> None:
        self.safe = bytes(self.written)
        self.waiting.clear()

    def survived(self, chance: Random | None) -> bytes:
        """What is there after the cut: what was safe, and by chance some of the rest."""
        if chance is None:
            return self.safe
        content = bytearray(self.safe)
        for change in self.waiting:
            if chance.random() < 0.5:
                sectors = chance.randint(0, len(change.data) // _SECTOR_BYTES + 1)
                _write(content, change, change.data[: sectors * _SECTOR_BYTES])
        return bytes(content)


def _write(content: bytearray, change: Change, data: bytes) -> None:
    if change.call == "truncate":
        size = change.at or 0
        content[:] = content[:size].ljust(size, b"\0")
        return
    at = len(content) if change.at is None else change.at
    content[len(content) :] = b"\0" * max(0, at - len(content))
    content[at : at + len(data)] = data


@dataclass(frozen=True, kw_only=True)
class _Renaming:
    """One change of names, all of it or nothing."""

    added: str | None
    removed: str | None
    file: _File

    def apply(self, names: dict[str, _File]) -> None:
        if self.removed is not None:
            names.pop(self.removed, None)
        if self.added is not None:
            names[self.added] = self.file

    def is_in(self, folder: str) -> bool:
        return folder in {str(Path(name).parent) for name in (self.added, self.removed) if name is not None}


class Disk:
    """The file system below ``root``, which is there from the beginning."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._names: dict[str, _File] = {}
        self._safe: dict[str, _File] = {}
        self._waiting: list[_Renaming] = []

    def apply(self, change: Change) -> None:
        """Do what a process did."""
        if change.call in ("write", "truncate"):
            self._file(change.path).write(change)
        elif change.call == "sync":
            self._sync(change.path)
        elif change.call == "mkdir":
            self._rename(added=change.path, file=_File(is_folder=True))
        elif change.call == "link":
            self._rename(added=change.to, file=self._file(change.path))
        elif change.call == "unlink":
            self._rename(removed=change.path, file=self._file(change.path))
        elif change.call == "rename":
            self._rename(added=change.to, removed=change.path, file=self._file(change.path))
        else:
            raise ValueError(f"the model does not know {change.call}")

    def _file(self, path: str) -> _File:
        """The file of that name; one that nobody knows was made when it was opened."""
        if path not in self._names:
            self._rename(added=path, file=_File())
        return self._names[path]

    def _rename(self, *, added: str | None = None, removed: str | None = None, file: _File) -> None:
        renaming = _Renaming(added=added, removed=removed, file=file)
        renaming.apply(self._names)
        self._waiting.append(renaming)

    def _sync(self, path: str) -> None:
        if path != self._root and not self._file(path).is_folder:
            self._file(path).sync()
            return
        for renaming in [it for it in self._waiting if it.is_in(path)]:
            renaming.apply(self._safe)
            self._waiting.remove(renaming)

    def files(self) -> dict[str, bytes]:
        """What is there while the power is on, by path."""
        return {name: bytes(it.written) for name, it in self._names.items() if not it.is_folder}

    def cut(self, folder: Path, chance: Random | None = None) -> None:
        """Write what is left into ``folder``, the new root; ``chance`` keeps some of what was not safe."""
        names = dict(self._safe)
        for renaming in self._waiting:
            if chance is not None and chance.random() < 0.5:
                renaming.apply(names)
        folder.mkdir(mode=0o700)
        for name in sorted(names):
            place = folder / Path(name).relative_to(self._root)
            if not place.parent.is_dir():
                continue
            if names[name].is_folder:
                place.mkdir(mode=0o700)
            else:
                place.write_bytes(names[name].survived(chance))
