"""A peer that sends inputs on one connection after the other, and says how the node took each."""

import contextlib
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.connection import LIMIT_SECONDS, ClosedError, Connection
from tests.fuzz.inputs import REQUEST, Input, Layer
from tests.fuzz.messages import C_ECHO, C_STORE, RESPONSE
from tests.fuzz.pdu import (
    ABORT,
    ABORTED,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    LAST,
    NO_DATA_SET,
    P_DATA,
    RELEASE,
    element,
    pdu,
    pdv,
    read_command,
    read_pdvs,
    with_group_length,
)

_GRACE_SECONDS = 0.15  # for an answer; then the node is asked whether it is there
_PENDING = (0xFF00, 0xFF01)
_ECHO_ID = 0x7E57
_ECHO = pdu(
    P_DATA,
    pdv(
        1,
        COMMAND | LAST,
        with_group_length(
            [
                element(0x0002, "1.2.840.10008.1.1"),
                element(0x0100, C_ECHO),
                element(0x0110, _ECHO_ID),
                element(0x0800, NO_DATA_SET),
            ]
        ),
    ),
)
_ECHO_ANSWERED = "the C-ECHO behind it"


class HangError(Exception):
    """The node gave no answer, did not abort, and did not close the connection."""


@dataclass(kw_only=True)
class Outcome:
    """How the node took an input. ``kept``: data sets, by SOP Instance UID, that it said are stored."""

    answer: str
    kept: dict[str, bytes] = field(default_factory=dict)


class Lane:
    """Plays inputs one after the other; an association that survives one takes the next.

    ``patient``: with a node that waits for more, wait until its own timeouts end that.
    """

    def __init__(self, port: int, rng: Random, *, patient: bool) -> None:
        self._port = port
        self._rng = rng
        self._patient = patient
        self._association: Connection | None = None
        self._left: list[tuple[Connection, bytes]] = []

    def play(self, it: Input) -> Outcome:
        """Send an input and see what comes of it. Raises HangError."""
        try:
            if it.layer is Layer.ASSOCIATION:
                return Outcome(answer=self._before_association(it.sent))
            return self._on_association(it)
        except ClosedError:
            self.close()
            return Outcome(answer="closed")

    def close(self) -> None:
        """End the association, if there is one, without a word."""
        if self._association is not None:
            self._association.close()
            self._association = None

    def wait(self) -> None:
        """Wait until the node has let go what it waited with. Raises HangError, which has the input."""
        deadline = time.monotonic() + LIMIT_SECONDS
        for connection, sent in self._left:
            try:
                while connection.receive(max(0.0, deadline - time.monotonic())) is not None:
                    pass
                raise HangError(f"the connection is still open: {sent.hex()}")
            except ClosedError:
                connection.close()

    def _before_association(self, sent: bytes) -> str:
        connection = Connection(self._port)
        connection.send(sent)
        try:
            came = connection.receive(_GRACE_SECONDS)
            if came is None or came[0] == ASSOCIATE_AC:
                self._end(connection, sent)
            else:
                connection.close()
        except ClosedError:
            connection.close()
            raise
        if came is None:
            return "waited for more"
        names = {ASSOCIATE_AC: "accepted", ASSOCIATE_RJ: "rejected", ABORT: "aborted"}
        return names.get(came[0], f"PDU {came[0]}")

    def _associated(self) -> Connection:
        if self._association is None:
            connection = Connection(self._port)
            connection.send(REQUEST)
            came = connection.receive(LIMIT_SECONDS)
            if came is None or came[0] != ASSOCIATE_AC:
                raise HangError(f"a valid request for an association was answered by {came and came[0]}")
            self._association = connection
        return self._association

    def _on_association(self, it: Input) -> Outcome:
        connection = self._associated()
        connection.send(it.sent)
        heard = _Heard(connection, self._rng)
        answer = heard.final(_GRACE_SECONDS)
        if answer is None and it.is_whole:
            answer = self._behind_an_echo(connection, heard)
        if answer == "aborted":
            self.close()
        elif not it.is_whole:
            self._association = None
            self._end(connection, it.sent)
        return Outcome(answer=answer or "waited for more", kept=heard.kept(it.sent))

    def _behind_an_echo(self, connection: Connection, heard: "_Heard") -> str:
        """Ask whether the node is there; what it says before is its answer to the input. Raises HangError."""
        connection.send(_ECHO)
        answer = "ignored"
        while (came := heard.final(LIMIT_SECONDS)) != _ECHO_ANSWERED:
            if came is None:
                raise HangError("neither the input nor the C-ECHO behind it was answered")
            answer = came
            if came == "aborted":
                break
        return answer

    def _end(self, connection: Connection, sent: bytes) -> None:
        """Make an end with a node that may wait for more, or leave that to its own timeouts."""
        if self._patient:
            self._left.append((connection, sent))
            return
        how = self._rng.randrange(4)
        if how < 2:
            connection.send((RELEASE, ABORTED)[how])
            with contextlib.suppress(ClosedError):
                connection.receive(_GRACE_SECONDS)
        connection.close(reset=how == 3)


