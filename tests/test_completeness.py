import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import Engine

from gpnet_node.completeness import Decision, Watcher
from gpnet_node.config import NodeConfig
from gpnet_node.errors import PeerError
from gpnet_node.store.commitments import Reference
from gpnet_node.store.index import Index
from gpnet_node.store.states import Arrival, AssociationOutcome, JobState, SeriesState
from gpnet_node.verdict import Geometry, examine
from tests.factories import enhanced_mr, mr_series, rejection_note
from tests.stores import (
    MR_IMAGE,
    START,
    after,
    keep,
    new_archive,
    new_commitments,
    new_database,
    new_jobs,
)

RELEASED, ABORTED, OPEN = AssociationOutcome.RELEASED, AssociationOutcome.ABORTED, AssociationOutcome.OPEN


class Node:
    """A store with its watcher; ``receive`` plays the receiver."""

    def __init__(self, folder: Path, *, tell_incomplete: bool = False) -> None:
        self.folder = folder
        self.tell_incomplete = tell_incomplete
        self.archive = new_archive(folder)
        self.engine: Engine = new_database(folder)
        self.index = Index(self.engine)
        self.jobs = new_jobs(self.engine)
        self.restart()

    def restart(self, look_into: Callable[[Sequence[Path]], Geometry] = examine) -> None:
        node = NodeConfig(archive=self.archive.root, time_zone="UTC")
        self.watcher = Watcher(
            self.engine,
            self.archive.root,
            node=node,
            jobs=self.jobs,
            tell_incomplete=self.tell_incomplete,
            look_into=look_into,
        )

    def open(self, *, at: float = 0) -> int:
        return self.index.open_association(calling_ae="MR", host="192.0.2.1", owner="pid 1", now=after(at))

    def receive(
        self,
        paths: list[Path],
        *,
        at: float = 0,
        until: float | None = 0,
        outcome: AssociationOutcome = RELEASED,
    ) -> str:
        """One association that sends the files and ends at ``until`` (None: never); the series' UID."""
        number = self.open(at=at)
        arrivals = [keep(self.archive, path, at=after(at), association=number) for path in paths]
        self.index.record(arrivals)
        if until is not None:
            self.index.close_association(number, outcome, now=after(until))
        return arrivals[0].header.series_uid

    def first_decision(self, *seconds: float) -> tuple[float, Decision] | None:
        """Look at each of these moments, and return the first at which something was decided."""
        for moment in seconds:
            for decision in self.watcher.look(after(moment)):
                return moment, decision
        return None


def decided(node: Node, *seconds: float) -> tuple[float, Decision]:
    found = node.first_decision(*seconds)
    assert found is not None
    return found


