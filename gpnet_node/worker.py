"""The worker: claims one job, runs the pipeline on it, records the outcome.

Here stands the program's one broad ``except``: whatever goes wrong inside one job ends that job, with a
reason, and nothing else.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from gpnet_node import pipeline
from gpnet_node.config import Configuration, RouteConfig
from gpnet_node.errors import (
    GpnetError,
    InputError,
    NotAVolumeError,
    NotEligibleError,
    SelfCheckError,
    StaleJobError,
    StorageError,
    UnreadableInstanceError,
)
from gpnet_node.imaging.frames import PLANE_CLASSES
from gpnet_node.log import bound, get_logger
from gpnet_node.pipeline import Results, Segmenter
from gpnet_node.results.acpc import Plan
from gpnet_node.results.check.notes import check_refusal, check_withdrawal
from gpnet_node.results.content import Background
from gpnet_node.results.identifiers import JobIdentity, content_digest
from gpnet_node.results.refusal import write_refusal
from gpnet_node.results.rejection import write_withdrawal
from gpnet_node.results.source import Reference, read_header
from gpnet_node.results.written import WrittenObject, written
from gpnet_node.store.archive import Archive
from gpnet_node.store.header import attributes_of
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.states import WITHDRAWAL, Job, JobState, Outcome, ResultObject
from gpnet_node.store.versions import data_set_start

_BEATS_PER_LEASE = 4
# How much of the drain time a running job gets; the rest is for giving it back.
_SHARE_OF_DRAIN = 0.8
_Notices = tuple[tuple[ResultObject, ...], tuple[tuple[str, str], ...]]  # what is kept, and owed to whom
_CAME_TO_NOTHING = {JobState.QUEUED, JobState.PARKED}

log = get_logger(__name__)


class Worker:
    """Does one job after the other.

    ``segmenter_for`` returns the segmenter of a route (None: the one used without a gate); ``clock`` gives
    the time with its zone; ``owner`` names this process as the holder of leases; ``software_version`` stands
    in what is written.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        archive: Archive,
        index: Index,
        jobs: Jobs,
        segmenter_for: Callable[[RouteConfig | None], Segmenter],
        clock: Callable[[], datetime],
        owner: str,
        software_version: str,
    ) -> None:
        self._configuration = configuration
        self._node = configuration.node
        self._archive = archive
        self._index = index
        self._jobs = jobs
        self._segmenter_for = segmenter_for
        self._clock = clock
        self._owner = owner
        self._software_version = software_version

    def run(
        self,
        stop: threading.Event,
        *,
        leave: Callable[[], None],
        poll_seconds: float = 0.5,
        pause_seconds: float = 60.0,
    ) -> None:
        """Work until ``stop`` is set; the running job is then finished, or given back before the drain ends.

        ``leave`` ends the process at once: it is called when a job was given back, or took too long, while it
        runs on. After an attempt that met failing storage comes a pause. Raises StorageError if the database
        does not do its work.
        """
        while not stop.is_set():
            job = self.work_once(stop, leave=leave)
            if job is None:
                stop.wait(poll_seconds)
            elif job.state in _CAME_TO_NOTHING:
                stop.wait(pause_seconds)

    def work_once(self, stop: threading.Event, *, leave: Callable[[], None]) -> Job | None:
        """Do one job, if one waits, and return it as it then is. Raises StorageError."""
        job = self._jobs.claim(self._owner, now=self._clock())
        if job is None:
            return None
        with bound(job=job.uid, series=job.series_uid), self._lease(job, stop, leave):
            began = time.monotonic()
            log.info("a job begins", attempt=job.attempts)
            try:
                job = self._end(job)
            except StaleJobError as exc:
                log.warning("a job has moved on; its work is dropped", reason=str(exc))
            else:
                seconds = round(time.monotonic() - began, 1)
                log.info("a job ends", state=job.state, reason=job.reason, seconds=seconds)
        return job

    # -- one job ---------------------------------------------------------------------------------------------

    def _end(self, job: Job) -> Job:
        """Do the job and record how it ends. Raises StaleJobError, and StorageError if it cannot."""
        try:
            return self._jobs.finish(job.uid, self._owner, self._outcome(job), now=self._clock())
        except StaleJobError:
            raise
        except StorageError as exc:  # a full disk or a locked database may pass
            log.error("archive or database failed; the job is to be tried again", reason=str(exc))
            return self._jobs.try_again(job.uid, self._owner, reason=str(exc), now=self._clock())
        except MemoryError as exc:  # others may need less of it later
            log.error("out of memory; the job is to be tried again", exc_info=exc)
            return self._jobs.try_again(job.uid, self._owner, reason="out of memory", now=self._clock())

    def _outcome(self, job: Job) -> Outcome:
        """Run the pipeline and keep what it makes. Raises StorageError and MemoryError."""
        try:
            if job.refusal is not None:
                raise NotEligibleError([job.refusal])
            return self._written(job, self._results(job))
        except NotEligibleError as exc:
            return self._refused(job, JobState.REJECTED, str(exc))
        except SelfCheckError as exc:
            return self._refused(job, JobState.NEEDS_REVIEW, f"self-check: {exc}")
        except InputError as exc:
            return self._refused(job, JobState.FAILED, str(exc))
        except (StorageError, MemoryError):
            raise
        except GpnetError as exc:
            log.error("a job fails", reason=str(exc))
            return Outcome(state=JobState.FAILED, sentence=str(exc))
        except Exception as exc:  # the one broad except: a bug ends the job, not the worker
            log.error("a job fails of a bug", exc_info=exc)
            sentence = f"a bug in gpnet_node ({type(exc).__name__}); the worker's log has the place"
            return Outcome(state=JobState.FAILED, sentence=sentence)

    def _results(self, job: Job) -> Results:
        images = self._images(job)
        if not images:
            raise NotAVolumeError(f"series {job.series_uid} holds no images that count")
        return pipeline.run(
            images,
            job=self._identity(job),
            routes=self._configuration.routes,
            segmenter_for=self._segmenter_for,
            profiles_of=self._configuration.profiles,
            background=self._background(job),
        )

    def _images(self, job: Job) -> list[Path]:
        kept = self._index.instances(job.series_uid)
        return [self._archive.root / it.path for it in kept if it.sop_class_uid in PLANE_CLASSES]

    def _background(self, job: Job) -> Background:
        older = self._jobs.replaced_by(job)
        replaced = () if older.withdrawn else older.results
        return Background(
            completeness=self._index.decision(job.series_uid, job.revision),
            plan=None if job.plan is None else Plan.model_validate_json(job.plan),
            replaces=tuple(map(self._reference, replaced)),
        )

    def _reference(self, it: ResultObject) -> Reference:
        header = read_header(self._archive.root / it.path)
        return Reference(
            series_instance_uid=str(header.SeriesInstanceUID),
            sop_class_uid=it.sop_class_uid,
            sop_instance_uid=it.sop_instance_uid,
            kind=it.kind,
        )

    def _identity(self, job: Job) -> JobIdentity:
        return JobIdentity(
            job_uid=job.uid,
            created_at=self._node.local(job.created_at),
            node_ae_title=self._node.ae_title,
            software_version=self._software_version,
        )

    def _written(self, job: Job, results: Results) -> Outcome:
        """Make the objects safe in the archive, and say what is owed to whom. Raises StorageError.

        Nothing leaves of a doubtful result before the operator's release.
        """
        route, content = results.route, results.content
        card, doubts = content.card, content.quality.reasons
        peers = [self._configuration.peer(name) for name in (route.destinations if route else ())]
        kept = tuple(self._kept(job, it) for it in results.objects)
        owed = [(it.name, peer.name) for peer in peers for it in results.objects if it.is_for(peer.profile)]
        told = (*results.left_out, *content.gate)
        if doubts:
            reports, due = self._refusal(job, f"a person must look at it: {'; '.join(doubts)}", route)
            kept, owed = (*kept, *reports), [*owed, *due]
        notes, due = self._withdrawal(job)
        return Outcome(
            state=JobState.NEEDS_REVIEW if doubts else JobState.WRITTEN,
            sentence="; ".join([*doubts, f"{len(results.objects)} objects written", *told]),
            route=route.name if route else None,
            model=f"{card.name} {card.version}",
            label_digest=content_digest(content.labels, card, self._identity(job)),
            results=(*kept, *notes),
            owed=(*owed, *due),
        )

    def _refused(self, job: Job, state: JobState, sentence: str) -> Outcome:
        """There is no result; those who want to know are told why."""
        reports, told = self._refusal(job, sentence, None)
        notes, due = self._withdrawal(job)
        return Outcome(state=state, sentence=sentence, results=(*reports, *notes), owed=(*told, *due))

    def _withdrawal(self, job: Job) -> _Notices:
        """The note that rejects an older result which no longer holds, for those who have the result."""
        older = self._jobs.replaced_by(job)
        want = {peer.name for peer in self._configuration.peers if "rejection" in peer.objects}
        peers = [name for name in older.peers if name in want]
        if older.withdrawn is None or not peers:
            return (), ()
        path = self._archive.root / older.results[0].path
        try:
            references = list(map(self._reference, older.results))
            note = write_withdrawal(references, read_header(path), older.withdrawn, self._identity(job))
            file = replace(written("rejection", note), name=WITHDRAWAL)
            check_withdrawal(file.content, path, [it.sop_instance_uid for it in older.results])
        except (SelfCheckError, UnreadableInstanceError) as exc:
            log.error("nobody is told that an older result no longer holds", reason=str(exc))
            return (), ()
        return (replace(self._kept(job, file), kind=WITHDRAWAL),), tuple((file.name, peer) for peer in peers)

    def _refusal(self, job: Job, reason: str, route: RouteConfig | None) -> _Notices:
        """The report that says why nothing comes, and to whom it is owed; neither where nobody wants it."""
        peers = self._configuration.told_of_refusals(route)
        images = self._images(job)
        if not peers or not images:
            return (), ()
        try:
            report = written("refusal", write_refusal(images, reason, self._identity(job)))
            check_refusal(report.content, images[0], reason)
        except (SelfCheckError, UnreadableInstanceError) as exc:
            log.warning("nobody is told why a series was not segmented", reason=str(exc))
            return (), ()
        return (self._kept(job, report),), tuple((report.name, peer) for peer in peers)

    def _kept(self, job: Job, written: WrittenObject) -> ResultObject:
        kept = self._archive.keep_result(job.uid, f"{written.name}.dcm", written.content)
        if written.picture is not None:
            self._archive.keep_result(job.uid, f"{written.name}.png", written.picture)
        return ResultObject(
            name=written.name,
            kind=written.kind,
            sop_class_uid=written.sop_class_uid,
            sop_instance_uid=written.sop_instance_uid,
            path=kept.path,
            sha256=kept.sha256,
            size_bytes=len(written.content) - data_set_start(BytesIO(written.content)),
            attributes=attributes_of(dcmread(BytesIO(written.content), stop_before_pixels=True)),
        )

    # -- lease -----------------------------------------------------------------------------------------------

    @contextmanager
    def _lease(self, job: Job, stop: threading.Event, leave: Callable[[], None]) -> Iterator[None]:
        """Keep the lease alive inside the block; give the job back if a drain does not wait for its end."""
        done = threading.Event()
        beat = threading.Thread(
            target=self._beat, args=(job, done, stop, leave), name="heartbeat", daemon=True
        )
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()

    def _beat(
        self, job: Job, done: threading.Event, stop: threading.Event, leave: Callable[[], None]
    ) -> None:
        interval = self._node.lease_seconds / _BEATS_PER_LEASE
        next_beat = time.monotonic() + interval
        overdue_at = time.monotonic() + self._node.job_minutes * 60
        give_back_at = float("inf")
        while not done.wait(min(0.2, interval)):
            now = time.monotonic()
            if stop.is_set() and give_back_at == float("inf"):
                give_back_at = now + self._node.drain_seconds * _SHARE_OF_DRAIN
            if now >= overdue_at:
                self._abandon(job)
                leave()
                return
            try:
                if now >= give_back_at:
                    self._give_back(job)
                    leave()
                    return
                if now >= next_beat:
                    next_beat = now + interval
                    self._jobs.heartbeat(job.uid, self._owner, now=self._clock())
            except StaleJobError as exc:
                log.warning("the lease of a job is lost", job=job.uid, reason=str(exc))
                return
            except StorageError as exc:
                log.error("the lease of a job could not be extended", job=job.uid, reason=str(exc))

    def _abandon(self, job: Job) -> None:
        """Give up a job that hangs; where that cannot be recorded, the next worker finds that it was lost."""
        reason = f"it took longer than {self._node.job_minutes:g} minutes"
        log.error("a job takes too long; its worker is ended", job=job.uid, reason=reason)
        with suppress(StorageError):
            self._jobs.try_again(job.uid, self._owner, reason=reason, now=self._clock())

    def _give_back(self, job: Job) -> None:
        sentence = "given back: the worker was stopped"
        self._jobs.give_back(job.uid, self._owner, sentence=sentence, now=self._clock())
        log.info("a job is given back", job=job.uid)
