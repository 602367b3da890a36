"""What the database keeps: states, the arrows between them, and rows as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

REFUSAL = "refusal"  # the kind of the report that says why a series was not segmented
REJECTION = "rejection"  # that of the note which rejects an older result
WITHDRAWAL = "withdrawal"  # that of the note which rejects an older result that no longer holds
# They leave before their job is released, or though it came to nothing.
NOTICES = frozenset({REFUSAL, WITHDRAWAL})

# Titles of Key Object Selections that reject what they name (PS3.16 CID 7011, coding scheme DCM). Not 113039,
# Data Retention Policy Expired: what the sender no longer keeps is not wrong.
REJECTION_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "113001": "Rejected for Quality Reasons",
        "113037": "Rejected for Patient Safety Reasons",
        "113038": "Incorrect Modality Worklist Entry",
    }
)


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
    """Every peer has answered that it stored every object owed to it, but for kinds that it does not take."""
    CONFIRMED = "confirmed"
    """Every peer keeps every object owed to it safe: by storage commitment, or it was found there."""
    REJECTED = "rejected"
    """Not meant for GP-net, by the gate or by the operator; a normal end."""
    NEEDS_REVIEW = "needs_review"
    """Something about the result is doubtful; it leaves only when the operator releases it."""
    FAILED = "failed"
    """It cannot go on without a person; the reason says why."""
    PARKED = "parked"
    """Too many attempts were lost with their worker or came to nothing; not tried again by itself."""
    SUPERSEDED = "superseded"
    """A newer job for the same series takes its place, or what it was made of no longer counts."""
    CANCELLED = "cancelled"
    """The operator stopped it."""


JOB_ARROWS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.SUPERSEDED, JobState.CANCELLED}),
        JobState.RUNNING: frozenset(
            {
                JobState.QUEUED,  # given back, its lease ran out, or the attempt came to nothing
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
        JobState.DELIVERED: frozenset(
            {
                JobState.CONFIRMED,
                JobState.WRITTEN,  # a peer says that it does not hold what it stored
                JobState.SUPERSEDED,
            }
        ),
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


class DebtState(StrEnum):
    """Where the delivery of one object to one peer is."""

    OWED = "owed"
    """It has not been sent, or will be tried again."""
    PAID = "paid"
    """The peer answered that it stored it."""
    CONFIRMED = "confirmed"
    """The peer has taken over its safekeeping, or was found to hold it."""
    LEFT_OUT = "left_out"
    """The peer does not take this kind of object at all; it gets the others."""
    FAILED = "failed"
    """The peer will not take it, or was tried for too long."""


# The peer has said that it has the object.
STORED = frozenset({DebtState.PAID, DebtState.CONFIRMED})


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job row, as it was when read. ``created_at`` dates every object written for it.

    ``plan``: JSON of where the commissures lie, if the operator told it. ``refusal``: why nothing is to be
    segmented; the job then only reports that. ``withdrawn``: why its result no longer holds.
    """

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
    plan: str | None = None
    refusal: str | None = None
    withdrawn: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """One row of a job's history."""

    at: datetime
    from_state: JobState | None
    to_state: JobState
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ResultObject:
    """One object that a job wrote. ``path`` is relative to the archive, ``sha256`` is the file's.

    ``attributes``: what the catalogue has of it, by keyword (``store.header.attributes_of``); None where that
    was not noted: the next ``reindex`` reads it from the file.
    """

    name: str
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    sha256: str
    size_bytes: int | None = None  # of the data set
    attributes: Mapping[str, str] | None = field(default=None, hash=False)


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """What ``peers`` hold of an older job, if anything. ``withdrawn``: why it no longer holds."""

    results: tuple[ResultObject, ...]
    peers: tuple[str, ...]
    withdrawn: str | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a worker's run ended: ``written``, ``rejected``, ``needs_review`` or ``failed``, and why.

    ``owed`` lists (name, peer): which object goes to whom. It is sent once the job is ``written``, so that
    nothing leaves of a job that needs review before its release; only ``NOTICES``, the report that says why
    nothing comes and the note that rejects what no longer holds, leave of a job that ended otherwise.
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
        if {it.kind for it in self.results} - NOTICES and self.state not in with_results:
            raise ValueError(f"a job that is {self.state} has no results")
        if {name for name, _ in self.owed} - {result.name for result in self.results}:
            raise ValueError("an object is owed that was not written")


class AssociationOutcome(StrEnum):
    """How an association stands, or ended."""

    OPEN = "open"
    """It is still there, as far as is known."""
    RELEASED = "released"
    """The peer said that it had nothing more to send (A-RELEASE)."""
    ABORTED = "aborted"
    """It broke: A-ABORT, or lost connection."""
    LOST = "lost"
    """The receiver died: nobody knows whether the peer had more to send."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the index keeps of an instance's header. Patient name and ID are for queries, never for logs."""

    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    modality: str = ""
    description: str = ""
    patient_id: str = ""
    patient_name: str = ""
    instance_number: int | None = None
    acquisition_number: int | None = None
    images_in_acquisition: int | None = None
    number_of_frames: int | None = None  # None for a classic image
    concatenation_uid: str | None = None
    in_concatenation_total: int | None = None
    rejection_title: str = ""  # of a note that rejects instances: one of REJECTION_TITLES
    rejects: tuple[str, ...] = ()  # by SOP Instance UID
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)  # for the catalogue, by keyword


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One instance that is safe in the archive; not ``new``: an equal one was. ``path`` is relative to it."""

    header: Header
    version: int
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int
    path: Path
    received_at: datetime
    association_id: int | None
    calling_ae: str
    new: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """One version of one instance, as the index has it. ``path`` is relative to the archive."""

    sop_instance_uid: str
    version: int
    series_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    path: Path
    received_at: datetime
    instance_number: int | None
    acquisition_number: int | None
    images_in_acquisition: int | None
    number_of_frames: int | None
    concatenation_uid: str | None
    in_concatenation_total: int | None


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series row."""

    uid: str
    study_uid: str
    modality: str
    description: str
    state: SeriesState
    revision: int
    reason: str
    created_at: datetime
    last_received_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class SeriesEvent:
    """One row of a series' history: what happened, and the state and revision after it."""

    at: datetime
    state: SeriesState
    revision: int
    sentence: str
