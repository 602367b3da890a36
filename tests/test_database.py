import os
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import StatementError

from gpnet_node.errors import ConfigurationError, StorageError
from gpnet_node.store.database import (
    journal_in_use,
    journal_mode,
    metadata,
    open_engine,
    outside_transaction,
    reading,
    series,
    series_history,
    upgrade,
    writing,
)
from tests.stores import START


def new_database(folder: Path) -> Engine:
    engine = open_engine(folder / "node.sqlite")
    upgrade(engine)
    return engine


def series_row(uid: str = "1.2", *, at: datetime = START, revision: int = 1) -> dict[str, object]:
    texts = dict.fromkeys(
        ["study_uid", "modality", "description", "patient_id", "patient_name", "reason"], ""
    )
    return {**texts, "uid": uid, "state": "receiving", "revision": revision, "created_at": at,
            "last_received_at": at}  # fmt: skip


def test_the_migrations_make_exactly_the_tables_that_the_program_uses(tmp_path: Path) -> None:
    with reading(new_database(tmp_path)) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)

    assert differences == []


def test_upgrading_twice_changes_nothing(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    with writing(engine) as connection:
        connection.execute(insert(series).values(series_row()))

    upgrade(engine)

    with reading(engine) as connection:
        assert connection.scalars(select(series.c.uid)).all() == ["1.2"]


def test_several_roles_may_upgrade_a_new_database_at_once(tmp_path: Path) -> None:
    faults: list[Exception] = []

    def start_role() -> None:
        try:
            upgrade(open_engine(tmp_path / "node.sqlite"))
        except StorageError as exc:
            faults.append(exc)

    roles = [threading.Thread(target=start_role) for _ in range(3)]
    for role in roles:
        role.start()
    for role in roles:
        role.join()

    assert faults == []


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "TRUNCATE"),
        ((3, 44, 5), "TRUNCATE"),
        ((3, 44, 6), "WAL"),
        ((3, 45, 9), "TRUNCATE"),
        ((3, 50, 6), "TRUNCATE"),
        ((3, 50, 7), "WAL"),
        ((3, 51, 2), "TRUNCATE"),
        ((3, 51, 3), "WAL"),
        ((3, 52, 0), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_a_write_ahead_log_is_used_only_on_a_repaired_sqlite(
    version: tuple[int, int, int], mode: str
) -> None:
    chosen, sentence = journal_mode(version)

    assert chosen == mode
    assert ".".join(map(str, version)) in sentence


def test_every_connection_is_durable_checked_and_has_the_chosen_journal(tmp_path: Path) -> None:
    with reading(new_database(tmp_path)) as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]

    assert pragmas == [journal_mode()[0].lower(), 2, 1, 30000]


def test_the_journal_is_reported_as_sqlite_answers_not_as_it_was_asked_for(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    with outside_transaction(engine) as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=PERSIST")

    assert journal_in_use(engine) == "PERSIST"


def test_two_writers_who_first_read_lose_no_update(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    with writing(engine) as connection:
        connection.execute(insert(series).values(series_row(revision=0)))

    def count_up(own: Engine) -> None:
        for _ in range(20):
            with writing(own) as connection:
                revision = connection.scalar(select(series.c.revision)) or 0
                connection.execute(update(series).values(revision=revision + 1))

    writers = [
        threading.Thread(target=count_up, args=[open_engine(tmp_path / "node.sqlite")]) for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    with reading(engine) as connection:
        assert connection.scalar(select(series.c.revision)) == 40


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    engine = new_database(tmp_path)

    with pytest.raises(StorageError), writing(engine) as connection:
        connection.execute(insert(series), [series_row(), series_row()])

    with reading(engine) as connection:
        assert connection.scalars(select(series.c.uid)).all() == []


def test_a_row_that_points_nowhere_is_refused_without_quoting_its_values(tmp_path: Path) -> None:
    row = {"series_uid": "9.9", "at": START, "state": "s", "revision": 1, "sentence": "secret"}

    with (
        pytest.raises(StorageError, match="FOREIGN KEY") as raised,
        writing(new_database(tmp_path)) as connection,
    ):
        connection.execute(insert(series_history).values(row))

    assert "secret" not in str(raised.value)


def test_a_moment_keeps_its_instant_whatever_its_time_zone(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    in_bern = START.astimezone(timezone(timedelta(hours=1)))
    with writing(engine) as connection:
        connection.execute(insert(series).values(series_row(at=in_bern)))

    with reading(engine) as connection:
        moment = connection.scalar(select(series.c.created_at))

    assert moment == START
    assert moment is not None
    assert moment.tzinfo == UTC


def test_a_moment_without_time_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StatementError, match="time zone"), writing(new_database(tmp_path)) as connection:
        connection.execute(insert(series).values(series_row(at=datetime(2024, 1, 31))))


def test_no_other_account_may_read_the_database(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        upgrade(open_engine(tmp_path / "new" / "node.sqlite"))
    finally:
        os.umask(before)

    made = [path for path in tmp_path.rglob("*") if path != tmp_path]
    assert {"new", "node.sqlite"} <= {path.name for path in made}
    assert {path.stat().st_mode & 0o077 for path in made} == {0}


def test_a_database_that_cannot_be_made_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match=r"database .*/file/node\.sqlite: "):
        open_engine(tmp_path / "file" / "node.sqlite")


def test_a_file_that_is_no_database_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "node.sqlite").write_text("something else altogether, and long enough to be looked at")

    with pytest.raises(StorageError, match="not a database"):
        upgrade(open_engine(tmp_path / "node.sqlite"))


def test_a_database_of_a_newer_version_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "node.sqlite")
    upgrade(engine)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")

    with pytest.raises(ConfigurationError, match="a newer version"):
        upgrade(engine)

    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == "0099"
