"""The worker, on real series in a real archive, with a segmenter that needs no network."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pydicom
import pytest

from gpnet_node import pipeline
from gpnet_node.config import SHIPPED_MODEL
from gpnet_node.errors import NoPallidumError
from gpnet_node.imaging.volume import Volume
from gpnet_node.model.segmentation import Segmentation
from gpnet_node.parts import Parts, build, now
from gpnet_node.pipeline import Segmenter
from gpnet_node.result_profile import ResultProfile, SegForm
from gpnet_node.results.content import Background
from gpnet_node.results.identifiers import JobIdentity
from gpnet_node.store.database import writing
from gpnet_node.store.states import Job, JobState
from gpnet_node.worker import Worker
from tests.factories import rejection_note
from tests.nodes import configuration_of
from tests.pallida import draw_head
from tests.peers import wait_until
from tests.segmenters import (
    DoubtfulSegmenter,
    HeldSegmenter,
    HungrySegmenter,
    ThresholdSegmenter,
    segmentation,
)
from tests.stores import keep


class Odd(ThresholdSegmenter):
    """Does something else than segmenting."""

    def __init__(self, act: Callable[[Volume], Segmentation]) -> None:
        super().__init__()
        self._act = act

    def segment(self, volume: Volume) -> Segmentation:
        return self._act(volume)


def raising(error: Exception) -> Segmenter:
    def act(volume: Volume) -> Segmentation:
        raise error

    return Odd(act)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A worker and the store that it works on."""

    parts: Parts
    worker: Worker

    def queue(self, paths: tuple[Path, ...]) -> Job:
        """Queue a job for a series that has been received."""
        arrivals = [keep(self.parts.archive, path, at=now()) for path in paths]
        self.parts.index.record(arrivals)
        return self.parts.jobs.reprocess(arrivals[0].header.series_uid, now=now())

    def queue_again(self, job: Job, note: Path) -> Job:
        """Queue the job that follows once a rejection note has been received."""
        self.parts.index.record([keep(self.parts.archive, note, at=now())])
        return self.parts.jobs.reprocess(job.series_uid, now=now())

    def work(self) -> bool:
        left = self.worker.work_once(threading.Event(), leave=lambda: pytest.fail("the worker left"))
        return left is not None

    def job(self, job: Job) -> Job:
        return self.parts.jobs.get(job.uid)


@contextmanager
def bench(
    tmp_path: Path,
    segmenter: Segmenter | None = None,
    *,
    lease_seconds: float = 60,
    drain_seconds: float = 20,
    **settings: Any,  # noqa: ANN401  # as many types as node.toml has
) -> Iterator[Bench]:
    configuration = configuration_of(
        tmp_path, pacs=104, lease_seconds=lease_seconds, drain_seconds=drain_seconds, **settings
    )
    parts = build(configuration, owner="test")
    chosen = segmenter or ThresholdSegmenter()
    worker = Worker(
        configuration=parts.configuration,
        archive=parts.archive,
        index=parts.index,
        jobs=parts.jobs,
        segmenter_for=lambda _route: chosen,
        clock=now,
        owner="worker",
        software_version="0.1.0",
    )
    yield Bench(parts=parts, worker=worker)
    parts.engine.dispose()


def test_an_eligible_series_becomes_archived_objects_owed_to_the_routes_peers(tmp_path: Path) -> None:
    with bench(tmp_path) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)

        assert at.work()

        done = at.job(job)
        results = at.parts.jobs.results(job.uid)
        assert (done.state, done.route) == (JobState.WRITTEN, "gpnet")
        assert done.model is not None
        assert done.model.startswith(SHIPPED_MODEL)
        assert [it.kind for it in results] == ["seg", "sr"]
        assert [(d.name, d.peer) for d in at.parts.outbox.of_job(job.uid)] == [
            ("seg", "pacs"),
            ("sr", "pacs"),
        ]
        for it in results:
            archived = pydicom.dcmread(at.parts.archive.root / it.path)
            assert archived.SOPInstanceUID == it.sop_instance_uid
            assert archived.SOPClassUID == it.sop_class_uid


def test_without_a_job_there_is_nothing_to_do(tmp_path: Path) -> None:
    with bench(tmp_path) as at:
        assert not at.work()


