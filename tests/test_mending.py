"""A damaged database: found at the start, put aside, and replaced by its last copy."""

import os
import sqlite3
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gpnet_node.errors import ConfigurationError
from gpnet_node.node import BACKUP, mend_database
from gpnet_node.parts import Role, build
from gpnet_node.store.backup import back_up
from gpnet_node.store.index import Index
from gpnet_node.store.mending import is_damaged, mend
from gpnet_node.store.states import JobState
from tests.faults.one_process import Killed, fate
from tests.nodes import configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import storescu, wait_until
from tests.stores import START, after, arrival, new_database


def damage(database: Path) -> None:
    """Overwrite all pages but the first, as a failing disk does."""
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(database.stat().st_size - 4096))


def filled(folder: Path) -> Engine:
    engine = new_database(folder)
    Index(engine).record([arrival(f"1.2.{number}", series="1.2") for number in range(200)])
    return engine


def test_a_whole_database_and_one_that_is_not_there_are_not_damaged(tmp_path: Path) -> None:
    filled(tmp_path).dispose()

    assert not is_damaged(tmp_path / "node.sqlite")
    assert not is_damaged(tmp_path / "other.sqlite")


@pytest.mark.parametrize("how", ["pages", "head", "no database at all"])
def test_damage_is_found(tmp_path: Path, how: str) -> None:
    filled(tmp_path).dispose()
    database = tmp_path / "node.sqlite"
    if how == "pages":
        damage(database)
    elif how == "head":
        with database.open("r+b") as file:
            file.write(b"\0" * 100)
    else:
        database.write_text("something else, long enough to be looked at as a header" * 10, encoding="utf-8")

    assert is_damaged(database)


def test_the_last_copy_takes_its_place_and_the_damaged_one_is_kept(tmp_path: Path) -> None:
    engine, copy = filled(tmp_path), tmp_path / "backup" / "node.sqlite"
    back_up(engine, copy)
    engine.dispose()
    database = tmp_path / "node.sqlite"
    damage(database)
    damaged = database.read_bytes()

    sentence = mend(database, copy, now=START)

    assert "its last copy stands in its place" in sentence
    with sqlite3.connect(database) as plain:
        assert plain.execute("SELECT count(*) FROM instances").fetchone() == (200,)
    assert (tmp_path / "node.sqlite.damaged-20240131-101500-000000").read_bytes() == damaged
    assert database.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("copied", [False, True], ids=["no copy", "a damaged copy"])
def test_without_a_whole_copy_a_new_one_is_begun(tmp_path: Path, copied: bool) -> None:
    engine, copy = filled(tmp_path), tmp_path / "backup" / "node.sqlite"
    if copied:
        back_up(engine, copy)
        damage(copy)
    engine.dispose()
    damage(tmp_path / "node.sqlite")

    assert "there is no whole copy" in mend(tmp_path / "node.sqlite", copy, now=START)
    assert not (tmp_path / "node.sqlite").exists()


def test_a_death_while_the_copy_takes_its_place_leaves_one_that_the_next_start_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, copy = filled(tmp_path), tmp_path / "backup" / "node.sqlite"
    back_up(engine, copy)
    engine.dispose()
    database = tmp_path / "node.sqlite"
    for changes in count():
        damage(database)
        with fate(monkeypatch) as doom, suppress(Killed):
            doom.left = changes
            mend(database, copy, now=after(changes))
        if is_damaged(database):
            mend(database, copy, now=after(changes + 0.5))

        with sqlite3.connect(database) as plain:
            assert plain.execute("SELECT count(*) FROM instances").fetchone() == (200,)
        if not doom.dead:
            break
    assert changes >= 4  # at least two files are synchronised, one kept aside and one put in its place


def test_a_database_that_others_use_is_not_touched(tmp_path: Path) -> None:
    configuration = configuration_of(tmp_path)
    parts = build(configuration, owner="test")
    parts.engine.dispose()
    damage(configuration.node.database)

    with (
        parts.archive.lock(Role.WORKER),
        pytest.raises(ConfigurationError, match="another gpnet-node"),
    ):
        mend_database(configuration)

    assert is_damaged(configuration.node.database)


@pytest.mark.parametrize("copied", [False, True], ids=["no copy", "a copy from before"])
def test_a_node_whose_database_was_damaged_goes_on_and_segments_what_it_had_received(
    tmp_path: Path, copied: bool
) -> None:
    head = draw_head(tmp_path / "series")
    configuration = configuration_of(tmp_path)
    with running_node(configuration, Role.RECEIVER) as node:
        if copied:
            back_up(node.parts.engine, configuration.node.archive / BACKUP)
        storescu(node.port, head.paths)
        node.job(JobState.QUEUED)
    damage(configuration.node.database)

    with running_node(configuration) as node:
        assert node.job(JobState.WRITTEN)
        assert len(list(node.parts.archive.instances())) == len(head.paths)


def test_a_role_that_finds_the_database_damaged_has_the_whole_node_started_again(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    configuration = configuration_of(tmp_path)
    with running_node(configuration) as node:
        storescu(node.port, head.paths)
        node.job(JobState.WRITTEN)
        damage(configuration.node.database)
        before = [node.supervisor.process_id(role) for role in (Role.RECEIVER, Role.WORKER)]
        os.kill(node.supervisor.process_id(Role.WORKER) or 0, 9)

        def all_new() -> bool:
            node.supervisor.tend()
            ids = [node.supervisor.process_id(role) for role in (Role.RECEIVER, Role.WORKER)]
            return None not in ids and not set(ids) & set(before)

        wait_until(all_new, seconds=60, what="a node of new processes")
        node.supervisor.wait_until_ready(seconds=60)
        assert not is_damaged(configuration.node.database)
        assert list(configuration.node.database.parent.glob("*.damaged-*"))
