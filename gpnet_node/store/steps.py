"""What scanners say that they have made: performed procedure steps (MPPS), and the images that each lists.

A step's list names series and instances (PS3.3 C.4.15), so it can prove that a series is complete.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    delete,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from gpnet_node.store.database import (
    commitment_instances,
    instances,
    listed_images,
    performed_steps,
    series,
    writing,
)
from gpnet_node.store.revisions import series_from, set_state
from gpnet_node.store.states import SeriesState


class StepStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class StepAnswer(StrEnum):
    """What became of a change to a step."""

    DONE = "done"
    UNKNOWN = "unknown"
    """There is no such step."""
    FINAL = "final"
    """It has ended, and is no longer changed (PS3.4 F.7.2.2.2)."""


_ENDED = (StepStatus.COMPLETED, StepStatus.DISCONTINUED)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What the steps that have ended say of one series: how many images, and how many of them are not here.

    ``by``: AE titles of the scanners.
    """

    by: tuple[str, ...]
    images: int
    missing: int
    discontinued: bool


class Steps:
    """The performed procedure steps."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, uid: str, *, calling_ae: str, now: datetime) -> bool:
        """Note a step that is in progress; False if it is known already."""
        row = {"uid": uid, "calling_ae": calling_ae, "status": StepStatus.IN_PROGRESS, "updated_at": now}
        with writing(self._engine) as connection:
            statement = upsert(performed_steps).values(row).on_conflict_do_nothing()
            return connection.execute(statement).rowcount == 1

    def change(
        self, uid: str, status: StepStatus, images: Mapping[str, Sequence[str]] | None, *, now: datetime
    ) -> StepAnswer:
        """Note a step's status, and its list if it comes along: SOP Instance UIDs by Series Instance UID.

        A decided series of which an ended step lists more than was here then is received again, and so is one
        that was given up.
        """
        with writing(self._engine) as connection:
            known = connection.scalar(select(performed_steps.c.status).where(performed_steps.c.uid == uid))
            if known is None:
                return StepAnswer.UNKNOWN
            if known in _ENDED:
                return StepAnswer.FINAL
            change = {"status": status, "updated_at": now}
            connection.execute(update(performed_steps).where(performed_steps.c.uid == uid).values(change))
            if images is not None:
                _list(connection, uid, images)
            if status in _ENDED:
                _look_again(connection, uid, now)
            return StepAnswer.DONE


def ended_steps(connection: Connection, of: Select[tuple[str]]) -> Mapping[str, Listed]:
    """What ended steps say of series, by UID; nothing of one that none lists. ``of`` selects their UIDs."""
    ended = select(performed_steps.c.uid).where(performed_steps.c.status.in_(_ENDED))
    here = exists().where(instances.c.sop_instance_uid == listed_images.c.sop_instance_uid)
    images = (
        select(listed_images.c.series_uid, listed_images.c.sop_instance_uid, here.label("here"))
        .where(listed_images.c.step_uid.in_(ended), listed_images.c.series_uid.in_(of))
        .distinct()
        .subquery()
    )
    counted = select(
        images.c.series_uid, func.count().label("images"), func.sum(images.c.here.cast(Integer)).label("here")
    ).group_by(images.c.series_uid)
    by: dict[str, set[tuple[str, str]]] = {}
    for row in connection.execute(
        select(listed_images.c.series_uid, performed_steps.c.calling_ae, performed_steps.c.status)
        .join(performed_steps)
        .where(performed_steps.c.status.in_(_ENDED), listed_images.c.series_uid.in_(of))
        .distinct()
    ):
        by.setdefault(row[0], set()).add((row[1], row[2]))
    return {
        row["series_uid"]: Listed(
            by=tuple(sorted({ae for ae, _ in by[row["series_uid"]]})),
            images=row["images"],
            missing=row["images"] - row["here"],
            discontinued=StepStatus.DISCONTINUED in {status for _, status in by[row["series_uid"]]},
        )
        for row in connection.execute(counted).mappings()
    }


def named_whole(connection: Connection, of: Select[tuple[str]]) -> Set[str]:
    """Those series of which one request for storage commitment names every instance that is here."""
    named = (
        select(instances.c.series_uid, commitment_instances.c.transaction_uid, _different().label("named"))
        .join(commitment_instances, commitment_instances.c.sop_instance_uid == instances.c.sop_instance_uid)
        .where(instances.c.series_uid.in_(of))
        .group_by(instances.c.series_uid, commitment_instances.c.transaction_uid)
        .subquery()
    )
    held = select(_different()).where(instances.c.series_uid == named.c.series_uid).scalar_subquery()
    return set(connection.scalars(select(named.c.series_uid).where(named.c.named == held)))


def _different() -> ColumnElement[int]:
    """Number of instances, whose versions count as one."""
    return func.count(instances.c.sop_instance_uid.distinct())


def _list(connection: Connection, uid: str, images: Mapping[str, Sequence[str]]) -> None:
    connection.execute(delete(listed_images).where(listed_images.c.step_uid == uid))
    rows = [
        {"step_uid": uid, "series_uid": series_uid, "sop_instance_uid": instance}
        for series_uid, listed in images.items()
        for instance in dict.fromkeys(listed)
    ]
    if rows:
        connection.execute(upsert(listed_images).on_conflict_do_nothing(), rows)


def _look_again(connection: Connection, uid: str, now: datetime) -> None:
    named = select(listed_images.c.series_uid).where(listed_images.c.step_uid == uid)
    decided = select(series).where(series.c.uid.in_(named), series.c.state != SeriesState.RECEIVING)
    rows = connection.execute(decided).mappings().all()
    listed = ended_steps(connection, named)
    for row in map(series_from, rows):
        missing, complete = listed[row.uid].missing, row.state is SeriesState.COMPLETE
        if missing or not complete:
            set_state(
                connection,
                row,
                SeriesState.RECEIVING,
                revision=row.revision + complete,
                sentence=f"looked at again: {missing} of the images that an ended step lists are missing",
                now=now,
            )
