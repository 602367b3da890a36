from pathlib import Path

import pytest
from sqlalchemy import Engine

from gpnet_node.errors import StorageError
from gpnet_node.store.database import reading, writing
from gpnet_node.store.index import Index
from gpnet_node.store.revisions import set_state
from gpnet_node.store.states import AssociationOutcome, SeriesState
from tests.stores import START, after, arrival, new_database


def decide(engine: Engine, series: str, state: SeriesState, *, seconds: float = 1) -> None:
    row = Index(engine).series(series)
    with writing(engine) as connection:
        assert set_state(connection, row, state, revision=row.revision, sentence="why", now=after(seconds))


def open_association(index: Index, *, seconds: float = 0) -> int:
    return index.open_association(calling_ae="MR", host="192.0.2.1", owner="pid 1", now=after(seconds))


def test_the_first_instance_opens_its_series(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))

    index.record([arrival("1.2.3", series="1.2")])

    series = index.series("1.2")
    assert (series.state, series.revision, series.last_received_at) == (SeriesState.RECEIVING, 1, START)
    assert [event.sentence for event in index.history("1.2")] == ["first instance received"]


def test_many_instances_of_several_series_are_recorded_in_one_call(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))
    batch = [arrival(f"1.{s}.{n}", series=f"1.{s}", at=after(n)) for s in range(3) for n in range(50)]

    assert index.record(batch) == 150

    assert index.counts() == {SeriesState.RECEIVING: 3}
    assert [len(index.instances(f"1.{s}")) for s in range(3)] == [50, 50, 50]
    assert index.series("1.0").last_received_at == after(49)


def test_recording_again_adds_nothing_and_does_not_disturb_a_decision(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival()])
    decide(engine, "1.2", SeriesState.COMPLETE)

    assert index.record([arrival(at=after(9)), arrival(at=after(9))]) == 0

    series = index.series("1.2")
    assert (series.state, series.revision, series.last_received_at) == (SeriesState.COMPLETE, 1, START)


def test_of_one_instance_twice_in_a_batch_the_first_counts(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))

    assert index.record([arrival(at=after(1)), arrival(at=after(2))]) == 1

    assert index.versions("1.2.3")[0].received_at == after(1)


@pytest.mark.parametrize("state", [SeriesState.COMPLETE, SeriesState.INCOMPLETE])
def test_a_late_instance_takes_a_decided_series_back_as_a_new_revision(
    tmp_path: Path, state: SeriesState
) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival("1.2.1")])
    decide(engine, "1.2", state)

    index.record([arrival("1.2.2", at=after(60))])

    series = index.series("1.2")
    assert (series.state, series.revision, series.decided_at) == (SeriesState.RECEIVING, 2, None)
    assert index.history("1.2")[-1].sentence == f"1 more instances after it was {state}"


def test_a_second_version_is_told_in_the_history_of_the_series(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))
    index.record([arrival("1.2.3")])

    index.record([arrival("1.2.3", version=2, at=after(5))])

    sentence = "instance 1.2.3 came again with other content and is kept as version 2"
    assert index.history("1.2")[-1].sentence == sentence
    assert [instance.version for instance in index.versions("1.2.3")] == [1, 2]


def test_which_version_counts_is_the_operators_choice(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    Index(engine).record([arrival("1.2.1"), arrival("1.2.2"), arrival("1.2.1", version=2)])

    latest = [(i.sop_instance_uid, i.version) for i in Index(engine).instances("1.2")]
    first = [(i.sop_instance_uid, i.version) for i in Index(engine, which_version="first").instances("1.2")]

    assert latest == [("1.2.1", 2), ("1.2.2", 1)]
    assert first == [("1.2.1", 1), ("1.2.2", 1)]


def test_instances_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))
    index.record([arrival(f"1.2.{n}", instance_number=10 - n) for n in range(10)])

    assert [instance.instance_number for instance in index.instances("1.2")] == list(range(1, 11))


def test_a_series_uid_used_in_two_studies_is_told(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))
    index.record([arrival("1.2.1")])

    index.record([arrival("1.2.2", study_uid="1.99")])

    assert index.history("1.2")[-1].sentence == "instance 1.2.2 belongs to another study, 1.99"


def test_a_series_given_up_is_looked_at_again_when_its_sender_comes_back(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival(association=open_association(index))])
    decide(engine, "1.2", SeriesState.INCOMPLETE)

    index.record([arrival(association=open_association(index, seconds=50), at=after(60))])

    series = index.series("1.2")
    assert (series.state, series.revision) == (SeriesState.RECEIVING, 1)


def test_a_complete_series_stays_so_when_its_instances_are_sent_again(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival(association=open_association(index))])
    decide(engine, "1.2", SeriesState.COMPLETE)

    index.record([arrival(association=open_association(index, seconds=50), at=after(60))])

    assert index.series("1.2").state is SeriesState.COMPLETE


def test_a_decision_is_dropped_if_instances_arrived_meanwhile(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival("1.2.1")])
    seen = index.series("1.2")
    index.record([arrival("1.2.2", at=after(1))])

    with writing(engine) as connection:
        done = set_state(connection, seen, SeriesState.COMPLETE, revision=1, sentence="", now=after(2))

    assert not done
    assert index.series("1.2").state is SeriesState.RECEIVING


def test_old_news_becomes_complete_without_anything_to_do(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))

    index.record([arrival("1.2.1")], settled=True)
    index.record([arrival("1.2.2")], settled=True)

    assert index.series("1.2").state is SeriesState.COMPLETE
    assert len(index.instances("1.2")) == 2


def test_what_a_dead_receiver_left_open_is_closed_as_lost(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    released = open_association(index)
    open_association(index)
    index.close_association(released, AssociationOutcome.RELEASED, now=after(1))

    assert index.lose_open_associations(now=after(2)) == 1

    with reading(engine) as connection:
        outcomes = connection.exec_driver_sql("SELECT outcome FROM associations ORDER BY id").scalars().all()
    assert outcomes == ["released", "lost"]


def test_the_first_word_on_how_an_association_ended_counts(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    number = open_association(index)

    index.close_association(number, AssociationOutcome.RELEASED, now=after(1))
    index.close_association(number, AssociationOutcome.ABORTED, now=after(2))

    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT outcome FROM associations").scalar_one() == "released"


def test_a_series_that_nobody_sent_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no series 1\.9"):
        Index(new_database(tmp_path)).series("1.9")


def test_the_newest_series_come_first(tmp_path: Path) -> None:
    index = Index(new_database(tmp_path))
    index.record([arrival(f"1.2.{n}", series=f"1.{n}", at=after(n)) for n in (1, 3, 2)])

    assert [series.uid for series in index.newest_series(limit=2)] == ["1.3", "1.2"]


def test_why_a_revision_was_decided_is_told_whatever_came_after(tmp_path: Path) -> None:
    engine = new_database(tmp_path)
    index = Index(engine)
    index.record([arrival("1.2.1", series="1.2")])
    with writing(engine) as connection:
        row = index.series("1.2")
        set_state(connection, row, SeriesState.COMPLETE, revision=1, sentence="it is whole", now=after(1))
    index.record([arrival("1.2.2", series="1.2", at=after(2))])

    assert index.decision("1.2", 1) == "it is whole"
    assert index.decision("1.2", 2) == ""