def test_a_series_that_the_gate_refuses_is_rejected_with_its_reasons(tmp_path: Path) -> None:
    with bench(tmp_path) as at:
        job = at.queue(draw_head(tmp_path / "series", MagneticFieldStrength=1.5).paths)
        at.work()

        done = at.job(job)
        assert done.state is JobState.REJECTED
        assert "1.5" in done.reason
        assert at.parts.jobs.results(job.uid) == ()
        assert at.parts.outbox.of_job(job.uid) == ()


def test_a_series_with_a_missing_slice_fails_and_names_the_position(tmp_path: Path) -> None:
    with bench(tmp_path) as at:
        paths = draw_head(tmp_path / "series").paths
        job = at.queue(paths[:5] + paths[6:])
        at.work()

        done = at.job(job)
        assert done.state is JobState.FAILED
        assert "misses 1 of 20 slices" in done.reason


def test_a_volume_without_pallidum_fails_and_says_so(tmp_path: Path) -> None:
    with bench(tmp_path, raising(NoPallidumError("no pallidum was found on the left side"))) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()

        done = at.job(job)
        assert (done.state, done.reason) == (JobState.FAILED, "no pallidum was found on the left side")


def test_an_object_that_the_self_check_stops_needs_review_and_nothing_is_owed(tmp_path: Path) -> None:
    def unmapped(volume: Volume) -> Segmentation:
        return segmentation(volume, np.full(volume.voxels.shape, 9, np.uint8))

    with bench(tmp_path, Odd(unmapped)) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()

        assert at.job(job).state is JobState.NEEDS_REVIEW
        assert "self-check" in at.job(job).reason
        assert at.parts.outbox.of_job(job.uid) == ()


def test_a_doubtful_result_needs_review_and_leaves_only_when_the_operator_releases_it(tmp_path: Path) -> None:
    with bench(tmp_path, DoubtfulSegmenter("the left pallidum is doubtful")) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()

        doubtful, kept = at.job(job), at.parts.jobs.results(job.uid)
        due_before = at.parts.outbox.due(now=now())
        at.parts.jobs.release(job.uid, now=now())
        assert doubtful.state is JobState.NEEDS_REVIEW
        assert "the left pallidum is doubtful" in doubtful.reason
        assert [it.kind for it in kept] == ["seg", "sr"]
        report = (at.parts.archive.root / kept[1].path).read_bytes()
        assert b"the left pallidum is doubtful" in report
        assert due_before == ()
        assert [(d.name, d.peer) for d in at.parts.outbox.due(now=now())] == [("seg", "pacs"), ("sr", "pacs")]


def test_a_doubtful_result_that_the_operator_rejects_never_leaves(tmp_path: Path) -> None:
    with bench(tmp_path, DoubtfulSegmenter("the left pallidum is doubtful")) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()

        at.parts.jobs.reject(job.uid, now=now())

        assert at.job(job).state is JobState.REJECTED
        assert at.parts.outbox.due(now=now()) == ()


WITH_REFUSALS = ResultProfile(objects=("seg", "sr", "refusal"))


@pytest.mark.parametrize(
    ("attributes", "paths", "state", "words"),
    [
        ({"MagneticFieldStrength": 1.5}, slice(None), JobState.REJECTED, "1.5"),
        ({}, slice(1, None, 2), JobState.FAILED, "misses"),
    ],
    ids=["not eligible", "no volume"],
)
def test_a_peer_that_wants_to_know_is_told_why_a_series_was_not_segmented(
    tmp_path: Path, attributes: dict[str, Any], paths: slice, state: JobState, words: str
) -> None:
    with bench(tmp_path, profile=WITH_REFUSALS) as at:
        head = draw_head(tmp_path / "series", **attributes)
        job = at.queue((head.paths[0], *head.paths[1:][paths]))
        at.work()

        (due,) = at.parts.outbox.due(now=now())
        assert at.job(job).state is state
        assert (due.name, due.peer) == ("refusal", "pacs")
        content = (at.parts.archive.root / due.path).read_bytes()
        assert b"Not segmented because" in content
        assert words.encode() in content