def test_where_the_headers_tell_the_number_and_it_is_reached_five_quiet_seconds_are_enough(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    uid = node.receive(mr_series(tmp_path / "sent", slices=10, ImagesInAcquisition=10))

    moment, decision = decided(node, 4.9, 5)

    assert moment == 5
    assert (decision.series_uid, decision.state) == (uid, SeriesState.COMPLETE)
    assert decision.sentence == (
        "no gap between its first and last position; 10 images of the 10 that the headers tell"
    )


@pytest.mark.parametrize("told", [None, 12])
def test_otherwise_thirty_quiet_seconds_are_waited_for(tmp_path: Path, told: int | None) -> None:
    node = Node(tmp_path)
    node.receive(mr_series(tmp_path / "sent", slices=10, ImagesInAcquisition=told))

    moment, decision = decided(node, 5, 29.9, 30)

    assert moment == 30
    assert decision.state is SeriesState.COMPLETE


def asked_to_keep(node: Node, instances: Sequence[str]) -> None:
    """Somebody asks the node to take over the safekeeping of these."""
    references = [Reference(sop_class_uid=MR_IMAGE, sop_instance_uid=uid) for uid in instances]
    new_commitments(node.engine, node.archive.root).ask(
        "1.2.3.4", peer="mr", references=references, now=after(0)
    )


@pytest.mark.parametrize(("named", "seconds"), [(10, 5), (9, 30)])
def test_a_commitment_request_shortens_the_quiet_time_where_it_names_every_instance(
    tmp_path: Path, named: int, seconds: float
) -> None:
    node = Node(tmp_path)
    uid = node.receive(mr_series(tmp_path / "sent", slices=10))
    asked_to_keep(node, [it.sop_instance_uid for it in node.index.instances(uid)][:named])

    moment, decision = decided(node, 4.9, 5, 29.9, 30)

    assert (moment, decision.state) == (seconds, SeriesState.COMPLETE)
    assert ("storage commitment names every instance" in decision.sentence) == (named == 10)


def test_what_a_series_waits_for_is_told_with_the_moment_of_the_next_look(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    uid = node.receive(paths[:4] + paths[5:], until=None)

    assert node.watcher.explain(after(6))[uid] == "association from MR open; next look 10:17:00"

    number = node.open(at=7)
    node.index.close_association(1, RELEASED, now=after(7))
    node.index.close_association(number, RELEASED, now=after(7))
    assert node.watcher.explain(after(8))[uid] == "it must be quiet for 30 s; next look 10:15:30"
    told = node.watcher.explain(after(31))[uid]
    assert "misses 1 of 10 slices" in told
    assert told.endswith("; next look 10:16:00")


def test_an_enhanced_image_tells_its_own_number_of_frames(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.receive([enhanced_mr(tmp_path / "sent")])

    moment, decision = decided(node, 4, 5)

    assert moment == 5
    assert decision.state is SeriesState.COMPLETE


def test_a_complete_series_has_its_job_from_the_same_moment(tmp_path: Path) -> None:
    node = Node(tmp_path)
    uid = node.receive(mr_series(tmp_path / "sent"))

    _, decision = decided(node, 30)

    (job,) = node.jobs.newest(series_uid=uid)
    assert (job.uid, job.state, job.revision) == (decision.job_uid, JobState.QUEUED, 1)
    assert job.created_at == after(30)


def test_a_series_with_a_gap_waits_a_minute_and_is_then_incomplete_naming_the_positions(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    uid = node.receive(paths[:4] + paths[5:])

    moment, decision = decided(node, 30, 59, 60)

    assert moment == 60
    assert (decision.state, decision.job_uid) == (SeriesState.INCOMPLETE, None)
    assert "-1.0" in decision.sentence  # the missing slice lies at -5 + 4 x 1.0 mm
    assert uid in decision.sentence
    assert node.jobs.newest() == ()


def test_where_peers_want_to_know_an_incomplete_series_gets_a_job_that_only_reports(tmp_path: Path) -> None:
    node = Node(tmp_path, tell_incomplete=True)
    paths = mr_series(tmp_path / "sent", slices=10)
    node.receive(paths[:4] + paths[5:])

    _, decision = decided(node, 30, 60)

    (job,) = node.jobs.newest()
    assert (decision.state, decision.job_uid) == (SeriesState.INCOMPLETE, job.uid)
    assert job.refusal == f"the series is incomplete: {decision.sentence}"


def test_a_rejected_slice_in_the_middle_leaves_a_gap_that_is_told_with_the_rejection(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=6, ImagesInAcquisition=6)
    series = node.receive(paths)
    assert decided(node, 5)[1].state is SeriesState.COMPLETE

    node.receive([rejection_note(tmp_path / "note.dcm", paths[2:3])], at=10, until=10)
    before = [it.series_uid for it in node.watcher.look(after(69))]
    (decision,) = node.watcher.look(after(70))

    assert series not in before
    assert (decision.series_uid, decision.state, decision.revision) == (series, SeriesState.INCOMPLETE, 2)
    assert "1 of its 6 images are rejected" in decision.sentence
    assert decision.job_uid is None


def test_a_note_that_comes_while_the_headers_are_read_drops_the_decision(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=6, ImagesInAcquisition=6)
    series = node.receive(paths)

    def look_into(files: Sequence[Path]) -> Geometry:
        if len(files) == 6:
            node.receive([rejection_note(tmp_path / "note.dcm", paths[-1:])], at=-1, until=-1)
        return examine(files)

    node.restart(look_into)
    dropped = node.watcher.look(after(5))

    assert dropped == []
    assert "1 of its 6 images are rejected" in decided(node, 6)[1].sentence
    assert node.index.series(series).state is SeriesState.COMPLETE


def test_a_slice_that_comes_late_closes_the_gap(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    node.receive(paths[:4] + paths[5:])
    assert node.first_decision(40) is None
    node.receive(paths[4:5], at=50, until=50)

    moment, decision = decided(node, 60, 79, 80)

    assert (moment, decision.state) == (80, SeriesState.COMPLETE)


def test_an_incomplete_series_becomes_complete_as_a_new_revision_when_the_slice_comes_after_all(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    uid = node.receive(paths[:4] + paths[5:])
    decided(node, 60)
    node.receive(paths[4:5], at=500, until=500)

    _, decision = decided(node, 530)

    assert (decision.state, decision.revision) == (SeriesState.COMPLETE, 2)
    states = [event.state for event in node.index.history(uid)]
    assert states == [
        SeriesState.RECEIVING, SeriesState.INCOMPLETE, SeriesState.RECEIVING, SeriesState.COMPLETE
    ]  # fmt: skip


def test_late_slices_supersede_the_job_of_the_shorter_series(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    uid = node.receive(paths[:8])
    decided(node, 30)
    node.receive(paths[8:], at=100, until=100)
    decided(node, 130)

    states = {job.revision: job.state for job in node.jobs.newest(series_uid=uid)}

    assert states == {1: JobState.SUPERSEDED, 2: JobState.QUEUED}


def test_an_open_association_holds_a_series_up_and_its_release_lets_it_go(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent")
    number = node.open()
    node.index.record([keep(node.archive, path, association=number) for path in paths])
    assert node.first_decision(30, 60, 100) is None

    node.index.close_association(number, RELEASED, now=after(100))

    moment, decision = decided(node, 100)
    assert (moment, decision.state) == (100, SeriesState.COMPLETE)


def test_an_association_that_never_closes_holds_a_series_up_for_two_minutes(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.receive(mr_series(tmp_path / "sent"), until=None)

    moment, decision = decided(node, 119, 120)

    assert (moment, decision.state) == (120, SeriesState.COMPLETE)
    assert decision.sentence.endswith("an association was still open after 120 s of quiet")


def test_two_associations_for_one_series_are_one_series_and_both_must_be_released(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    uid = node.receive(paths[:5], until=1)
    number = node.open()
    node.index.record([keep(node.archive, path, association=number) for path in paths[5:]])
    assert node.first_decision(30, 60) is None
    node.index.close_association(number, RELEASED, now=after(60))

    _, decision = decided(node, 61)

    assert (decision.series_uid, decision.state) == (uid, SeriesState.COMPLETE)
    assert len(node.index.instances(uid)) == 10
    assert len(node.jobs.newest()) == 1


def test_an_aborted_association_leaves_a_series_incomplete_though_it_has_no_gap(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.receive(mr_series(tmp_path / "sent", slices=10)[:8], until=2, outcome=ABORTED)

    moment, decision = decided(node, 30, 61, 62)

    assert (moment, decision.state) == (62, SeriesState.INCOMPLETE)
    assert decision.sentence == "association 1 was aborted and its sender has not come again"


def test_an_abort_does_not_count_where_the_number_that_the_headers_tell_is_reached(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.receive(mr_series(tmp_path / "sent", slices=10, ImagesInAcquisition=10), until=1, outcome=ABORTED)

    moment, decision = decided(node, 5)

    assert (moment, decision.state) == (5, SeriesState.COMPLETE)


def test_a_sender_that_comes_again_after_an_abort_makes_it_good(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    node.receive(paths[:8], until=2, outcome=ABORTED)
    node.receive(paths, at=20, until=21)

    moment, decision = decided(node, 40, 49.9, 50)

    assert (moment, decision.state) == (50, SeriesState.COMPLETE)


def test_a_sender_that_comes_again_with_nothing_new_still_makes_the_abort_good(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    uid = node.receive(paths, until=2, outcome=ABORTED)
    decided(node, 62)
    node.receive(paths, at=100, until=101)

    _, decision = decided(node, 130)

    assert (decision.state, decision.revision) == (SeriesState.COMPLETE, 1)
    assert len(node.index.instances(uid)) == 10


def test_a_decision_survives_a_restart_and_is_made_once(tmp_path: Path) -> None:
    node = Node(tmp_path)
    uid = node.receive(mr_series(tmp_path / "sent"))
    decided(node, 30)

    node.restart()

    assert node.first_decision(31, 1000) is None
    assert node.index.series(uid).state is SeriesState.COMPLETE
    assert len(node.jobs.newest()) == 1


@pytest.mark.parametrize(("told", "state"), [(None, SeriesState.COMPLETE), (12, SeriesState.INCOMPLETE)])
def test_a_series_whose_receiver_died_waits_for_its_sender_and_is_then_complete_unless_images_are_missing(
    tmp_path: Path, told: int | None, state: SeriesState
) -> None:
    node = Node(tmp_path)
    node.receive(mr_series(tmp_path / "sent", ImagesInAcquisition=told), until=None)
    node.watcher.look(after(10))
    node.restart()
    node.index.lose_open_associations(now=after(20))

    moment, decision = decided(node, 60, 79, 80)

    assert (moment, decision.state) == (80, state)
    assert "association 1 ended with the receiver" in decision.sentence


def test_an_instance_that_arrives_while_the_headers_are_read_drops_the_decision(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    uid = node.receive(paths[:9])
    late = keep(node.archive, paths[9], at=START)  # the same moment as the last known one

    def slow_reading(files: Sequence[Path]) -> Geometry:
        node.index.record([late])
        return examine(files)

    node.restart(slow_reading)

    assert node.watcher.look(after(30)) == []
    assert node.index.series(uid).state is SeriesState.RECEIVING
    (decision,) = node.watcher.look(after(31))
    assert "10 images" in decision.sentence


def test_a_series_without_image_planes_is_complete_and_makes_no_job(tmp_path: Path) -> None:
    node = Node(tmp_path)
    secondary_capture = "1.2.840.10008.5.1.4.1.1.7"
    node.receive(mr_series(tmp_path / "sent", slices=2, SOPClassUID=secondary_capture))

    _, decision = decided(node, 30)

    assert (decision.state, decision.job_uid) == (SeriesState.COMPLETE, None)
    assert "no image planes" in decision.sentence


def test_what_is_no_volume_for_another_reason_is_complete_and_left_to_the_job_to_refuse(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    node.receive(mr_series(tmp_path / "sent", slices=5, ImagePositionPatient=None))

    _, decision = decided(node, 30)

    assert decision.state is SeriesState.COMPLETE
    assert decision.sentence.startswith("no volume: ")
    assert decision.job_uid is not None


def test_a_file_that_vanished_from_the_archive_does_not_hold_up_the_other_series(tmp_path: Path) -> None:
    node = Node(tmp_path)
    uid = node.receive(mr_series(tmp_path / "sent", series="1"))
    other = node.receive(mr_series(tmp_path / "sent", series="2"))
    (node.archive.root / node.index.instances(uid)[0].path).unlink()

    decisions = {decision.series_uid: decision for decision in node.watcher.look(after(30))}

    assert decisions[uid].sentence.startswith("no volume: ")
    assert decisions[other].sentence.startswith("no gap")


@pytest.mark.parametrize("fault", [TypeError("Example^Person"), OSError("cut short"), PeerError("odd")])
def test_a_series_whose_headers_cannot_be_read_is_left_to_its_job_and_stops_no_other(
    tmp_path: Path, fault: Exception
) -> None:
    node = Node(tmp_path)
    uid = node.receive(mr_series(tmp_path / "sent", series="1"))
    other = node.receive(mr_series(tmp_path / "sent", series="2"))
    faulty = {node.archive.root / instance.path for instance in node.index.instances(uid)}

    def reading(files: Sequence[Path]) -> Geometry:
        if faulty & set(files):
            raise fault
        return examine(files)

    node.restart(reading)
    decisions = {decision.series_uid: decision for decision in node.watcher.look(after(30))}

    assert decisions[uid].state is SeriesState.COMPLETE
    assert decisions[uid].job_uid is not None
    assert decisions[uid].sentence.startswith("no volume: ")
    assert "Example" not in decisions[uid].sentence
    assert decisions[other].sentence.startswith("no gap")


def test_headers_are_read_once_however_long_a_series_waits(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = mr_series(tmp_path / "sent", slices=10)
    node.receive(paths[:4] + paths[5:])
    read = []

    def counting(files: Sequence[Path]) -> Geometry:
        read.append(len(files))
        return examine(files)

    node.restart(counting)
    decided(node, *range(30, 61))

    assert read == [9]


def test_many_series_at_once_are_decided_over_a_few_looks_and_none_is_forgotten(tmp_path: Path) -> None:
    node = Node(tmp_path)
    batch: list[Arrival] = []
    for number in range(120):
        batch += [
            keep(node.archive, p) for p in mr_series(tmp_path / "s", slices=2, rows=2, series=str(number))
        ]
    node.index.record(batch)

    looks = [len(node.watcher.look(after(30 + second))) for second in range(4)]

    assert looks == [50, 50, 20, 0]


# -- deadly --------------------------------------------------------------------------------------------------


def deadly(poison: str) -> Callable[[Sequence[Path]], Geometry]:
    """Look into a series, but die of the one whose file is named so, as of a lack of memory."""

    def look_into(paths: Sequence[Path]) -> Geometry:
        if any(poison in dcmread(path).SeriesDescription for path in paths):
            os.kill(os.getpid(), signal.SIGKILL)
        return examine(paths)

    return look_into


def look_in_a_process_of_its_own(node: Node, moment: float) -> int | None:
    def look() -> None:
        node.engine.dispose(close=False)  # the connections are the parent's
        node.restart(look_into=deadly("poison"))
        node.watcher.look(after(moment))

    process = get_context("fork").Process(target=look)
    process.start()
    process.join(30)
    return process.exitcode


def test_a_series_that_ends_the_receiver_each_time_is_decided_unseen_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    poison = node.receive(mr_series(tmp_path / "a", series="a", SeriesDescription="poison"))
    other = node.receive(mr_series(tmp_path / "b", series="b"), at=1, until=1)

    ended = [look_in_a_process_of_its_own(node, 40 + number) for number in range(5)]

    assert ended[:3] == [-signal.SIGKILL] * 3
    assert ended[3:] == [0, 0]
    assert node.index.decision(poison, 1).startswith("no volume: 3 times the receiver ended")
    assert node.index.decision(other, 1).startswith("no gap")
    assert {it.series_uid for it in node.jobs.newest()} == {poison, other}
    assert (node.archive.root / "looks").read_text() == ""


def test_a_receiver_that_was_killed_for_another_reason_looks_again(tmp_path: Path) -> None:
    node = Node(tmp_path)
    uid = node.receive(mr_series(tmp_path / "a", SeriesDescription="poison"))
    for number in range(2):
        assert look_in_a_process_of_its_own(node, 40 + number) == -signal.SIGKILL

    node.restart()
    _, decision = decided(node, 50)

    assert decision.series_uid == uid
    assert "no gap" in decision.sentence
    assert (node.archive.root / "looks").read_text() == ""
