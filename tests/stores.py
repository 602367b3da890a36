"""An empty store in a folder, and rows for it, with defaults for everything."""

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from pydicom import dcmread
from sqlalchemy import Engine

from gpnet_node.audit.trail import Trail, open_trail
from gpnet_node.config import Configuration, NodeConfig, RetryConfig
from gpnet_node.dimse.commitment import CommitmentDesk
from gpnet_node.store.archive import Archive
from gpnet_node.store.commitments import Commitments
from gpnet_node.store.database import metadata, open_engine, writing
from gpnet_node.store.header import header_of
from gpnet_node.store.index import Index
from gpnet_node.store.jobs import Jobs
from gpnet_node.store.outbox import Outbox
from gpnet_node.store.states import Arrival, Header, Job, JobState, Outcome, ResultObject
from tests.peers import data_set_bytes

START = datetime(2024, 1, 31, 10, 15, tzinfo=UTC)
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"


def after(seconds: float) -> datetime:
    """Moment so many seconds after the start."""
    return START + timedelta(seconds=seconds)


def new_database(folder: Path) -> Engine:
    """Make an empty database with all its tables, without the migrations, which take longer."""
    engine = open_engine(folder / "node.sqlite")
    with writing(engine) as connection:
        metadata.create_all(connection)
    return engine


def new_jobs(engine: Engine, *, lease_seconds: float = 60.0, max_attempts: int = 3) -> Jobs:
    """Jobs named job-1, job-2, ..."""
    names = (f"job-{number}" for number in count(1))
    return Jobs(engine, new_uid=lambda: next(names), lease_seconds=lease_seconds, max_attempts=max_attempts)


def new_outbox(engine: Engine) -> Outbox:
    """Debts that are tried again as the defaults say, without jitter."""
    return Outbox(engine, retry=RetryConfig(), chance=lambda: 0.0)


def new_commitments(engine: Engine, root: Path) -> Commitments:
    """Requests for storage commitment of what the archive at ``root`` holds."""
    return Commitments(engine, root, retry=RetryConfig(), chance=lambda: 0.0)


def new_desk(configuration: Configuration, engine: Engine) -> CommitmentDesk:
    """Where peers ask for storage commitment."""
    return CommitmentDesk(
        configuration=configuration,
        commitments=new_commitments(engine, configuration.node.archive),
        outbox=new_outbox(engine),
        clock=lambda: datetime.now(UTC),
    )


def silent_trail() -> Trail:
    """An audit trail that writes nothing."""
    return open_trail(NodeConfig(archive=Path("archive")), owner="test", clock=lambda: START)


def new_archive(folder: Path) -> Archive:
    """Make an empty archive."""
    archive = Archive(folder / "archive")
    archive.prepare()
    return archive


def arrival(
    uid: str = "1.2.3",
    *,
    series: str = "1.2",
    version: int = 1,
    at: datetime = START,
    association: int | None = None,
    **header: Any,  # noqa: ANN401  # any field of Header
) -> Arrival:
    """Make up an instance that is not in any archive."""
    defaults = {
        "sop_instance_uid": uid,
        "sop_class_uid": MR_IMAGE,
        "series_uid": series,
        "study_uid": "1",
        "modality": "MR",
    }
    return Arrival(
        header=Header(**{**defaults, **header}),
        version=version,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=hashlib.sha256(f"{uid} {version}".encode()).hexdigest(),
        size_bytes=1000,
        path=Path("instances", f"{uid}.{version}.dcm"),
        received_at=at,
        association_id=association,
        calling_ae="SCANNER",
    )


def keep(archive: Archive, path: Path, *, at: datetime = START, association: int | None = None) -> Arrival:
    """Put a real file into the archive, as the receiver does."""
    content = path.read_bytes()
    data_set = dcmread(path, stop_before_pixels=True)
    file = archive.incoming()
    file.write(content)
    kept = archive.keep(file, data_set.SOPInstanceUID)
    return Arrival(
        header=header_of(data_set),
        version=kept.version,
        transfer_syntax_uid=data_set.file_meta.TransferSyntaxUID,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(data_set_bytes(path)),
        path=kept.path,
        received_at=at,
        association_id=association,
        calling_ae="SCANNER",
    )


def new_job(engine: Engine, jobs: Jobs, *, series: str = "1.2", at: datetime = START) -> Job:
    """Queue a job for a series, which is made if it is not there."""
    index = Index(engine)
    index.record([arrival(f"{series}.1", series=series, at=at)])
    with writing(engine) as connection:
        return jobs.create(connection, series, revision=1, sentence="the series is complete", now=at)


def running_job(engine: Engine, jobs: Jobs, *, owner: str = "worker", series: str = "1.2") -> Job:
    """Queue a job and give it to a worker."""
    new_job(engine, jobs, series=series)
    claimed = jobs.claim(owner, now=START)
    assert claimed is not None
    return claimed


def result(job: Job, kind: str = "seg") -> ResultObject:
    """Make up an object that a job wrote, in a series of its own."""
    uid = f"2.25.{sum(f'{job.uid}{kind}'.encode())}"
    sop_class = "1.2.840.10008.5.1.4.1.1.66.4"
    attributes = {
        "StudyInstanceUID": "1",
        "SeriesInstanceUID": f"{uid}.1",
        "SOPInstanceUID": uid,
        "SOPClassUID": sop_class,
        "Modality": kind.upper(),
    }
    return ResultObject(
        name=kind,
        kind=kind.partition("-")[0],
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        size_bytes=1000,
        attributes=attributes,
        path=Path("results", job.uid, f"{kind}.dcm"),
        sha256="0" * 64,
    )


def written(
    job: Job, *, kinds: tuple[str, ...] = ("seg", "sr"), peers: tuple[str, ...] = ("pacs",)
) -> Outcome:
    """Make up the outcome of a run that wrote objects and owes each to each peer."""
    return Outcome(
        state=JobState.WRITTEN,
        sentence=f"wrote {len(kinds)} objects",
        route="gpnet",
        model="gpnet-1",
        label_digest="1" * 64,
        results=tuple(result(job, kind) for kind in kinds),
        owed=tuple((kind, peer) for kind in kinds for peer in peers),
    )
