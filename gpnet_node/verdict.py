"""When is a series complete? The rules, from what is known of it: steps, associations, numbers, positions.

Decisive: a performed procedure step (MPPS) that has ended, when every image that it lists for the series is
here. Then nothing is waited for, not even for a gap.

Otherwise a series is complete when it is quiet, the associations that touched it are over, and its geometry
has no gap. Quiet is short where the number of images is reached that is told, or where one request for
storage commitment names every instance that is here; longer elsewhere: a cut-off end leaves no gap. The
headers tell the number in two ways:

- classic images: all state the same Images in Acquisition (0020,1002) and one Acquisition Number
  (PS3.3 C.7.6.1);
- multi-frame images: a single one holds all its frames, and a concatenation states the number of its parts
  (PS3.3 C.7.6.16).

A gap waits longer, and so do images of several patients, an image that a step lists and an aborted
association: the sender may come again. An abort is made good when the headers' count is reached, or by an
association that was opened after it, touched the series and was released. An association that ended with the
receiver waits in the same way; then the series is complete unless the headers tell more, for its sender may
have had every image acknowledged and no reason to come again. An association that never closes holds a series
up for a limited time only. What is no volume for another reason than a gap is complete: waiting does not mend
it, and the job will refuse it by name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from gpnet_node.config import NodeConfig
from gpnet_node.errors import InputError, MissingSlicesError, NotAVolumeError
from gpnet_node.imaging.series import read_headers, refuse_mixed_patients, sort, split
from gpnet_node.store.states import AssociationOutcome, Instance, Series, SeriesState
from gpnet_node.store.steps import Listed

FAULTS_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Touch:
    """One association that touched a series."""

    association_id: int
    calling_ae: str
    outcome: AssociationOutcome
    opened_at: datetime
    closed_at: datetime | None
    last_at: datetime  # when it last brought an instance of the series


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many images of a series are there, of how many that the headers tell (None: they do not).

    ``rejected``: how many of them rejection notes name, which came and do not count.
    """

    there: int
    told: int | None
    rejected: int = 0

    @property
    def reached(self) -> bool:
        """Whether the headers tell the number, and it is the number that is there."""
        return self.told == self.there


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a series besides its images.

    ``listed``: by steps that have ended, None where none lists the series; ``named_whole``: by a request for
    storage commitment.
    """

    row: Series
    touches: tuple[Touch, ...]
    listed: Listed | None = None
    named_whole: bool = False

    def is_decisive(self, count: Count) -> bool:
        """Whether nothing more will come, by the word of who made the series.

        Images that nobody listed speak against it: then the list is not all.
        """
        return self.listed is not None and not self.listed.missing and count.there <= self.listed.images

    @property
    def missing(self) -> int:
        """How many images are listed and not here."""
        return self.listed.missing if self.listed else 0


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What the positions of a series' images say."""

    sentence: str
    has_images: bool = True
    has_gap: bool = False
    is_mixed: bool = False  # of several patients


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """That a series should now be decided."""

    state: SeriesState
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What a series waits for, and until when if nothing else happens."""

    sentence: str
    until: datetime


def judge(node: NodeConfig, evidence: Evidence, count: Count, *, now: datetime) -> Wait | None:
    """Say what a series still waits for, or None if its geometry should be looked at."""
    if evidence.is_decisive(count):
        return None
    last = last_activity(evidence.row, evidence.touches)
    holders = {touch.calling_ae for touch in evidence.touches if touch.outcome is AssociationOutcome.OPEN}
    held_until = last + timedelta(seconds=node.open_association_limit_seconds)
    if holders and now < held_until:
        return Wait(sentence=f"association from {', '.join(sorted(holders))} open", until=held_until)
    short = count.reached or evidence.named_whole
    wanted = node.quiet_seconds_counted if short else node.quiet_seconds_uncounted
    quiet_until = last + timedelta(seconds=wanted)
    if now < quiet_until:
        return Wait(sentence=f"it must be quiet for {wanted:g} s", until=quiet_until)
    return None


def conclude(
    node: NodeConfig, evidence: Evidence, count: Count, geometry: Geometry, *, now: datetime
) -> Verdict | Wait:
    """Decide on a series whose geometry is known, or say until when it may still mend itself."""
    if not geometry.has_images:
        sentences = [geometry.sentence, *_rejected(count)]
        return Verdict(state=SeriesState.COMPLETE, sentence="; ".join(sentences))
    decisive = evidence.is_decisive(count)
    faults, doubts = list(_faults(evidence, count, geometry)), list(_doubts(evidence, count))
    if geometry.is_mixed or ((faults or doubts) and not decisive):  # no step lists what is corrected
        broken = not_made_good(evidence.touches)
        closed = [touch.closed_at for touch in broken if touch.closed_at]
        since = max([last_activity(evidence.row, evidence.touches), *closed])
        until = since + timedelta(seconds=node.gap_wait_seconds)
        if now < until:
            return Wait(sentence="; ".join([*faults, *doubts]), until=until)
    said = [*_said(evidence), *_rejected(count)]
    if faults:
        return Verdict(state=SeriesState.INCOMPLETE, sentence="; ".join([*faults, *said]))
    sentences = [geometry.sentence, *said, *doubts]
    if not decisive:
        sentences.append(_counted(count))
        if any(touch.outcome is AssociationOutcome.OPEN for touch in evidence.touches):
            limit = node.open_association_limit_seconds
            sentences.append(f"an association was still open after {limit:g} s of quiet")
    return Verdict(state=SeriesState.COMPLETE, sentence="; ".join(sentences))


def _faults(evidence: Evidence, count: Count, geometry: Geometry) -> Iterable[str]:
    """What is missing, as far as is known."""
    if geometry.has_gap or geometry.is_mixed:
        yield geometry.sentence
    if evidence.listed and evidence.missing:
        by = ", ".join(evidence.listed.by)
        yield f"{evidence.missing} of the {evidence.listed.images} images that {by} lists are missing"
    if aborts := _broken(evidence, count, AssociationOutcome.ABORTED):
        yield f"association {aborts} was aborted and its sender has not come again"
    if count.told is not None and (lost := _broken(evidence, count, AssociationOutcome.LOST)):
        yield f"association {lost} ended with the receiver, and {count.told - count.there} images are missing"


def _doubts(evidence: Evidence, count: Count) -> Iterable[str]:
    """What may be missing, and is worth a wait."""
    if count.told is None and (lost := _broken(evidence, count, AssociationOutcome.LOST)):
        yield f"association {lost} ended with the receiver and its sender has not come again"


def _broken(evidence: Evidence, count: Count, outcome: AssociationOutcome) -> str:
    """The numbers of those that ended so; none where they are made good, or everything is here."""
    if evidence.is_decisive(count) or count.reached:
        return ""
    broken = [touch for touch in not_made_good(evidence.touches) if touch.outcome is outcome]
    return ", ".join(str(touch.association_id) for touch in broken)


def _said(evidence: Evidence) -> Iterable[str]:
    """What others say of the series, for the record."""
    if listed := evidence.listed:
        by = ", ".join(listed.by)
        if not listed.missing:
            yield f"every one of the {listed.images} images that {by} lists in its performed procedure step"
        if listed.discontinued:
            yield f"{by} says that the step was DISCONTINUED"
    elif evidence.named_whole:
        yield "a request for storage commitment names every instance"


def _rejected(count: Count) -> Iterable[str]:
    if count.rejected:
        yield f"{count.rejected} of its {count.there} images are rejected and do not count"


def last_activity(row: Series, touches: Iterable[Touch]) -> datetime:
    """Return when an instance of the series last arrived, known before or not."""
    return max([row.last_received_at, *(touch.last_at for touch in touches)])


def not_made_good(touches: Sequence[Touch]) -> list[Touch]:
    """Return the aborted and lost associations after which no other one was opened and released."""
    broken = (AssociationOutcome.ABORTED, AssociationOutcome.LOST)
    released = [touch for touch in touches if touch.outcome is AssociationOutcome.RELEASED]
    return [
        touch
        for touch in touches
        if touch.outcome in broken and not any(_follows(other, touch) for other in released)
    ]


def _follows(other: Touch, ended: Touch) -> bool:
    """Whether an association was opened after the end of one; the clock may have been set back meanwhile."""
    was_set_back = other.association_id > ended.association_id and other.opened_at < ended.opened_at
    return was_set_back or (ended.closed_at is not None and other.opened_at >= ended.closed_at)


def _counted(count: Count) -> str:
    if count.told is None:
        return f"{count.there} images, the headers do not tell how many to expect"
    return f"{count.there} images of the {count.told} that the headers tell"


def examine(paths: Sequence[Path]) -> Geometry:
    """Read the headers of a series' images and look for gaps in each of its stacks.

    Raises UnreadableInstanceError, NotAVolumeError and StorageError where the headers cannot be read.
    """
    if not paths:
        return Geometry(sentence="it holds no image planes, so there is nothing to segment", has_images=False)
    frames = read_headers(paths)
    try:
        refuse_mixed_patients(frames)
    except NotAVolumeError as exc:
        return Geometry(sentence=str(exc), is_mixed=True)
    gaps, faults = [], []
    for stack in split(frames):
        try:
            sort(stack)
        except MissingSlicesError as exc:
            gaps.append(str(exc))
        except InputError as exc:
            faults.append(f"no volume: {exc}")
    if gaps:
        return Geometry(sentence=_listed(gaps), has_gap=True)
    return Geometry(sentence=_listed(faults or ["no gap between its first and last position"]))


def _listed(sentences: Sequence[str]) -> str:
    """The first few: a series can hold thousands of stacks, and the sentence is kept and shown."""
    more = [f"and {len(sentences) - FAULTS_NAMED} more"] if len(sentences) > FAULTS_NAMED else []
    return "; ".join([*sentences[:FAULTS_NAMED], *more])


def count_images(images: Sequence[Instance]) -> Count:
    """Count the images of a series, and find out whether the headers tell how many there should be."""
    classic = [image for image in images if image.number_of_frames is None]
    if not classic:
        return Count(there=len(images), told=_told_by_multi_frames(images))
    stated = {(image.images_in_acquisition, image.acquisition_number) for image in classic}
    told = next(iter(stated))[0] if len(stated) == 1 and len(classic) == len(images) else None
    # A number that is exceeded was not the number of the series' images.
    return Count(there=len(images), told=told if told and told >= len(images) else None)


def _told_by_multi_frames(images: Sequence[Instance]) -> int | None:
    if len(images) == 1 and images[0].concatenation_uid is None:
        return 1
    stated = {(image.concatenation_uid, image.in_concatenation_total) for image in images}
    if len(stated) != 1:
        return None
    concatenation_uid, total = stated.pop()
    return total if concatenation_uid and total and total >= len(images) else None
