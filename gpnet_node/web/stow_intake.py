"""What becomes of the parts of one STOW-RS request: each is made safe and counted by itself (PS3.18 I.2)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from fastapi import HTTPException
from pydicom import Dataset

from gpnet_node.audit.trail import Traced
from gpnet_node.errors import GpnetError, MismatchedInstanceError, StorageError, UnreadableInstanceError
from gpnet_node.intake.keeping import TRANSFER_SYNTAXES, Announced, keep, preamble
from gpnet_node.intake.spool import Spool
from gpnet_node.log import get_logger
from gpnet_node.store.archive import Archive
from gpnet_node.store.index import Index
from gpnet_node.store.instance import is_safe_uid
from gpnet_node.store.states import Arrival, AssociationOutcome
from gpnet_node.web.media import DICOM, parameters
from gpnet_node.web.part10 import announced, head_length

SENDER = "STOW-RS"  # stands where the AE title of a sender does
_BATCH = 64  # instances told to the index at once

# PS3.18 I.2.2
_OUT_OF_RESOURCES = 0xA700
_DATA_SET_IS_ANOTHER = 0xA900
_CANNOT_UNDERSTAND = 0xC000
_SYNTAX_NOT_SUPPORTED = 0xC122

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one part. ``reason``: why it was not stored (PS3.18 I.2.2); None: it was."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    reason: int | None = None


@dataclass(kw_only=True)
class _Open:
    """The part that is coming in."""

    head: bytearray = field(default_factory=bytearray)
    announced: Announced | None = None
    spool: Spool | None = None
    fault: GpnetError | None = None
    reason: int = _CANNOT_UNDERSTAND


class StowIntake:
    """Takes the parts of one request; it is an association to the index, opened by the first instance.

    ``study_uid``: the study that all must belong to, if the request names one. A part that is longer than
    ``max_bytes`` ends the request (HTTPException 413): what follows it may be endless.
    """

    def __init__(
        self,
        *,
        archive: Archive,
        index: Index,
        clock: Callable[[], datetime],
        owner: str,
        host: str,
        study_uid: str | None,
        max_bytes: int,
    ) -> None:
        self._archive = archive
        self._index = index
        self._clock = clock
        self._owner = owner
        self._host = host
        self._study_uid = study_uid
        self._max_bytes = max_bytes
        self._open: _Open | None = None
        self._waiting: list[Arrival] = []
        self._association: int | None = None
        self.results: list[Result] = []
        self.traced: dict[bool, Counter[Traced]] = {True: Counter(), False: Counter()}  # by Arrival.new

    # -- one part --------------------------------------------------------------------------------------------

    def begin(self, headers: Mapping[str, str]) -> None:
        """A part begins."""
        self._open = _Open()
        media_type, _ = parameters(headers.get("content-type", DICOM))
        if media_type != DICOM:
            self._open.fault = UnreadableInstanceError(f"the part is not {DICOM}")

    def take(self, piece: bytes) -> None:
        """Some of its content comes."""
        part = self._open
        assert part is not None  # the reader begins each part
        if part.fault is not None:
            return
        try:
            if part.spool is None:
                part.head += piece
                self._read_head(part)
            else:
                part.spool.write(piece)
        except GpnetError as exc:
            part.fault = exc
        if part.spool is not None and part.spool.size_bytes > self._max_bytes:
            raise HTTPException(413, f"an instance is longer than {self._max_bytes} bytes")

    def _read_head(self, part: _Open) -> None:
        length = head_length(bytes(part.head))
        if length is None or len(part.head) < length:
            return
        found = part.announced = announced(bytes(part.head[:length]), sender=SENDER)
        if found.transfer_syntax not in TRANSFER_SYNTAXES:
            part.reason = _SYNTAX_NOT_SUPPORTED
            raise UnreadableInstanceError(f"transfer syntax {found.transfer_syntax} is not supported")
        part.spool = Spool(self._archive, lambda: preamble(found), max_bytes=self._max_bytes, kind="stow")
        part.spool.write(bytes(part.head[length:]))
        part.head.clear()

    def end(self) -> None:
        """It is whole: make it safe, or note why not."""
        part, self._open = self._open, None
        assert part is not None  # the reader ends what it began
        it = part.announced
        known = Result() if it is None else _named(it)
        try:
            if part.fault is not None:
                raise part.fault
            if part.spool is None or it is None:
                raise UnreadableInstanceError("the part ends within the file meta information")
            arrival = keep(
                self._archive,
                part.spool,
                it,
                max_bytes=self._max_bytes,
                clock=self._clock,
                check=self._check_study,
            )
        except (StorageError, UnreadableInstanceError, MismatchedInstanceError) as exc:
            self._refuse(known, exc, part.reason)
        else:
            self._waiting.append(arrival)
            if len(self._waiting) >= _BATCH:
                self._tell()
        finally:
            if part.spool is not None:
                part.spool.discard()

    def _check_study(self, header: Dataset) -> None:
        if self._study_uid is not None and header.StudyInstanceUID != self._study_uid:
            raise MismatchedInstanceError("the instance belongs to another study than the request names")

    def _refuse(self, known: Result, fault: GpnetError, reason: int) -> None:
        if isinstance(fault, StorageError):
            reason = _OUT_OF_RESOURCES
        elif isinstance(fault, MismatchedInstanceError):
            reason = _DATA_SET_IS_ANOTHER
        self.results.append(replace(known, reason=reason))
        log.warning(
            "an instance was refused",
            status=f"0x{reason:04X}",
            why=str(fault),
            calling_ae=SENDER,
            instance=known.sop_instance_uid,
        )

    # -- the request -----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Tell the index of what is safe; only then does it count as stored."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        try:
            if self._association is None:
                self._association = self._index.open_association(
                    calling_ae=SENDER, host=self._host, owner=self._owner, now=self._clock()
                )
            self._index.record([replace(it, association_id=self._association) for it in batch])
        except StorageError as exc:
            for arrival in batch:
                self._refuse(_kept(arrival), exc, _OUT_OF_RESOURCES)
        else:
            self.results += map(_kept, batch)
            for arrival in batch:
                self.traced[arrival.new][Traced.of(arrival.header)] += 1

    def close(self, outcome: AssociationOutcome) -> Sequence[Result]:
        """End the request, whole or broken off; return what became of each part. May raise StorageError."""
        part, self._open = self._open, None
        if part is not None and part.spool is not None:
            part.spool.discard()
        self._tell()
        kept = sum(it.reason is None for it in self.results)
        if self._association is not None:
            self._index.close_association(self._association, outcome, now=self._clock())
        log.info("instances were sent", calling_ae=SENDER, kept=kept, refused=len(self.results) - kept)
        return self.results


def _named(it: Announced) -> Result:
    """What is no UID might be anything, and is not repeated."""
    uids = [uid if is_safe_uid(uid) else "" for uid in (it.sop_class_uid, it.sop_instance_uid)]
    return Result(sop_class_uid=uids[0], sop_instance_uid=uids[1])


def _kept(arrival: Arrival) -> Result:
    it = arrival.header
    return Result(
        sop_class_uid=it.sop_class_uid,
        sop_instance_uid=it.sop_instance_uid,
        study_uid=it.study_uid,
        series_uid=it.series_uid,
    )
