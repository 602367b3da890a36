"""Modality Performed Procedure Step SCP (PS3.4 F.7): the scanner says what it has made.

Only what proves a series complete is kept: the step's status, and the images that it lists. A step is
answered with success once it is safe in the database.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import cast

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_CREATE, N_SET

from gpnet_node.dimse.normalized import (
    NO_SUCH_INSTANCE,
    OUR_TROUBLE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    Answer,
    answer,
    items,
    read,
)
from gpnet_node.errors import QueryError, StorageError
from gpnet_node.log import get_logger
from gpnet_node.store.instance import is_safe_uid
from gpnet_node.store.steps import StepAnswer, Steps, StepStatus

# PS3.7 C, PS3.4 F.7.2.1.3 and F.7.2.2.3
_INVALID_ATTRIBUTE_VALUE = 0x0106
_DUPLICATE_INSTANCE = 0x0111
_INVALID_INSTANCE = 0x0117
_MAY_NO_LONGER_BE_UPDATED = 0xA710  # Error ID
_MAY_NOT = "Performed Procedure Step Object may no longer be updated"

_STATUS_OF = {
    StepAnswer.DONE: SUCCESS,
    StepAnswer.UNKNOWN: NO_SUCH_INSTANCE,
    StepAnswer.FINAL: PROCESSING_FAILURE,
}

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
        try:
            status = read(request.AttributeList, event).get("PerformedProcedureStepStatus")
            if status != StepStatus.IN_PROGRESS:
                raise QueryError("a new step must be IN PROGRESS")
            new = self._steps.begin(
                str(uid), calling_ae=event.assoc.requestor.ae_title.strip(), now=self._clock()
            )
        except QueryError as exc:
            return self._answer(event, _INVALID_ATTRIBUTE_VALUE, str(exc))
        except StorageError as exc:
            return self._failed(event, exc)
        told, _ = self._answer(event, SUCCESS if new else _DUPLICATE_INSTANCE)
        named = Dataset()
        named.AffectedSOPInstanceUID = uid
        return told, named if new and request.AffectedSOPInstanceUID is None else None

    def change(self, event: evt.Event) -> Answer:
        """Take a step's new status and its list of images. One that has ended is no longer changed."""
        request = cast(N_SET, event.request)
        try:
            attributes = read(request.ModificationList, event)
            status = str(attributes.get("PerformedProcedureStepStatus", StepStatus.IN_PROGRESS))
            if status not in list(StepStatus):
                raise QueryError("the step's new status is none of the standard's")
            uid = str(request.RequestedSOPInstanceUID)
            done = self._steps.change(uid, StepStatus(status), _listed(attributes), now=self._clock())
        except QueryError as exc:
            return self._answer(event, _INVALID_ATTRIBUTE_VALUE, str(exc))
        except StorageError as exc:
            return self._failed(event, exc)
        return self._answer(event, _STATUS_OF[done], _MAY_NOT if done is StepAnswer.FINAL else "")

    def _failed(self, event: evt.Event, exc: StorageError) -> Answer:
        log.error("a performed procedure step could not be kept", reason=str(exc))
        return self._answer(event, RESOURCE_LIMITATION, OUR_TROUBLE)

    def _answer(self, event: evt.Event, status: int, comment: str = "") -> Answer:
        calling_ae = event.assoc.requestor.ae_title.strip()
        log.info("a performed procedure step was reported", calling_ae=calling_ae, status=f"0x{status:04X}")
        told, along = answer(status, comment)
        if status == PROCESSING_FAILURE:
            told.ErrorID = _MAY_NO_LONGER_BE_UPDATED
        return told, along


def _listed(attributes: Dataset) -> Mapping[str, Sequence[str]] | None:
    """The images by series, or None where the list does not come along. Raises QueryError.

    Other objects are left out: a scanner lists raw data too, which it never sends here.
    """
    if "PerformedSeriesSequence" not in attributes:
        return None
    listed: dict[str, list[str]] = {}
    for item in items(attributes, "PerformedSeriesSequence"):
        references = items(item, "ReferencedImageSequence")
        images = [reference.get("ReferencedSOPInstanceUID") for reference in references]
        series_uid = item.get("SeriesInstanceUID")
        if not all(map(is_safe_uid, [series_uid, *images])):
            raise QueryError("an item of PerformedSeriesSequence lacks a UID")
        listed.setdefault(str(series_uid), []).extend(map(str, images))
    return listed
