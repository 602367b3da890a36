"""A removal that is broken off, or into which something arrives, at each of its steps."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from gpnet_node.store.reindex import reindex
from gpnet_node.store.removal import noted
from gpnet_node.store.states import Arrival, JobState, SeriesState
from tests.factories import mr_series, rewrite
from tests.retained import BEFORE, Store
from tests.stores import keep

STEPS = ("fsync", "unlink", "replace", "rmdir")  # and each end of a transaction
NOTHING: tuple[list[Path], dict[str, int], list[Path]] = ([], {}, [])


Done = Callable[[Path], Store]


class KilledError(BaseException):
    """The process ends here."""


@contextmanager
def acting_at(store: Store, number: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """Act just before this thread's step of that number; the list holds the numbers of those that it took."""
    here, numbers, taken = threading.get_ident(), count(), []

    def step(*_: object) -> None:
        if threading.get_ident() == here:
            taken.append(next(numbers))
            if taken[-1] == number:
                act()

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # as many types as os has
            step()
            return real(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, stepping(getattr(os, name)))
        event.listen(store.engine, "commit", step)
        try:
            yield taken
        finally:
            event.remove(store.engine, "commit", step)


@pytest.fixture(scope="module")
def done_with(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Make a store whose series may go."""
    store = Store(tmp_path_factory.mktemp("store"))
    store.job(JobState.DELIVERED)
    return store.copy


def steps_of_a_removal(store: Store) -> int:
    with acting_at(store, -1, lambda: None) as taken:
        assert store.remove() is not None
    return len(taken)


def killed() -> None:
    raise KilledError


@pytest.mark.parametrize("receiver_first", [True, False], ids=["receiver first", "courier first"])
def test_a_removal_that_is_killed_at_any_step_is_undone_or_finished(
    done_with: Done, tmp_path: Path, receiver_first: bool
) -> None:
    outcomes = []
    for number in range(steps_of_a_removal(done_with(tmp_path / "counted"))):
        store = done_with(tmp_path / str(number))
        whole = store.files(), store.rows(), store.listed()
        with acting_at(store, number, killed), pytest.raises(KilledError):
            store.remove()
        assert all(path.is_file() for path in store.listed())

        store.restart(receiver_first=receiver_first)

        outcomes.append((store.files(), store.rows(), store.listed()) == whole)
        if not outcomes[-1]:
            assert (store.files(), store.rows(), store.listed()) == NOTHING
        store.remove()
        assert (store.files(), store.rows(), store.listed()) == NOTHING
        store.receive(store.sent)
        assert (store.index.series(store.series).revision, store.jobs.newest()) == (1, ())

    assert outcomes == sorted(outcomes, reverse=True)  # undone up to one step, finished from there on
    assert set(outcomes) == {True, False}


# -- arriving meanwhile --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["the same image", "a late one", "a corrected one"])
@pytest.mark.parametrize("when", ["at once", "after the removal"])
def test_an_image_that_arrives_at_any_step_of_a_removal_is_not_lost(
    done_with: Done, tmp_path: Path, what: str, when: str
) -> None:
    removed = []
    for number in range(steps_of_a_removal(done_with(tmp_path / "counted"))):
        store = done_with(tmp_path / str(number))
        path = store.late if what == "a late one" else store.sent[-1]
        if what == "a corrected one":
            rewrite(path, PatientID="corrected")
        kept: list[Arrival] = []

        def arrive(store: Store = store, path: Path = path, kept: list[Arrival] = kept) -> None:
            kept.append(keep(store.archive, path, at=datetime.now(UTC)))
            if when == "at once":
                store.record(kept, at=datetime.now(UTC))

        receiver = threading.Thread(target=arrive)

        def begin(receiver: threading.Thread = receiver) -> None:
            receiver.start()
            receiver.join(0.05)  # it goes on as far as the removal lets it

        with acting_at(store, number, begin):
            removed.append(store.remove() is not None)
        receiver.join()
        if when != "at once":
            store.record(kept, at=datetime.now(UTC))

        (arrival,) = kept
        file = store.archive.root / arrival.path
        assert file.read_bytes() == path.read_bytes()
        assert file in store.listed()
        assert all(it.is_file() for it in store.listed())
        versions = store.index.versions(arrival.header.sop_instance_uid)
        assert arrival.path in [it.path for it in versions]
        if removed[-1]:
            assert store.index.series(store.series).state is SeriesState.RECEIVING
            assert store.jobs.newest() == ()
            assert len(store.listed()) == 1

    assert (False in removed) == (what == "the same image" or when == "at once")


@pytest.mark.parametrize("receiver_first", [True, False], ids=["receiver first", "courier first"])
def test_an_image_that_came_again_and_was_not_noted_when_all_died_is_found(
    done_with: Done, tmp_path: Path, receiver_first: bool
) -> None:
    for number in range(steps_of_a_removal(done_with(tmp_path / "counted"))):
        store = done_with(tmp_path / str(number))
        with acting_at(store, number, killed), pytest.raises(KilledError):
            store.remove()
        keep(store.archive, store.sent[0])  # acknowledged, and the receiver is killed too

        store.restart(receiver_first=receiver_first)

        assert all(path.is_file() for path in store.listed())
        assert len(store.index.instances(store.series)) in (1, len(store.sent))
        assert store.remove() is None


def kill_before_the_first_file_goes(store: Store) -> None:
    def unlink(*_: object, **__: object) -> None:
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.raises(KilledError):
            store.remove()


# -- what else is at work ------------------------------------------------------------------------------------


def test_nothing_is_removed_while_the_index_is_filled_up(done_with: Done, tmp_path: Path) -> None:
    store = done_with(tmp_path / "store")
    other = mr_series(tmp_path / "other", slices=1, series="2")
    keep(store.archive, *other)  # the index lacks it
    courier = threading.Thread(target=store.remove)
    seen = []

    def meanwhile(_done: int, _total: int) -> None:
        courier.start()
        courier.join(0.3)
        seen.append((courier.is_alive(), len(store.listed())))

    reindex(store.archive, store.index, now=datetime.now(UTC), progress=meanwhile)
    courier.join()

    assert seen == [(True, len(store.sent) + len(other) + 2)]
    assert len(store.listed()) == len(store.index.paths()) == len(other)


def test_an_index_that_was_lost_in_the_midst_of_a_removal_is_filled_up_without_it(
    done_with: Done,
    tmp_path: Path,
) -> None:
    store = done_with(tmp_path / "store")
    kill_before_the_first_file_goes(store)
    assert (len(noted(store.archive)), store.rows()) == (1, {})

    found = reindex(store.archive, store.index, now=datetime.now(UTC))

    assert (found.added, found.unreadable, store.rows()) == (0, (), {})


def test_a_note_that_is_damaged_is_told_and_put_aside_and_its_files_stay(
    done_with: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = done_with(tmp_path / "store")
    kill_before_the_first_file_goes(store)
    (note,) = (store.archive.root / "removals").glob("*.json")
    note.write_text(note.read_text()[:-20])

    store.restart(receiver_first=True)

    assert "damaged and put aside" in capsys.readouterr().out
    assert note.with_suffix(".damaged").is_file()
    assert len(store.index.instances(store.series)) == len(store.sent)


def test_a_file_that_is_not_there_any_more_holds_nothing_up(
    done_with: Done,
    tmp_path: Path,
) -> None:
    store = done_with(tmp_path / "store")
    store.files()[0].unlink()

    assert store.remove() is not None
    assert (store.files(), store.rows()) == ([], {})


def test_an_image_counts_as_received_when_it_came_last(
    done_with: Done,
    tmp_path: Path,
) -> None:
    store = done_with(tmp_path / "store")
    expired = store.retention.look(store.series, BEFORE)
    assert expired is not None

    keep(store.archive, store.sent[0])  # the index does not know of it yet

    assert store.retention.remove(expired, BEFORE) is None
    assert len(store.listed()) == len(store.sent) + 2
