"""The states of a series and of a job, and the arrows between them."""

from collections.abc import Mapping
from enum import StrEnum
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
