"""The courier, from an outbox on disk to DCMTK's storescp and to peers that answer as told."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SegmentationStorage
from pynetdicom import AE, evt

from gpnet_node.config import Configuration, NodeConfig, PeerConfig, RetryConfig
from gpnet_node.courier import Courier
from gpnet_node.store.archive import Archive
from gpnet_node.store.database import open_engine, upgrade
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.outbox import Outbox
from gpnet_node.store.states import Arrival, DebtState, Header, JobState, Outcome, ResultObject
from tests.factories import mr_series
from tests.peers import data_set_bytes, dcmtk_storescp, free_port, wait_until
from tests.stores import arrival, new_commitments, silent_trail

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that a test turns."""

    now: datetime = field(default=START)

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A courier and what lies behind it."""

    courier: Courier
    archive: Archive
    index: Index
    jobs: Jobs
    outbox: Outbox
    clock: Clock

    def written_job(self, objects: Sequence[Path], *, to: Sequence[str] = ("pacs",)) -> str:
        """A job that wrote the given files, in this order, and owes each to each of the peers."""
        series = f"1.2.3.{uuid4().int}"
        header = Header(
            sop_instance_uid=f"{series}.1", sop_class_uid=MRImageStorage, series_uid=series, study_uid="1.2.3"
        )
        arrival = Arrival(
            header=header, version=1, transfer_syntax_uid=ExplicitVRLittleEndian, sha256="", size_bytes=1,
            path=Path(f"instances/{series}"), received_at=self.clock.now, association_id=None, calling_ae="S",
        )  # fmt: skip
        self.index.record([arrival])
        self.jobs.reprocess(series, now=self.clock.now)
        job = self.jobs.claim("worker", now=self.clock.now)
        assert job is not None
        results = tuple(self._result(job.uid, f"object{n}", path) for n, path in enumerate(objects))
        owed = tuple((result.name, peer) for result in results for peer in to)
        outcome = Outcome(state=JobState.WRITTEN, sentence="written", results=results, owed=owed)
        self.jobs.finish(job.uid, "worker", outcome, now=self.clock.now)
        return job.uid

    def _result(self, job_uid: str, kind: str, path: Path) -> ResultObject:
        kept = self.archive.keep_result(job_uid, f"{kind}.dcm", path.read_bytes())
        dataset = dcmread(path)
        return ResultObject(
            name=kind,
            kind=kind,
            sop_class_uid=dataset.SOPClassUID,
            sop_instance_uid=dataset.SOPInstanceUID,
            path=kept.path,
            sha256=kept.sha256,
        )

    def state(self, job_uid: str) -> JobState:
        return self.jobs.get(job_uid).state


def bench(folder: Path, *ports: int, give_up_hours: float = 1.0) -> Bench:
    """A courier whose peers ``pacs`` and ``pacs2`` listen on ``ports``."""
    names = ["pacs", "pacs2"][: len(ports)]
    retry = RetryConfig(first_seconds=10, factor=2, max_seconds=60, jitter=0, give_up_hours=give_up_hours)
    node = NodeConfig(archive=folder / "archive", database=folder / "node.sqlite", retry=retry)
    peers = tuple(
        PeerConfig(name=name, ae_title="PACS", host="127.0.0.1", port=port)
        for name, port in zip(names, ports, strict=True)
    )
    archive, engine, clock = Archive(node.archive), open_engine(folder / "node.sqlite"), Clock()
    archive.prepare()
    upgrade(engine)
    outbox = Outbox(engine, retry=retry, chance=lambda: 0.0)
    return Bench(
        courier=Courier(
            configuration=Configuration(node=node, peers=peers),
            outbox=outbox,
            commitments=new_commitments(engine, node.archive),
            trail=silent_trail(),
            clock=clock,
        ),
        archive=archive,
        index=Index(engine),
        jobs=Jobs(engine, new_uid=lambda: f"2.25.{uuid4().int}", lease_seconds=60, max_attempts=3),
        outbox=outbox,
        clock=clock,
    )


@contextlib.contextmanager
def answering(*statuses: int, before: Callable[[], object] = lambda: None) -> Iterator[int]:
    """A storage SCP that answers each C-STORE with the next status, after ``before``. Yields its port."""
    remaining = iter(statuses)
    ae = AE(ae_title="PACS")
    ae.add_supported_context(MRImageStorage, ExplicitVRLittleEndian)
    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, lambda _event: (before(), next(remaining))[1])]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_every_object_of_a_job_reaches_the_peer_as_archived_and_the_job_is_delivered(tmp_path: Path) -> None:
    objects = mr_series(tmp_path / "objects", slices=2)
    with dcmtk_storescp(tmp_path / "pacs", "+B") as scp:
        at = bench(tmp_path, scp.port)
        job = at.written_job(objects)
        at.courier.pay_once()

        assert at.state(job) is JobState.DELIVERED
        assert {data_set_bytes(path) for path in scp.files()} == {data_set_bytes(path) for path in objects}


def test_a_note_that_comes_while_objects_are_sent_withholds_the_rest(tmp_path: Path) -> None:
    notes: list[Arrival] = []
    with answering(0x0000, before=lambda: at.index.record(notes)) as port:
        at = bench(tmp_path, port)
        job = at.written_job(mr_series(tmp_path / "objects", slices=2))
        (image,) = at.index.instances(at.jobs.get(job).series_uid)
        notes.append(
            arrival("9.1", series="9", rejects=(image.sop_instance_uid,), rejection_title="113037", at=START)
        )
        at.courier.pay_once()  # a second C-STORE would find no answer

        assert at.state(job) is JobState.SUPERSEDED
        assert [debt.state for debt in at.outbox.of_job(job)] == [DebtState.PAID, DebtState.OWED]


def test_what_was_delivered_is_not_sent_again(tmp_path: Path) -> None:
    with answering(0x0000) as port:
        at = bench(tmp_path, port)
        job = at.written_job(mr_series(tmp_path / "objects", slices=1))
        at.courier.pay_once()
        at.courier.pay_once()  # a second C-STORE would find no answer and fail the job

        assert at.state(job) is JobState.DELIVERED


def test_a_peer_that_is_away_is_tried_again_later_and_then_paid(tmp_path: Path) -> None:
    port = free_port()
    at = bench(tmp_path, port)
    job = at.written_job(mr_series(tmp_path / "objects", slices=1))
    at.courier.pay_once()
    (debt,) = at.outbox.of_job(job)
    assert (at.state(job), debt.state, debt.attempts) == (JobState.WRITTEN, DebtState.OWED, 1)
    assert "pacs" in debt.comment

    with dcmtk_storescp(tmp_path / "pacs", port=port):
        at.courier.pay_once()
        assert at.state(job) is JobState.WRITTEN  # its time has not come
        at.clock.now += timedelta(seconds=11)
        at.courier.pay_once()
        assert at.state(job) is JobState.DELIVERED


def test_the_debts_survive_a_restart(tmp_path: Path) -> None:
    port = free_port()
    before = bench(tmp_path, port)
    job = before.written_job(mr_series(tmp_path / "objects", slices=1))
    before.courier.pay_once()

    after = bench(tmp_path, port)
    after.clock.now += timedelta(seconds=11)
    with dcmtk_storescp(tmp_path / "pacs", port=port):
        after.courier.pay_once()

    assert after.state(job) is JobState.DELIVERED


def test_out_of_resources_is_tried_again_and_the_rest_is_paid(tmp_path: Path) -> None:
    with answering(0xA700, 0x0000, 0x0000) as port:
        at = bench(tmp_path, port)
        job = at.written_job(mr_series(tmp_path / "objects", slices=2))
        at.courier.pay_once()
        first, second = at.outbox.of_job(job)
        at.clock.now += timedelta(seconds=11)
        at.courier.pay_once()

    assert (first.state, first.status) == (DebtState.OWED, 0xA700)
    assert second.state is DebtState.PAID
    assert at.state(job) is JobState.DELIVERED


def test_the_warning_of_a_peer_is_kept_with_the_delivered_job(tmp_path: Path) -> None:
    with answering(0xB000) as port:
        at = bench(tmp_path, port)
        job = at.written_job(mr_series(tmp_path / "objects", slices=1))
        at.courier.pay_once()

    (debt,) = at.outbox.of_job(job)
    assert at.state(job) is JobState.DELIVERED
    assert (debt.status, "coerced" in debt.comment) == (0xB000, True)


@pytest.mark.parametrize("status", [0xA900, 0xC000])
def test_a_permanent_refusal_fails_the_job_by_name_and_is_not_repeated(tmp_path: Path, status: int) -> None:
    with answering(status) as port:
        at = bench(tmp_path, port)
        job = at.written_job(mr_series(tmp_path / "objects", slices=1))
        at.courier.pay_once()
        at.clock.now += timedelta(minutes=10)
        at.courier.pay_once()

    failed = at.jobs.get(job)
    assert failed.state is JobState.FAILED
    assert "pacs" in failed.reason
    assert f"0x{status:04X}" in failed.reason


def segmentation(folder: Path) -> Path:
    """A file of a class that the peers here do not take."""
    (path,) = mr_series(folder, slices=1, series="2")
    dataset = dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    dataset.save_as(path)
    return path


def test_a_peer_gets_what_it_takes_and_what_was_left_out_is_told(tmp_path: Path) -> None:
    with answering(0x0000) as port:
        at = bench(tmp_path, port)
        objects = [*mr_series(tmp_path / "objects", slices=1), segmentation(tmp_path / "other")]
        job = at.written_job(objects)
        at.courier.pay_once()

    assert [debt.state for debt in at.outbox.of_job(job)] == [DebtState.PAID, DebtState.LEFT_OUT]
    assert at.state(job) is JobState.DELIVERED
    reason = at.jobs.get(job).reason
    assert reason.startswith("1 objects stored by pacs; left out: peer pacs")
    assert "Segmentation Storage" in reason


def test_a_peer_that_takes_nothing_at_all_fails_the_job_by_name(tmp_path: Path) -> None:
    with answering() as one, answering() as other:
        at = bench(tmp_path, one, other)
        job = at.written_job([segmentation(tmp_path / "other")], to=["pacs", "pacs2"])
        at.courier.pay_once()

    assert at.state(job) is JobState.FAILED
    assert "peer pacs2 takes none of the objects" in at.jobs.get(job).reason


def test_what_was_left_out_is_sent_once_the_peer_takes_it_and_the_operator_retries(tmp_path: Path) -> None:
    at = bench(tmp_path, free_port())
    job = at.written_job(mr_series(tmp_path / "objects", slices=1))
    (debt,) = at.outbox.of_job(job)
    at.outbox.left_out(debt, comment="peer pacs does not take it", now=at.clock.now)
    assert at.state(job) is JobState.FAILED

    at.jobs.retry(job, now=at.clock.now)

    assert at.outbox.of_job(job)[0].state is DebtState.OWED


def test_a_peer_that_stays_away_is_given_up_after_the_configured_hours(tmp_path: Path) -> None:
    at = bench(tmp_path, free_port(), give_up_hours=1.0)
    job = at.written_job(mr_series(tmp_path / "objects", slices=1))
    at.courier.pay_once()
    at.clock.now += timedelta(hours=1, seconds=1)
    at.courier.pay_once()

    assert at.state(job) is JobState.FAILED
    assert "given up" in at.jobs.get(job).reason


def test_a_peer_that_left_the_configuration_is_named_and_the_debt_stays(tmp_path: Path) -> None:
    at = bench(tmp_path)
    job = at.written_job(mr_series(tmp_path / "objects", slices=1), to=["gone"])
    at.courier.pay_once()

    (debt,) = at.outbox.of_job(job)
    assert debt.state is DebtState.OWED
    assert "gone" in debt.comment


def test_an_object_that_left_the_archive_is_named_and_holds_no_other_up(tmp_path: Path) -> None:
    with answering(0x0000) as port:
        at = bench(tmp_path, port)
        job = at.written_job(mr_series(tmp_path / "objects", slices=2))
        lost, kept = at.outbox.of_job(job)
        (at.archive.root / lost.path).unlink()
        at.courier.pay_once()

    after = {debt.name: debt for debt in at.outbox.of_job(job)}
    assert after[kept.name].state is DebtState.PAID
    assert after[lost.name].state is DebtState.OWED
    assert str(lost.path) in after[lost.name].comment


def test_an_object_that_cannot_be_read_fails_by_name_and_holds_no_other_up(tmp_path: Path) -> None:
    with answering(0x0000, 0x0000) as port:
        at = bench(tmp_path, port)
        jobs = [at.written_job(mr_series(tmp_path / str(n), slices=1, series=str(n))) for n in range(3)]
        broken, opened = (at.outbox.of_job(job)[0] for job in jobs[:2])
        (at.archive.root / broken.path).write_bytes(b"not what was written")
        (at.archive.root / opened.path).unlink()
        (at.archive.root / opened.path).mkdir()  # opening it is an error of the system
        at.courier.pay_once()

    assert [at.state(job) for job in jobs] == [JobState.FAILED, JobState.WRITTEN, JobState.DELIVERED]
    assert broken.sop_instance_uid in at.jobs.get(jobs[0]).reason
    (put_off,) = at.outbox.of_job(jobs[1])
    assert (put_off.attempts, put_off.next_attempt_at) == (1, START + timedelta(seconds=10))


def test_a_peer_that_is_away_does_not_hold_up_another(tmp_path: Path) -> None:
    with answering(0x0000) as port:
        at = bench(tmp_path, free_port(), port)
        job = at.written_job(mr_series(tmp_path / "objects", slices=1), to=["pacs", "pacs2"])
        stop = threading.Event()
        courier = threading.Thread(target=at.courier.run, args=(stop,), kwargs={"poll_seconds": 0.01})
        courier.start()
        try:
            wait_until(
                lambda: {d.peer: d.state for d in at.outbox.of_job(job)}["pacs2"] is DebtState.PAID,
                what="the peer that is there being paid",
            )
        finally:
            stop.set()
            courier.join()

    assert not courier.is_alive()
    assert at.state(job) is JobState.WRITTEN