@pytest.mark.parametrize("sent", [True, False], ids=["sent", "still waiting"])
def test_of_a_doubtful_result_only_the_report_of_the_doubt_leaves_before_the_release_and_not_after(
    tmp_path: Path, sent: bool
) -> None:
    with bench(tmp_path, DoubtfulSegmenter("the left pallidum is doubtful"), profile=WITH_REFUSALS) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()

        (before,) = at.parts.outbox.due(now=now())
        if sent:
            at.parts.outbox.paid(before, status=0, now=now())
        state = at.job(job).state
        at.parts.jobs.release(job.uid, now=now())

        assert (before.name, state) == ("refusal", JobState.NEEDS_REVIEW)
        assert [debt.name for debt in at.parts.outbox.due(now=now())] == ["seg", "sr"]
        kept = {it.name for it in at.parts.jobs.results(job.uid)}
        assert kept == {"seg", "sr", "refusal"} if sent else {"seg", "sr"}


def test_a_series_that_is_incomplete_is_not_segmented_but_told_of(tmp_path: Path) -> None:
    def never(volume: Volume) -> Segmentation:
        pytest.fail("it was segmented")

    with bench(tmp_path, Odd(never), profile=WITH_REFUSALS) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        with writing(at.parts.engine) as connection:
            told = at.parts.jobs.create(
                connection, job.series_uid, revision=1, sentence="incomplete", now=now(),
                refusal="the series is incomplete: its association was aborted",
            )  # fmt: skip
        at.work()

        assert at.job(told).state is JobState.REJECTED
        assert [debt.name for debt in at.parts.outbox.due(now=now())] == ["refusal"]


def test_a_failed_job_that_is_retried_owes_no_report_of_its_failure_any_more(tmp_path: Path) -> None:
    failing: list[Exception] = [NoPallidumError("no pallidum was found")]
    sound = ThresholdSegmenter()

    def act(volume: Volume) -> Segmentation:
        if failing:
            raise failing.pop()
        return sound.segment(volume)

    with bench(tmp_path, Odd(act), profile=WITH_REFUSALS) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()
        assert [debt.name for debt in at.parts.outbox.of_job(job.uid)] == ["refusal"]
        at.parts.jobs.retry(job.uid, now=now())
        at.work()

        assert at.job(job).state is JobState.WRITTEN
        assert [debt.name for debt in at.parts.outbox.of_job(job.uid)] == ["seg", "sr"]


