"""A database that is damaged gives way to its last whole copy; nothing of it is thrown away.

What the copy lacks is filled up: instances from the archive, at the receiver's start; a job that the copy has
as waiting or running is done again, with the same bytes.
"""

import os
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from shutil import copyfile

from gpnet_node.errors import StorageError
from gpnet_node.store.backup import sync

_COMPANIONS = ("-journal", "-wal", "-shm")  # of SQLite; they belong to the file beside which they lie


def is_damaged(database: Path) -> bool:
    """Whether SQLite finds the file damaged; one that is not there, or is locked for long, is not.

    Raises StorageError.
    """
    if not database.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=30)) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]
    except sqlite3.OperationalError as exc:
        raise StorageError(f"database {database}: {exc}") from exc
    except sqlite3.DatabaseError:
        return True


def mend(database: Path, copy: Path, *, now: datetime) -> str:
    """Put the damaged database aside and its last copy in its place, if that is whole; say what was done.

    For who knows that nobody uses the database. Raises StorageError.
    """
    aside = database.with_name(f"{database.name}.damaged-{now:%Y%m%d-%H%M%S-%f}")
    whole = copy.is_file() and not is_damaged(copy)
    try:
        if whole:
            unfinished = database.with_name(database.name + ".part")
            copyfile(copy, unfinished)
            unfinished.chmod(0o600)
            sync(unfinished)
        os.link(database, aside)  # at no moment is there no database: a start would begin a new one
        for companion in _COMPANIONS:
            beside = database.with_name(database.name + companion)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + companion))
        if whole:
            unfinished.replace(database)
        else:
            database.unlink()
        sync(database.parent)
    except OSError as exc:
        raise StorageError(f"database {database} is damaged and cannot be replaced: {exc.strerror}") from exc
    instead = "its last copy stands in its place" if whole else "a new one is begun: there is no whole copy"
    return f"the database was damaged; it is kept as {aside.name}, and {instead}"