class _Heard:
    """What the node says on an association; it is given what it asks for."""

    def __init__(self, connection: Connection, rng: Random) -> None:
        self._connection = connection
        self._rng = rng
        self._command = b""
        self._awaits_data: tuple[int, Mapping[int, bytes]] | None = None
        self._stored: list[str] = []

    def kept(self, sent: bytes) -> dict[str, bytes]:
        """What the node said it stored of what was sent."""
        return dict.fromkeys(self._stored, _data_of(sent))

    def final(self, seconds: float) -> str | None:
        """Listen until the final response to a request, or the end; None where nothing comes in time."""
        while (came := self._connection.receive(seconds)) is not None:
            kind, content = came
            if kind == ABORT:
                return "aborted"
            if kind != P_DATA:
                return f"PDU {kind}"
            for context, control, fragment in read_pdvs(content):
                answer = self._take(context, control, fragment)
                if answer is not None:
                    return answer
        return None

    def _take(self, context: int, control: int, fragment: bytes) -> str | None:
        if not control & COMMAND:
            if control & LAST and self._awaits_data is not None:
                self._reply(*self._awaits_data)
                self._awaits_data = None
            return None
        self._command += fragment
        if not control & LAST:
            return None
        command, self._command = read_command(self._command), b""
        field, status = _number(command, 0x0100), _number(command, 0x0900)
        if not field & RESPONSE:  # a sub-operation of a C-GET
            self._awaits_data = (context, command)
            return None
        if status in _PENDING:
            return None
        if field == C_STORE | RESPONSE and status == 0:
            self._stored.append(command.get(0x1000, b"").rstrip(b"\0").decode("ascii", "replace"))
        return _answer(field, status, _number(command, 0x0120))

    def _reply(self, context: int, command: Mapping[int, bytes]) -> None:
        """Answer a C-STORE that the node sends, now and then wrongly."""
        elements = [
            element(0x0002, command.get(0x0002, b"")),
            element(0x0100, C_STORE | RESPONSE),
            element(0x0120, command.get(0x0110, b"")),
            element(0x0800, NO_DATA_SET),
            element(0x0900, self._rng.choice([0, 0, 0, 0, 0, 0xA700, 0xB000, 0x1234])),
            element(0x1000, command.get(0x1000, b"")),
        ]
        if self._rng.random() < 0.2:
            del elements[self._rng.randrange(len(elements))]
        self._connection.send(pdu(P_DATA, pdv(context, COMMAND | LAST, with_group_length(elements))))


def _number(command: Mapping[int, bytes], element_number: int) -> int:
    return int.from_bytes(command.get(element_number, b"")[:2], "little")


def _answer(field: int, status: int, message_id: int) -> str:
    if field == C_ECHO | RESPONSE and message_id == _ECHO_ID:
        return _ECHO_ANSWERED
    return f"0x{status:04X}"


def _data_of(sent: bytes) -> bytes:
    """The data set of the first message."""
    data, at = b"", 0
    while at + 6 <= len(sent):
        (length,) = struct.unpack_from(">L", sent, at + 2)
        for _, control, fragment in read_pdvs(sent[at + 6 : at + 6 + length]):
            data += b"" if control & COMMAND else fragment
            if control & (COMMAND | LAST) == LAST:
                return data
        at += 6 + length
    return data


def echo_seconds(port: int) -> float:
    """Associate, send a C-ECHO, and return how long that took. Raises HangError."""
    began = time.monotonic()
    connection = Connection(port)
    try:
        connection.send(REQUEST)
        connection.receive(LIMIT_SECONDS)
        connection.send(_ECHO)
        if _Heard(connection, Random(0)).final(LIMIT_SECONDS) != _ECHO_ANSWERED:
            raise HangError("a C-ECHO was not answered")
        return time.monotonic() - began
    except ClosedError as exc:
        raise HangError("a C-ECHO was not answered") from exc
    finally:
        connection.close()
