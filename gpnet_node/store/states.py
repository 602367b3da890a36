"""What a series and a job can be: their states, the arrows between them, and the rows as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType


class SeriesState(StrEnum):
    """Where a series is. More instances take it back to ``receiving``, as a new revision."""

    RECEIVING = "receiving"
    """Instances are arriving, or may still arrive."""
    COMPLETE = "complete"
    """Nothing is missing as far as anyone can tell; its job, if it holds images, has been made."""
    INCOMPLETE = "incomplete"
    """It waited long enough, and something is missing; the reason says what."""


class JobState(StrEnum):
    """Where the segmentation of one revision of a series is."""

    QUEUED = "queued"
    """Waits for a worker."""
    RUNNING = "running"
    """A worker holds its lease."""
    WRITTEN = "written"
    """The objects are in the archive; those owed to peers are being sent."""
    DELIVERED = "delivered"
    """Every peer has answered that it stored every object owed to it."""
    CONFIRMED = "confirmed"
    """Every peer has taken over safekeeping (storage commitment)."""
    REJECTED = "rejected"
    """Not meant for GP-net, by the gate or by the operator; a normal end."""
    NEEDS_REVIEW = "needs_review"
    """Something about the result is doubtful; it leaves only when the operator releases it."""
    FAILED = "failed"
    """It cannot go on without a person; the reason says why."""
    PARKED = "parked"
    """It lost its worker too often and is not tried again by itself."""
    SUPERSEDED = "superseded"
    """A newer job for the same series takes its place."""
    CANCELLED = "cancelled"
    """The operator stopped it."""


JOB_ARROWS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.SUPERSEDED, JobState.CANCELLED}),
        JobState.RUNNING: frozenset(
            {
                JobState.QUEUED,  # given back, or its lease ran out
                JobState.WRITTEN,
                JobState.REJECTED,
                JobState.NEEDS_REVIEW,
                JobState.FAILED,
                JobState.PARKED,
                JobState.SUPERSEDED,
                JobState.CANCELLED,
            }
        ),
        JobState.WRITTEN: frozenset(
            {JobState.DELIVERED, JobState.FAILED, JobState.SUPERSEDED, JobState.CANCELLED}
        ),
        JobState.DELIVERED: frozenset({JobState.CONFIRMED, JobState.SUPERSEDED}),
        JobState.CONFIRMED: frozenset({JobState.SUPERSEDED}),
        JobState.REJECTED: frozenset({JobState.SUPERSEDED}),
        JobState.NEEDS_REVIEW: frozenset(
            {JobState.WRITTEN, JobState.REJECTED, JobState.SUPERSEDED, JobState.CANCELLED}
        ),
        JobState.FAILED: frozenset(
            {JobState.QUEUED, JobState.WRITTEN, JobState.SUPERSEDED, JobState.CANCELLED}
        ),
        JobState.PARKED: frozenset({JobState.QUEUED, JobState.SUPERSEDED, JobState.CANCELLED}),
        JobState.SUPERSEDED: frozenset(),
        JobState.CANCELLED: frozenset(),
    }
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job row, as it was when read. ``created_at`` dates every object written for it."""

    uid: str
    series_uid: str
    revision: int
    state: JobState
    reason: str
    created_at: datetime
    updated_at: datetime
    attempts: int = 0
    lease_owner: str | None = None
    lease_expires_at: datetime | None = None
    route: str | None = None
    model: str | None = None
    label_digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """One row of a job's history."""

    at: datetime
    from_state: JobState | None
    to_state: JobState
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ResultObject:
    """One object that a job wrote. ``path`` is relative to the archive, ``sha256`` is the file's."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a worker's run ended: ``written``, ``rejected``, ``needs_review`` or ``failed``, and why.

    ``owed`` lists (kind, peer): which object goes to whom. It is sent once the job is ``written``, so that
    nothing leaves of a job that needs review before its release.
    """

    state: JobState
    sentence: str
    route: str | None = None
    model: str | None = None
    label_digest: str | None = None
    results: tuple[ResultObject, ...] = ()
    owed: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse an outcome that contradicts itself."""
        with_results = {JobState.WRITTEN, JobState.NEEDS_REVIEW}
        if self.state not in with_results | {JobState.REJECTED, JobState.FAILED}:
            raise ValueError(f"a run cannot end as {self.state}")
        if self.results and self.state not in with_results:
            raise ValueError(f"a job that is {self.state} has no results")
        if {kind for kind, _ in self.owed} - {result.kind for result in self.results}:
            raise ValueError("an object is owed that was not written")
