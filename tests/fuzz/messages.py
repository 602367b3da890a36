"""One valid message of each DIMSE service that the node offers, and of those that it does not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from tests.fuzz.dataset import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    MR_IMAGE,
    RLE,
    Element,
    mr_image,
    sequence,
    texts,
)
from tests.fuzz.pdu import NO_DATA_SET, Context

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
PRIVATE = "1.3.12.2.1107.5.9.1"
PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1.", "1.2.840.10008.5.1.4.1.2.2."
STEP, COMMITMENT = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.1.20.1"
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_MPEG2 = "1.2.840.10008.1.2.4.100"

_PROPOSED = (
    ("1.2.840.10008.1.1", IMPLICIT),
    *((MR_IMAGE, syntax) for syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, RLE)),
    (ENHANCED_MR, EXPLICIT),
    (PRIVATE, EXPLICIT),
    *((PATIENT_ROOT + kind, IMPLICIT) for kind in "123"),
    *((STUDY_ROOT + kind, EXPLICIT) for kind in "123"),
    (STEP, EXPLICIT),
    (COMMITMENT, IMPLICIT),
    (MR_IMAGE, _MPEG2),  # is not accepted
)  # fmt: skip
CONTEXTS = tuple(
    Context(number=2 * place + 1, abstract_syntax=syntax, transfer_syntax=transfer)
    for place, (syntax, transfer) in enumerate(_PROPOSED)
)
BOTH_ROLES = (MR_IMAGE, COMMITMENT)
REFUSED = CONTEXTS[-1].number

C_STORE, C_GET, C_FIND, C_MOVE, C_ECHO, C_CANCEL = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF
N_EVENT_REPORT, N_GET, N_SET, N_ACTION, N_CREATE, N_DELETE = (0x0100 + 0x10 * n for n in range(6))
RESPONSE = 0x8000
REQUESTS = frozenset(
    {C_STORE, C_GET, C_FIND, C_MOVE, C_ECHO} | {N_EVENT_REPORT, N_GET, N_SET, N_ACTION, N_CREATE, N_DELETE}
)

Command = list[tuple[int, int | str | bytes]]


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a message is made of."""

    kind: str
    context: Context
    command: Command
    data_set: list[Element] | None = None


def _context(abstract_syntax: str, transfer_syntax: str | None = None) -> Context:
    return next(
        it
        for it in CONTEXTS
        if it.abstract_syntax == abstract_syntax and transfer_syntax in (None, it.transfer_syntax)
    )


def new_uid(rng: Random) -> str:
    """Make up a UID."""
    return f"2.25.{rng.getrandbits(100)}"


def _pool(rng: Random, root: str) -> str:
    """One of few, so that what is asked for can be there."""
    return f"1.2.826.{root}.{rng.randrange(40)}"


def _request(field: int, sop_class: str, *, data: bool, **more: int | str) -> Command:
    """A request's elements; ``more`` are written as ``x1000="..."``."""
    affected = 0x0003 if field in (N_GET, N_SET, N_ACTION, N_DELETE) else 0x0002
    given: Mapping[int, int | str] = {
        affected: sop_class,
        0x0100: field,
        0x0110: 7,
        0x0800: 1 if data else NO_DATA_SET,
        **{int(name[1:], 16): value for name, value in more.items()},
    }
    return sorted(given.items())


def echo(_rng: Random) -> Message:
    context = CONTEXTS[0]
    return Message(
        kind="C-ECHO", context=context, command=_request(C_ECHO, context.abstract_syntax, data=False)
    )


def store(rng: Random) -> Message:
    context = rng.choice(CONTEXTS[1:8])
    uid = new_uid(rng)
    data_set = mr_image(
        uid,
        study=_pool(rng, "1"),
        series=_pool(rng, "2"),
        transfer_syntax=context.transfer_syntax,
        sop_class=context.abstract_syntax,
    )
    command = _request(C_STORE, context.abstract_syntax, data=True, x0700=0, x1000=uid)
    return Message(kind="C-STORE", context=context, command=command, data_set=data_set)


def _identifier(rng: Random, *, patients: bool) -> list[Element]:
    level = rng.choice(["STUDY", "SERIES", "IMAGE", *(["PATIENT"] if patients else [])])
    keys = texts(x00080005CS="ISO_IR 192", x00080018UI="", x00080020DA="20240101-20241231")
    keys += texts(x00080052CS=level, x00080060CS="MR", x00100010PN="Verb*", x00100020LO="Verborgen")
    keys += texts(x0020000DUI=_pool(rng, "1"), x0020000EUI=_pool(rng, "2"), x00200013IS="1")
    return keys


