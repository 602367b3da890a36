"""What peers asked this node to take over the safekeeping of, and the reports that it owes them (PS3.4 J)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from pathlib import Path

from sqlalchemy import Connection, Engine, and_, insert, select, update

from gpnet_node.config import RetryConfig
from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.store.database import (
    commitment_instances,
    commitments,
    instances,
    reading,
    results,
    writing,
)
from gpnet_node.store.states import DebtState
from gpnet_node.store.versions import data_set_digest, file_digest


class FailureReason(IntEnum):
    """Why an instance is not kept safe (0008,1197; PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One instance that is named."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """One request by a peer, whose report is owed."""

    transaction_uid: str
    peer: str
    attempts: int
    asked_at: datetime
    references: tuple[Reference, ...]


class Commitments:
    """The requests. ``chance`` draws from [0, 1) for the jitter of the back-off."""

    def __init__(
        self, engine: Engine, root: Path, *, retry: RetryConfig, chance: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._root = root
        self._retry = retry
        self._chance = chance

    def ask(self, transaction_uid: str, *, peer: str, references: Sequence[Reference], now: datetime) -> bool:
        """Note a request; its report is owed from now. False if another one bears the UID.

        The same request again is answered once more.
        """
        wanted = {(it.sop_instance_uid, it.sop_class_uid) for it in references}
        owed = {
            "state": DebtState.OWED,
            "attempts": 0,
            "asked_at": now,
            "next_attempt_at": now,
            "comment": "",
        }
        same = commitments.c.transaction_uid == transaction_uid
        with writing(self._engine) as connection:
            known = connection.scalar(select(commitments.c.peer).where(same))
            if known is not None:
                if known != peer or set(_named(connection, transaction_uid)) != wanted:
                    return False
                connection.execute(update(commitments).where(same).values(owed))
                return True
            request = {"transaction_uid": transaction_uid, "peer": peer, **owed}
            connection.execute(insert(commitments).values(request))
            rows = [
                {"transaction_uid": transaction_uid, "sop_instance_uid": uid, "sop_class_uid": sop_class}
                for uid, sop_class in sorted(dict(wanted).items())
            ]
            if rows:
                connection.execute(insert(commitment_instances), rows)
            return True

    def due(self, *, now: datetime) -> tuple[Commitment, ...]:
        """Return the requests to report on now, oldest first."""
        due = and_(commitments.c.state == DebtState.OWED, commitments.c.next_attempt_at <= now)
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(commitments).where(due).order_by(commitments.c.asked_at)
            ).mappings()
            return tuple(
                Commitment(
                    transaction_uid=row["transaction_uid"],
                    peer=row["peer"],
                    attempts=row["attempts"],
                    asked_at=row["asked_at"],
                    references=tuple(
                        Reference(sop_class_uid=sop_class, sop_instance_uid=uid)
                        for uid, sop_class in _named(connection, row["transaction_uid"])
                    ),
                )
                for row in rows
            )

    def examine(self, references: Sequence[Reference]) -> Mapping[str, FailureReason]:
        """Read each instance's file once more, all of it, and return what is not kept safe, by its UID.

        Of an instance with several versions every one is looked at. Raises StorageError.
        """
        faults: dict[str, FailureReason] = {}
        for reference in references:
            fault = self._fault(reference)
            if fault is not None:
                faults[reference.sop_instance_uid] = fault
        return faults

    def _fault(self, reference: Reference) -> FailureReason | None:
        uid = reference.sop_instance_uid
        received = select(instances.c.sop_class_uid, instances.c.path, instances.c.sha256)
        made = select(results.c.sop_class_uid, results.c.path, results.c.sha256)
        with reading(self._engine) as connection:
            versions = connection.execute(received.where(instances.c.sop_instance_uid == uid)).all()
            written = connection.execute(made.where(results.c.sop_instance_uid == uid)).all()
        if not versions and not written:
            return FailureReason.NO_SUCH_INSTANCE
        if any(row.sop_class_uid != reference.sop_class_uid for row in (*versions, *written)):
            return FailureReason.CLASS_INSTANCE_CONFLICT
        try:
            whole = all(data_set_digest(self._root / row.path)[0] == row.sha256 for row in versions)
            whole = whole and all(file_digest(self._root / row.path) == row.sha256 for row in written)
        except (OSError, UnreadableInstanceError):
            whole = False
        return None if whole else FailureReason.PROCESSING_FAILURE

    def reported(self, commitment: Commitment, *, comment: str, now: datetime) -> None:
        """The peer has taken the report."""
        self._settle(commitment, DebtState.PAID, comment, now)

    def put_off(self, commitment: Commitment, *, comment: str, now: datetime) -> None:
        """It may work later: wait longer each time, and give up after the configured hours."""
        over = now - commitment.asked_at >= timedelta(hours=self._retry.give_up_hours)
        state = DebtState.FAILED if over else DebtState.OWED
        self._settle(commitment, state, comment, now + self._retry.delay(commitment.attempts, self._chance()))

    def _settle(self, commitment: Commitment, state: DebtState, comment: str, next_at: datetime) -> None:
        same = and_(
            commitments.c.transaction_uid == commitment.transaction_uid,
            commitments.c.asked_at == commitment.asked_at,  # asked again meanwhile: owed again
        )
        change = {
            "state": state,
            "attempts": commitment.attempts + 1,
            "comment": comment,
            "next_attempt_at": next_at,
        }
        with writing(self._engine) as connection:
            connection.execute(update(commitments).where(same).values(change))


def _named(connection: Connection, transaction_uid: str) -> list[tuple[str, str]]:
    columns = (commitment_instances.c.sop_instance_uid, commitment_instances.c.sop_class_uid)
    query = select(*columns).where(commitment_instances.c.transaction_uid == transaction_uid)
    return [(uid, sop_class) for uid, sop_class in connection.execute(query.order_by(columns[0]))]
