import os
import sqlite3
from pathlib import Path

import pytest

from gpnet_node.errors import StorageError
from gpnet_node.store.backup import back_up
from gpnet_node.store.index import Index
from tests.stores import arrival, new_database


def test_a_backup_is_whole_while_others_write_and_replaces_the_last_one(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    copy = tmp_path / "backup" / "node.sqlite"
    index = Index(engine)
    index.record([arrival(series="1")])
    back_up(engine, copy)
    index.record([arrival("1.2.4", series="2")])

    back_up(engine, copy)

    with sqlite3.connect(copy) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert plain.execute("SELECT uid FROM series ORDER BY uid").fetchall() == [("1",), ("2",)]
    assert list(copy.parent.iterdir()) == [copy]


def test_a_backup_takes_its_name_only_when_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_database(tmp_path)
    calls: list[tuple[str, str]] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls.append(("replace", target.name))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    back_up(engine, tmp_path / "backup" / "node.sqlite")

    assert calls == [("fsync", "node.sqlite.part"), ("replace", "node.sqlite"), ("fsync", "backup")]


def test_no_other_account_may_read_a_backup(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    before = os.umask(0)
    try:
        back_up(engine, tmp_path / "backup" / "node.sqlite")
    finally:
        os.umask(before)

    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    assert (tmp_path / "backup" / "node.sqlite").stat().st_mode & 0o077 == 0


def test_a_backup_that_cannot_be_written_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="backup"):
        back_up(new_database(tmp_path), tmp_path / "file" / "node.sqlite")
