"""What is told to the audit trail, in the words of those who report it (PS3.15 A.5.3).

A transfer is told once for an association, or a request, and a study: how many instances of which class,
whose, from whom to whom at whose request. What could not be sent is told apart, with another outcome.
Of a process that is killed, the transfers on associations that were open are not told.
"""

import os
import pwd
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol
from xml.etree.ElementTree import Element

from gpnet_node.audit import message as xml
from gpnet_node.audit.backlog import Backlog, Write
from gpnet_node.audit.destination import AuditFile, Syslog
from gpnet_node.audit.message import Code, Event, Outcome, Party
from gpnet_node.config import NodeConfig
from gpnet_node.tls import calling

_CLOSE_SECONDS = 3.0


class _Instance(Protocol):
    @property
    def study_uid(self) -> str: ...
    @property
    def patient_id(self) -> str: ...
    @property
    def sop_class_uid(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """What the trail says of an instance; how many there are of it is counted."""

    study_uid: str
    patient_id: str
    sop_class_uid: str

    @classmethod
    def of(cls, it: _Instance) -> "Traced":
        """Take it from a header, or from an instance of the catalogue."""
        return cls(study_uid=it.study_uid, patient_id=it.patient_id, sop_class_uid=it.sop_class_uid)


def peer(ae_title: str, host: str) -> Party:
    """Return a peer, known by its AE title."""
    return Party(user_id=ae_title, ae_title=ae_title, host=host)


def client(host: str) -> Party:
    """Return who asks over HTTP, known by its address alone."""
    return Party(user_id=host, host=host)


def open_trail(node: NodeConfig, *, owner: str, clock: Callable[[], datetime]) -> "Trail":
    """Return the trail that the configuration asks for; without ``[audit]`` one that writes nothing.

    ``owner`` names this process, its role first.
    """
    return Trail(ae_title=node.ae_title, owner=owner, write=_write(node), clock=clock)


def _write(node: NodeConfig) -> Write | None:
    audit = node.audit
    if audit is None:
        return None
    if audit.file is not None:
        return AuditFile(audit.file)
    return Syslog(audit.address, partial(calling, node.tls) if audit.tls else None)


class Trail:
    """Reports what happens; safe to use from several threads. Without ``write`` it does nothing."""

    def __init__(
        self, *, ae_title: str, owner: str, write: Write | None, clock: Callable[[], datetime]
    ) -> None:
        self._us = Party(user_id=owner, ae_title=ae_title, host=socket.gethostname())
        self._source_id = f"{owner.partition(' ')[0]}@{ae_title}"
        self._backlog = Backlog(write) if write is not None else None
        self._clock = clock

    @property
    def is_on(self) -> bool:
        """Whether it writes, so that what only it needs to know must be found out."""
        return self._backlog is not None

    def close(self) -> None:
        """Write what waits, for a few seconds at most."""
        if self._backlog is not None:
            self._backlog.close(seconds=_CLOSE_SECONDS)

    # -- the process -----------------------------------------------------------------------------------------

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Tell that a role begins, and that it ends, in order or by an error (A.5.3.1)."""
        self._activity(xml.APPLICATION_START, Outcome.SUCCESS)
        in_order = False
        try:
            yield
            in_order = True
        finally:
            self.ended(in_order=in_order)

    def ended(self, *, in_order: bool) -> None:
        """Tell that the role ends, and close."""
        self._activity(xml.APPLICATION_STOP, Outcome.SUCCESS if in_order else Outcome.SERIOUS_FAILURE)
        self.close()

    def _activity(self, kind: Code, outcome: Outcome) -> None:
        event = Event(id=xml.APPLICATION_ACTIVITY, action="E", at=self._clock(), type=kind, outcome=outcome)
        self._tell(event, [xml.participant(self._us, role=xml.APPLICATION)])

    # -- transfers -------------------------------------------------------------------------------------------

    def received(self, sender: Party, contents: Mapping[Traced, int], *, new: bool) -> None:
        """Tell what a peer stored here; not ``new``: equal ones were here already (A.5.3.7)."""
        self._transfer(xml.INSTANCES_TRANSFERRED, "C" if new else "R", sender, self._us, sender, contents)

    def begins_to_send(
        self, to: Party, contents: Mapping[Traced, int], *, asked_by: Party | None = None
    ) -> None:
        """Tell what is to be sent (A.5.3.3). ``asked_by``: whose wish it is, if not this node's own."""
        self._transfer(xml.BEGIN_TRANSFERRING, "E", self._us, to, asked_by or self._us, contents)

    def sent(
        self,
        to: Party,
        contents: Mapping[Traced, int],
        *,
        failed: Mapping[Traced, int],
        asked_by: Party | None = None,
    ) -> None:
        """Tell what was sent, and what was not (A.5.3.7); whether the receiver had it is not known."""
        told = partial(self._transfer, xml.INSTANCES_TRANSFERRED, "R", self._us, to, asked_by or self._us)
        told(contents)
        told(failed, Outcome.SERIOUS_FAILURE)

    def _transfer(
        self,
        what: Code,
        action: str,
        source: Party,
        destination: Party,
        requestor: Party,
        contents: Mapping[Traced, int],
        outcome: Outcome = Outcome.SUCCESS,
    ) -> None:
        for (study_uid, patient_id), counts in _by_study(contents).items():
            participants = [
                xml.participant(source, role=xml.SOURCE, requests=requestor == source),
                xml.participant(destination, role=xml.DESTINATION, requests=requestor == destination),
            ]
            if requestor not in (source, destination):
                participants.append(xml.participant(requestor, requests=True))
            event = Event(id=what, action=action, at=self._clock(), outcome=outcome)
            self._tell(event, participants, xml.study(study_uid, counts), xml.patient(patient_id))

    # -- questions -------------------------------------------------------------------------------------------

    def queried(
        self, by: Party, sop_class_uid: str, identifier: bytes, *, transfer_syntax_uid: str, answered: bool
    ) -> None:
        """Tell of a C-FIND, with its identifier as it came (A.5.3.10)."""
        details = {"TransferSyntax": transfer_syntax_uid}
        self._query(by, xml.query(sop_class_uid, xml.SOP_CLASS_UID, identifier, **details), answered)

    def searched(self, by: Party, path: str, query: bytes, *, answered: bool) -> None:
        """Tell of a search over HTTP: its path, and its query as it came (A.5.3.10)."""
        self._query(by, xml.query(path, xml.SEARCH_CRITERIA, query), answered)

    def _query(self, by: Party, asked: Element, answered: bool) -> None:
        outcome = Outcome.SUCCESS if answered else Outcome.SERIOUS_FAILURE
        participants = [
            xml.participant(by, role=xml.SOURCE, requests=True),
            xml.participant(self._us, role=xml.DESTINATION),
        ]
        event = Event(id=xml.QUERY, action="E", at=self._clock(), outcome=outcome)
        self._tell(event, participants, asked)

    # -- who is kept out, and who decides --------------------------------------------------------------------

    def refused(self, caller: Party, sentence: str) -> None:
        """Tell that somebody was turned away for what he is not (A.5.3.11): a failure that did no harm."""
        event = Event(
            id=xml.SECURITY_ALERT,
            action="E",
            at=self._clock(),
            type=xml.NODE_AUTHENTICATION,
            outcome=Outcome.MINOR_FAILURE,
        )
        participants = [xml.participant(self._us), xml.participant(caller)]
        self._tell(event, participants, xml.subject(caller.host, sentence))

    def decided(self, verb: str, contents: Mapping[Traced, int]) -> None:
        """Tell what the operator did with a job, as an update of the images of its series (A.5.3.6).

        No event of the standard is about releasing or rejecting results; it is told by the event's type.
        """
        code = Code(value=verb, meaning=f"{verb} a job", system="99GPNET")
        participants = [xml.participant(_operator(), requests=True), xml.participant(self._us)]
        self._access("U", participants, contents, code)

    def removed(self, contents: Mapping[Traced, int]) -> None:
        """Tell that instances were deleted because they are old (A.5.3.6).

        Study Deleted (A.5.3.5) is about a whole study; the node removes series.
        """
        self._access("D", [xml.participant(self._us, requests=True)], contents)

    def _access(
        self,
        action: str,
        participants: list[Element],
        contents: Mapping[Traced, int],
        code: Code | None = None,
    ) -> None:
        for (study_uid, patient_id), counts in _by_study(contents).items():
            event = Event(id=xml.INSTANCES_ACCESSED, action=action, at=self._clock(), type=code)
            self._tell(event, participants, xml.study(study_uid, counts), xml.patient(patient_id))

    def _tell(self, event: Event, participants: list[Element], *objects: Element) -> None:
        if self._backlog is not None:
            content = xml.message(event, participants, objects, source_id=self._source_id)
            self._backlog.put(content, event.at, event.outcome)


def _by_study(contents: Mapping[Traced, int]) -> Mapping[tuple[str, str], Mapping[str, int]]:
    """Divide by study and patient, of whom a message names one: how many instances of each SOP class."""
    studies: dict[tuple[str, str], Counter[str]] = {}
    for it, count in contents.items():
        studies.setdefault((it.study_uid, it.patient_id), Counter())[it.sop_class_uid] += count
    return studies


def _operator() -> Party:
    """Return the person at the terminal, also behind sudo; without one, the account."""
    host = socket.gethostname()
    try:
        name = os.getlogin()
    except OSError:
        account = os.getuid()
        try:
            name = pwd.getpwuid(account).pw_name
        except KeyError:
            name = str(account)
    return Party(user_id=f"{name}@{host}", host=host)
