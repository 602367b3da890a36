"""Modality Performed Procedure Step SCP (PS3.4 F.7): the scanner says what it has made.

Only what proves a series complete is kept: the step's status, and the images that it lists. A step is
answered with success once it is safe in the database.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import cast

from pydicom import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.dsutils import decode

from gpnet_node.errors import StorageError
from gpnet_node.intake.instance import is_safe_uid
from gpnet_node.intake.spool import Identifier
from gpnet_node.log import get_logger
from gpnet_node.store.steps import StepAnswer, Steps, StepStatus
from gpnet_node.store.versions import UNREADABLE

# PS3.7 C, PS3.4 F.7.2.1.3 and F.7.2.2.3
_SUCCESS = 0x0000
_INVALID_ATTRIBUTE_VALUE = 0x0106
_PROCESSING_FAILURE = 0x0110
_DUPLICATE_INSTANCE = 0x0111
_NO_SUCH_INSTANCE = 0x0112
_INVALID_INSTANCE = 0x0117
_RESOURCE_LIMITATION = 0x0213
_MAY_NO_LONGER_BE_UPDATED = 0xA710  # Error ID

_STATUS_OF = {
    StepAnswer.DONE: _SUCCESS,
    StepAnswer.UNKNOWN: _NO_SUCH_INSTANCE,
    StepAnswer.FINAL: _PROCESSING_FAILURE,
}

Answer = tuple[Dataset, Dataset | None]

log = get_logger(__name__)


class PerformedSteps:
    """Answers N-CREATE and N-SET of the class; who may send them is decided where contexts are negotiated."""

    def __init__(self, steps: Steps, *, clock: Callable[[], datetime]) -> None:
        self._steps = steps
        self._clock = clock

    def create(self, event: evt.Event) -> Answer:
        """Begin a step, under the sender's UID or one of ours; its status must be IN PROGRESS."""
        request = cast(N_CREATE, event.request)
        uid = request.AffectedSOPInstanceUID or generate_uid(None)
        if not is_safe_uid(uid):
            return self._answer(event, _INVALID_INSTANCE, "the step's SOP Instance UID is none")
        attributes = _attributes(request.AttributeList, event)
        if attributes is None or attributes.get("PerformedProcedureStepStatus") != StepStatus.IN_PROGRESS:
            return self._answer(event, _INVALID_ATTRIBUTE_VALUE, "a new step must be IN PROGRESS")
        calling_ae = event.assoc.requestor.ae_title.strip()
        try:
            new = self._steps.begin(str(uid), calling_ae=calling_ae, now=self._clock())
        except StorageError as exc:
            return self._failed(event, exc)
        answer, _ = self._answer(event, _SUCCESS if new else _DUPLICATE_INSTANCE)
        named = Dataset()
        named.AffectedSOPInstanceUID = uid
        return answer, named if new and request.AffectedSOPInstanceUID is None else None

    def change(self, event: evt.Event) -> Answer:
        """Take a step's new status and its list of images. One that has ended is no longer changed."""
        request = cast(N_SET, event.request)
        uid = str(request.RequestedSOPInstanceUID)
        attributes = _attributes(request.ModificationList, event)
        images = None if attributes is None else _listed(attributes)
        status = "" if attributes is None else attributes.get("PerformedProcedureStepStatus", "IN PROGRESS")
        if attributes is None or status not in list(StepStatus):
            return self._answer(event, _INVALID_ATTRIBUTE_VALUE, "the step's new attributes have no meaning")
        try:
            done = self._steps.change(uid, StepStatus(status), images, now=self._clock())
        except StorageError as exc:
            return self._failed(event, exc)
        return self._answer(event, _STATUS_OF[done])

    def _failed(self, event: evt.Event, exc: StorageError) -> Answer:
        log.error("a performed procedure step could not be kept", reason=str(exc))
        return self._answer(event, _RESOURCE_LIMITATION, "out of resources; the node's log says why")

    def _answer(self, event: evt.Event, status: int, comment: str = "") -> Answer:
        calling_ae = event.assoc.requestor.ae_title.strip()
        log.info("a performed procedure step was reported", calling_ae=calling_ae, status=f"0x{status:04X}")
        answer = Dataset()
        answer.Status = status
        if comment:
            answer.ErrorComment = comment
        if status == _PROCESSING_FAILURE:
            answer.ErrorComment = "Performed Procedure Step Object may no longer be updated"
            answer.ErrorID = _MAY_NO_LONGER_BE_UPDATED
        return answer, None


def _attributes(sent: object, event: evt.Event) -> Dataset | None:
    """What was sent, or None: nothing, too much, or nothing that can be read."""
    if not isinstance(sent, Identifier) or sent.too_long:
        return None
    syntax = UID(event.context.transfer_syntax)
    try:
        attributes = decode(sent, syntax.is_implicit_VR, syntax.is_little_endian)
        attributes.walk(lambda *_: None)  # elements are read when they are asked for
    except UNREADABLE:
        return None
    return attributes


def _listed(attributes: Dataset) -> Mapping[str, Sequence[str]] | None:
    """The images by series, or None where the list does not come along.

    Other objects are left out: a scanner lists raw data too, which it never sends here.
    """
    performed = attributes.get("PerformedSeriesSequence")
    if performed is None:
        return None
    listed: dict[str, list[str]] = {}
    for item in performed:
        images = [
            image.get("ReferencedSOPInstanceUID") for image in item.get("ReferencedImageSequence") or ()
        ]
        series_uid = item.get("SeriesInstanceUID")
        if is_safe_uid(series_uid):
            listed.setdefault(str(series_uid), []).extend(str(uid) for uid in images if is_safe_uid(uid))
    return listed
