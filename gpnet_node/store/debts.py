"""How a job comes to owe its objects to peers: rows of the outbox, in the transaction that moves the job."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, and_, delete, insert, select, update

from gpnet_node.store.database import outbox, results
from gpnet_node.store.states import STORED, DebtState


def owe(connection: Connection, job_uid: str, owed: Sequence[tuple[str, str]], *, now: datetime) -> None:
    """Note each (name, peer): which object of the job goes to whom. It is due from ``now`` on."""
    for name, peer in owed:
        row = {"job_uid": job_uid, "name": name, "peer": peer, "comment": "", **_fresh(now)}
        connection.execute(insert(outbox).values(row))


def owe_again(connection: Connection, job_uid: str, *, now: datetime) -> None:
    """Let everything that no peer has stored be due, with its attempts and its hours counted anew."""
    unpaid = and_(outbox.c.job_uid == job_uid, outbox.c.state.not_in(STORED))
    connection.execute(update(outbox).where(unpaid).values(_fresh(now)))


def forget_notices(connection: Connection, job_uid: str, kinds: Collection[str], *, paid_too: bool) -> None:
    """Forget notices of these kinds, and to whom they were owed: that nothing comes, once something comes.

    ``paid_too``: also that one was sent to somebody; the job's next attempt may write another.
    """
    own = select(results.c.name).where(results.c.job_uid == job_uid, results.c.kind.in_(kinds))
    debts = and_(outbox.c.job_uid == job_uid, outbox.c.name.in_(own))
    if not paid_too:
        debts = and_(debts, outbox.c.state.not_in(STORED))
    connection.execute(delete(outbox).where(debts))
    left = select(outbox.c.name).where(outbox.c.job_uid == job_uid)
    unowed = and_(results.c.job_uid == job_uid, results.c.kind.in_(kinds), results.c.name.not_in(left))
    connection.execute(delete(results).where(unowed))


def _fresh(now: datetime) -> dict[str, object]:
    return {
        "state": DebtState.OWED,
        "attempts": 0,
        "owed_since": now,
        "next_attempt_at": now,
        "updated_at": now,
    }