def find(rng: Random) -> Message:
    root = rng.choice([PATIENT_ROOT, STUDY_ROOT])
    command = _request(C_FIND, root + "1", data=True, x0700=0)
    identifier = _identifier(rng, patients=root == PATIENT_ROOT)
    return Message(kind="C-FIND", context=_context(root + "1"), command=command, data_set=identifier)


def move(rng: Random) -> Message:
    root = rng.choice([PATIENT_ROOT, STUDY_ROOT])
    destination = rng.choice(["PACS", "NOBODY"])
    command = _request(C_MOVE, root + "2", data=True, x0600=destination, x0700=0)
    identifier = _identifier(rng, patients=root == PATIENT_ROOT)
    return Message(kind="C-MOVE", context=_context(root + "2"), command=command, data_set=identifier)


def get(rng: Random) -> Message:
    root = rng.choice([PATIENT_ROOT, STUDY_ROOT])
    command = _request(C_GET, root + "3", data=True, x0700=0)
    identifier = _identifier(rng, patients=root == PATIENT_ROOT)
    return Message(kind="C-GET", context=_context(root + "3"), command=command, data_set=identifier)


def _step(rng: Random, status: str) -> list[Element]:
    reference = texts(x00081150UI=MR_IMAGE, x00081155UI=_pool(rng, "3"))
    series = [sequence(0x00081140, reference, reference), *texts(x0020000EUI=_pool(rng, "2"))]
    head = texts(x00080005CS="ISO_IR 192", x00100010PN="Verborgen^Person", x00400252CS=status)
    return [*head, sequence(0x00400340, series, delimited=True)]


def create(rng: Random) -> Message:
    command = _request(N_CREATE, STEP, data=True, x1000=_pool(rng, "4"))
    data_set = _step(rng, "IN PROGRESS")
    return Message(kind="N-CREATE", context=_context(STEP), command=command, data_set=data_set)


def change(rng: Random) -> Message:
    command = _request(N_SET, STEP, data=True, x1001=_pool(rng, "4"))
    status = rng.choice(["IN PROGRESS", "COMPLETED", "DISCONTINUED"])
    return Message(kind="N-SET", context=_context(STEP), command=command, data_set=_step(rng, status))


def _references(rng: Random) -> list[Element]:
    items = [texts(x00081150UI=MR_IMAGE, x00081155UI=_pool(rng, "3")) for _ in range(3)]
    return [*texts(x00081195UI=new_uid(rng)), sequence(0x00081199, *items)]


def action(rng: Random) -> Message:
    command = _request(N_ACTION, COMMITMENT, data=True, x1001=_COMMITMENT_INSTANCE, x1008=1)
    return Message(kind="N-ACTION", context=_context(COMMITMENT), command=command, data_set=_references(rng))


def report(rng: Random) -> Message:
    command = _request(N_EVENT_REPORT, COMMITMENT, data=True, x1000=_COMMITMENT_INSTANCE, x1002=2)
    failed = [
        *texts(x00081150UI=MR_IMAGE, x00081155UI="1.2.3"),
        Element(tag=0x00081197, vr="US", value=0x0112),
    ]
    data_set = [*_references(rng)[:1], sequence(0x00081198, failed), _references(rng)[1]]
    return Message(kind="N-EVENT-REPORT", context=_context(COMMITMENT), command=command, data_set=data_set)


def _not_offered(rng: Random) -> Message:
    """A service that the node does not offer, a response that nobody waits for, or a C-CANCEL."""
    field = rng.choice(
        [N_GET, N_DELETE, C_CANCEL, C_STORE | RESPONSE, C_FIND | RESPONSE, N_SET | RESPONSE, 0x0002]
    )
    context = rng.choice(CONTEXTS)
    command = _request(field, context.abstract_syntax, data=False, x0120=7, x0900=0, x1001=_pool(rng, "4"))
    if field == C_CANCEL or field & RESPONSE:
        command = [it for it in command if it[0] != 0x0110]
    else:
        command = [it for it in command if it[0] not in (0x0120, 0x0900)]
    return Message(kind="not offered", context=context, command=command)


Make = Callable[[Random], Message]
# How often each is the beginning of an input.
MESSAGES: Mapping[Make, int] = MappingProxyType(
    {
        echo: 2,
        store: 16,
        find: 6,
        move: 3,
        get: 4,
        create: 3,
        change: 3,
        action: 3,
        report: 3,
        _not_offered: 2,
    }
)


def any_message(rng: Random) -> Message:
    """Make a valid message."""
    (make,) = rng.choices(list(MESSAGES), list(MESSAGES.values()))
    return make(rng)
