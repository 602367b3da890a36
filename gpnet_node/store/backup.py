"""A copy of the database, taken while others go on using it."""

import os
from pathlib import Path

from sqlalchemy import Engine

from gpnet_node.errors import StorageError
from gpnet_node.store.database import outside_transaction


def back_up(engine: Engine, path: Path) -> None:
    """Write a consistent copy of the database to ``path`` while others go on using it. Raises StorageError.

    The copy is complete or absent: it takes its name only when it is whole and on the disk.
    """
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        with outside_transaction(engine) as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(unfinished),))
        sync(unfinished)
        unfinished.replace(path)
        sync(path.parent)
    except OSError as exc:
        raise StorageError(f"backup {path}: {exc.strerror}") from exc


def sync(path: Path) -> None:
    """Put a file or folder on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