def test_a_newer_result_rejects_what_was_delivered_of_the_older_one_and_names_it(tmp_path: Path) -> None:
    profile = ResultProfile(objects=("seg", "sr", "rejection"))
    with bench(tmp_path, profile=profile) as at:
        first = at.queue(draw_head(tmp_path / "series").paths)
        at.work()
        older = {it.name: it for it in at.parts.jobs.results(first.uid)}
        for debt in at.parts.outbox.due(now=now()):
            at.parts.outbox.paid(debt, status=0, now=now())
        second = at.parts.jobs.reprocess(first.series_uid, now=now())
        at.work()

        newer = {it.name: at.parts.archive.root / it.path for it in at.parts.jobs.results(second.uid)}
        assert set(older) == {"seg", "sr"}  # nothing was there to be rejected
        assert set(newer) == {"seg", "sr", "rejection"}
        note, report = pydicom.dcmread(newer["rejection"]), pydicom.dcmread(newer["sr"])
        rejected = {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in note.ContentSequence
            if "ReferencedSOPSequence" in item
        }
        assert rejected == {it.sop_instance_uid for it in older.values()}
        (predecessor,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
        assert predecessor.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == older["sr"].sop_instance_uid


def test_what_no_longer_holds_is_rejected_at_once_though_the_newer_result_is_doubtful(tmp_path: Path) -> None:
    profile = ResultProfile(objects=("seg", "sr", "rejection"))
    sound, doubtful = ThresholdSegmenter(), DoubtfulSegmenter("the left pallidum is doubtful")
    segmenters: list[Segmenter] = [sound, doubtful]
    with bench(tmp_path, Odd(lambda it: segmenters.pop(0).segment(it)), profile=profile) as at:
        paths = draw_head(tmp_path / "series").paths
        first = at.queue(paths)
        at.work()
        for debt in at.parts.outbox.due(now=now()):
            at.parts.outbox.paid(debt, status=0, now=now())
        note = rejection_note(tmp_path / "note.dcm", paths[-1:])
        second = at.queue_again(first, note)
        at.work()

        (due,) = at.parts.outbox.due(now=now())
        assert at.job(second).state is JobState.NEEDS_REVIEW
        assert due.name == "withdrawal"
        withdrawal = pydicom.dcmread(at.parts.archive.root / due.path)
        assert withdrawal.ConceptNameCodeSequence[0].CodeValue == "113037"
        at.parts.outbox.paid(due, status=0, now=now())
        at.parts.jobs.release(second.uid, now=now())
        assert [debt.name for debt in at.parts.outbox.due(now=now())] == ["seg", "sr"]


def test_each_peer_is_owed_its_own_form_of_the_segmentation_with_the_report_on_it(tmp_path: Path) -> None:
    form = SegForm(labelmap=True, empty_frames=False)
    with bench(tmp_path, profile=ResultProfile(seg=form)) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()

        kept = {it.name: at.parts.archive.root / it.path for it in at.parts.jobs.results(job.uid)}
        assert set(kept) == {"seg", "sr", "seg-labelmap-nonempty", "sr-labelmap-nonempty"}
        owed = [debt.name for debt in at.parts.outbox.of_job(job.uid)]
        assert owed == ["seg-labelmap-nonempty", "sr-labelmap-nonempty"]
        labelmap = pydicom.dcmread(kept["seg-labelmap-nonempty"])
        assert labelmap.SegmentationType == "LABELMAP"
        assert labelmap.SOPInstanceUID.encode() in kept["sr-labelmap-nonempty"].read_bytes()


def test_a_bug_ends_its_job_without_quoting_it_and_the_next_job_is_done(tmp_path: Path) -> None:
    faulty: list[Exception] = [ValueError("Example^Person")]
    sound = ThresholdSegmenter()

    def act(volume: Volume) -> Segmentation:
        if faulty:
            raise faulty.pop()
        return sound.segment(volume)

    with bench(tmp_path, Odd(act)) as at:
        first = at.queue(draw_head(tmp_path / "one").paths)
        second = at.queue(draw_head(tmp_path / "two", series="2").paths)
        at.work()
        at.work()

        failed = at.job(first)
        assert failed.state is JobState.FAILED
        assert "ValueError" in failed.reason
        assert "Example" not in failed.reason
        assert at.job(second).state is JobState.WRITTEN


def test_a_job_that_was_superseded_meanwhile_is_dropped(tmp_path: Path) -> None:
    sound = ThresholdSegmenter()
    again: list[Callable[[], Job]] = []

    def act(volume: Volume) -> Segmentation:
        again[0]()
        return sound.segment(volume)

    with bench(tmp_path, Odd(act)) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        again.append(lambda: at.parts.jobs.reprocess(job.series_uid, now=now()))
        at.work()

        assert at.job(job).state is JobState.SUPERSEDED
        assert at.parts.jobs.results(job.uid) == ()


def test_dates_of_the_objects_are_the_jobs_told_in_the_nodes_time_zone(tmp_path: Path) -> None:
    with bench(tmp_path, time_zone="Asia/Tokyo") as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()

        told = job.created_at.astimezone(ZoneInfo("Asia/Tokyo")).strftime("%Y%m%d %H%M%S.%f")
        for it in at.parts.jobs.results(job.uid):
            written = pydicom.dcmread(at.parts.archive.root / it.path)
            assert f"{written.ContentDate} {written.ContentTime}" == told


def test_objects_that_a_killed_run_left_behind_are_found_and_not_written_twice(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    with bench(tmp_path) as at:
        job = at.queue(head.paths)
        reason = at.parts.index.decision(job.series_uid, job.revision)
        killed = pipeline.run(
            head.paths,
            background=Background(completeness=reason),
            job=JobIdentity(
                job_uid=job.uid, created_at=job.created_at, node_ae_title="GPNET", software_version="0.1.0"
            ),
            routes=at.parts.configuration.routes,
            segmenter_for=lambda _route: ThresholdSegmenter(),
        )
        at.parts.archive.keep_result(job.uid, "seg.dcm", killed.objects[0].content)
        at.work()

        files = {path.name: path for path in (at.parts.archive.root / "results" / job.uid).iterdir()}
        assert sorted(files) == ["seg.dcm", "sr.dcm"]
        assert [files[f"{it.name}.dcm"].read_bytes() == it.content for it in killed.objects] == [True, True]


def test_storage_that_fails_for_a_while_costs_an_attempt_and_not_the_job(tmp_path: Path) -> None:
    with bench(tmp_path) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        results = at.parts.archive.root / "results"
        results.rmdir()
        results.touch()  # no folder can be made there
        at.work()
        waiting = at.job(job)
        results.unlink()
        results.mkdir()
        at.work()

        assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 1)
        assert waiting.reason.startswith("archive ")
        assert at.job(job).state is JobState.WRITTEN


def test_memory_that_is_short_for_a_while_costs_an_attempt_and_not_the_job(tmp_path: Path) -> None:
    hungry = tmp_path / "hungry"
    hungry.touch()
    with bench(tmp_path, HungrySegmenter(hungry)) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        at.work()
        waiting = at.job(job)
        hungry.unlink()
        at.work()

        assert (waiting.state, waiting.attempts, waiting.reason) == (JobState.QUEUED, 1, "out of memory")
        assert at.job(job).state is JobState.WRITTEN


def test_storage_that_keeps_failing_parks_the_job_with_the_reason(tmp_path: Path) -> None:
    with bench(tmp_path, max_attempts=2) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        (at.parts.archive.root / "results").rmdir()
        (at.parts.archive.root / "results").touch()
        stop = threading.Event()
        working = threading.Thread(
            target=at.worker.run,
            args=(stop,),
            kwargs={"leave": lambda: pytest.fail("the worker left"), "pause_seconds": 0.01},
        )
        working.start()
        wait_until(lambda: at.job(job).state is JobState.PARKED, what="the job parked")
        stop.set()
        working.join()

        assert at.job(job).reason.startswith("archive ")
        assert at.job(job).reason.endswith("parked after 2 attempts")


def test_the_lease_outlives_a_job_that_takes_longer(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with bench(tmp_path, HeldSegmenter(hold), lease_seconds=1.0) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        working = threading.Thread(target=at.work)
        working.start()
        wait_until(lambda: at.job(job).state is JobState.RUNNING, what="the job running")
        expiry = at.job(job).lease_expires_at
        wait_until(lambda: at.job(job).lease_expires_at != expiry, what="a heartbeat")
        outlived = now()
        wait_until(lambda: (now() - outlived).total_seconds() > 1.5, what="more than a lease")

        assert at.parts.jobs.claim("another", now=now()) is None
        hold.unlink()
        working.join()
        assert at.job(job).state is JobState.WRITTEN
        assert at.job(job).attempts == 1


def test_a_job_that_does_not_end_within_the_drain_is_given_back_uncounted(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with bench(tmp_path, HeldSegmenter(hold), drain_seconds=1.0) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        stop, left = threading.Event(), threading.Event()
        working = threading.Thread(target=at.worker.run, args=(stop,), kwargs={"leave": left.set})
        working.start()
        wait_until(lambda: at.job(job).state is JobState.RUNNING, what="the job running")
        began = time.monotonic()
        stop.set()
        assert left.wait(10)
        took = time.monotonic() - began

        given_back = at.job(job)
        hold.unlink()
        working.join()
        assert (given_back.state, given_back.attempts) == (JobState.QUEUED, 0)
        assert took < 2.0
        assert at.job(job).state is JobState.QUEUED  # the late end changed nothing


def test_a_job_that_takes_longer_than_its_limit_costs_the_worker_and_an_attempt(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with bench(tmp_path, HeldSegmenter(hold), job_minutes=0.01, max_attempts=1) as at:
        job = at.queue(draw_head(tmp_path / "series").paths)
        left = threading.Event()
        working = threading.Thread(
            target=at.worker.work_once, args=(threading.Event(),), kwargs={"leave": left.set}
        )
        working.start()
        assert left.wait(30)

        parked = at.job(job)
        hold.unlink()
        working.join()
        assert parked.state is JobState.PARKED
        assert "took longer than 0.01 minutes" in parked.reason
        assert at.job(job).state is JobState.PARKED  # the late end changed nothing


def test_a_running_job_is_finished_when_the_worker_is_asked_to_stop(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with bench(tmp_path, HeldSegmenter(hold), drain_seconds=60) as at:
        first = at.queue(draw_head(tmp_path / "one").paths)
        second = at.queue(draw_head(tmp_path / "two", series="2").paths)
        stop = threading.Event()
        working = threading.Thread(
            target=at.worker.run, args=(stop,), kwargs={"leave": lambda: pytest.fail("the worker left")}
        )
        working.start()
        wait_until(lambda: at.job(first).state is JobState.RUNNING, what="the job running")
        stop.set()
        hold.unlink()
        working.join()

        assert at.job(first).state is JobState.WRITTEN
        assert at.job(second).state is JobState.QUEUED
