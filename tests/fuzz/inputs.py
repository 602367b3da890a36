"""Inputs to the node: a valid exchange with one to four things wrong, on one of its layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from tests.fuzz.dataset import DEFLATED, encoded
from tests.fuzz.messages import BOTH_ROLES, CONTEXTS, Message, any_message
from tests.fuzz.mutation import (
    Fragment,
    bombed,
    bytes_changed,
    command_changed,
    deep,
    elements_changed,
    fragments_changed,
    items_changed,
    pdu_changed,
)
from tests.fuzz.pdu import (
    COMMAND,
    LAST,
    P_DATA,
    associate,
    element,
    pdu,
    pdv,
    request_items,
    with_group_length,
)

_LONGEST_FRAGMENT = 60_000
_VALID_SHARE = 0.06


class Layer(StrEnum):
    """What is wrong."""

    ASSOCIATION = "association"
    """The request for an association, or what stands in its place."""
    FRAMING = "framing"
    """How a message is cut into fragments and PDUs, on an accepted association."""
    COMMAND = "command set"
    """The command set of a message that is whole."""
    DATA_SET = "data set"
    """Its data set."""
    NOTHING = "nothing"
    """A valid message."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """The bytes of one input. All but those of ``Layer.ASSOCIATION`` are sent on an accepted association."""

    layer: Layer
    kind: str
    sent: bytes

    @property
    def is_whole(self) -> bool:
        """Whether it is one message, so that whatever comes next is another."""
        return self.layer not in (Layer.ASSOCIATION, Layer.FRAMING)


REQUEST = associate(request_items(CONTEXTS, BOTH_ROLES))


def inputs(rng: Random, count: int) -> Iterator[Input]:
    """Make up inputs; four of five go to an accepted association."""
    layers, weights = list(Layer)[:4], (20, 20, 20, 40)
    for layer in rng.choices(layers, weights, k=count):
        if layer is Layer.ASSOCIATION:
            yield Input(layer=layer, kind="A-ASSOCIATE", sent=_association(rng))
        elif rng.random() < _VALID_SHARE:
            message = any_message(rng)
            yield Input(layer=Layer.NOTHING, kind=message.kind, sent=framed(message))
        else:
            message = any_message(rng)
            yield Input(layer=layer, kind=message.kind, sent=_WRONG[layer](message, rng))


def _times(rng: Random) -> range:
    return range(rng.choice([1, 1, 2, 3, 4]))


def _association(rng: Random) -> bytes:
    items: Sequence[bytes] = request_items(CONTEXTS, BOTH_ROLES)
    for _ in _times(rng):
        items = items_changed(items, rng)
    names = (b"GPNET", b"SCANNER", b"", b"NOBODY", b"\\\\", b"\xff" * 16)
    weights = (40, 40, 1, 1, 1, 1)
    called, calling = (
        rng.choices(names, [40, 0, *weights[2:]])[0],
        rng.choices(names, [0, 40, *weights[2:]])[0],
    )
    request = associate(items, called=called, calling=calling)
    return pdu_changed(request, rng) if rng.random() < 0.5 else request


def framed(message: Message) -> bytes:
    """Return the PDUs of a message as it is."""
    command = with_group_length(element(number, value) for number, value in message.command)
    return _pdus(_fragments(message, command, _data(message)))


def _data(message: Message) -> bytes | None:
    if message.data_set is None:
        return None
    return encoded(message.data_set, message.context.transfer_syntax)


def _fragments(message: Message, command: bytes, data: bytes | None) -> list[Fragment]:
    number = message.context.number
    fragments = [(number, COMMAND | LAST, command)]
    if data is not None:
        starts = range(0, max(len(data), 1), _LONGEST_FRAGMENT)
        fragments += [
            (number, LAST if at == starts[-1] else 0, data[at : at + _LONGEST_FRAGMENT]) for at in starts
        ]
    return fragments


def _pdus(fragments: Sequence[Fragment]) -> bytes:
    return b"".join(pdu(P_DATA, pdv(*it)) for it in fragments)


def _wrong_framing(message: Message, rng: Random) -> bytes:
    command = with_group_length(element(number, value) for number, value in message.command)
    fragments = _fragments(message, command, _data(message))
    pdus = [pdu(P_DATA, pdv(*it)) for it in fragments]
    if rng.random() < 0.03:
        return b"".join(pdus) * 12
    for _ in _times(rng):
        if rng.random() < 0.6:
            fragments = fragments_changed(fragments, rng)
            pdus = [pdu(P_DATA, pdv(*it)) for it in fragments]
        elif pdus:
            at = rng.randrange(len(pdus))
            pdus[at] = pdu_changed(pdus[at], rng)
    return b"".join(pdus)


def _wrong_command(message: Message, rng: Random) -> bytes:
    elements = message.command
    for _ in _times(rng):
        elements = command_changed(elements, rng)
    pieces = [element(number, value) for number, value in elements]
    if pieces and rng.random() < 0.15:
        at = rng.randrange(len(elements))
        pieces[at] = element(*elements[at], length=rng.choice([0, 1, 3, 0x10000, 0xFFFFFFFF]))
    command = with_group_length(pieces)
    if rng.random() < 0.2:
        command = bytes_changed(command, rng)
    return _pdus(_fragments(message, command, _data(message)))


def _wrong_data_set(message: Message, rng: Random) -> bytes:
    elements, syntax = message.data_set, message.context.transfer_syntax
    if elements is None:
        return _wrong_command(message, rng)
    for _ in _times(rng):
        elements = elements_changed(elements, rng)
    if elements and syntax == DEFLATED and rng.random() < 0.2:
        elements = bombed(elements, rng)
    data = encoded(elements, syntax)
    if rng.random() < 0.15:
        data = bytes_changed(data, rng)
    elif rng.random() < 0.02:
        data = deep(rng.choice([100, 1000, 5000]), closed=rng.random() < 0.5) + data
    command = with_group_length(element(number, value) for number, value in message.command)
    return _pdus(_fragments(message, command, data))


_WRONG = {Layer.FRAMING: _wrong_framing, Layer.COMMAND: _wrong_command, Layer.DATA_SET: _wrong_data_set}
