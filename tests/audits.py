"""Audit messages as a receiver sees them: held against the schema of PS3.15 A.5.1, and their fields."""

import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

_CODE = ("csd-code codeSystemName originalText", "displayName", "")
# Of each element: attributes that it must have, those that it may have, and its children in their order.
_SCHEMA: dict[str, tuple[str, str, str]] = {
    "AuditMessage": (
        "",
        "",
        "EventIdentification (ActiveParticipant )+AuditSourceIdentification "
        "(ParticipantObjectIdentification )*",
    ),
    "EventIdentification": (
        "EventDateTime EventOutcomeIndicator",
        "EventActionCode",
        "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    ),
    "EventID": _CODE,
    "EventTypeCode": _CODE,
    "ActiveParticipant": (
        "UserID UserIsRequestor",
        "AlternativeUserID UserName NetworkAccessPointID NetworkAccessPointTypeCode",
        "(RoleIDCode )*(MediaIdentifier )?",
    ),
    "RoleIDCode": _CODE,
    "AuditSourceIdentification": ("AuditSourceID", "AuditEnterpriseSiteID", "(AuditSourceTypeCode )*"),
    "AuditSourceTypeCode": ("csd-code", "codeSystemName originalText displayName", ""),
    "ParticipantObjectIdentification": (
        "ParticipantObjectID",
        "ParticipantObjectTypeCode ParticipantObjectTypeCodeRole ParticipantObjectDataLifeCycle "
        "ParticipantObjectSensitivity",
        "ParticipantObjectIDTypeCode (ParticipantObjectName |ParticipantObjectQuery )"
        "(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    ),
    "ParticipantObjectIDTypeCode": _CODE,
    "ParticipantObjectName": ("", "", ""),
    "ParticipantObjectQuery": ("", "", ""),
    "ParticipantObjectDetail": ("type value", "", ""),
    "ParticipantObjectDescription": ("", "", "(MPPS )*(Accession )*(SOPClass )*"),
    "SOPClass": ("NumberOfInstances", "UID", "(Instance )*"),
}
_VALUES = {
    "EventActionCode": "[CRUDE]",
    "EventOutcomeIndicator": "0|4|8|12",
    "UserIsRequestor": "true|false",
    "NetworkAccessPointTypeCode": "[1-5]",
    "ParticipantObjectTypeCode": "[1-4]",
    "ParticipantObjectTypeCodeRole": "[1-9]|1[0-9]|2[0-6]",
    "NumberOfInstances": "[0-9]+",
}


def check(element: Element) -> None:
    """Assert that an element is as the schema has it, with all below."""
    needed, allowed, children = _SCHEMA[element.tag]
    assert set(needed.split()) <= set(element.attrib) <= {*needed.split(), *allowed.split()}, element.tag
    assert re.fullmatch(f"{children} ?" if children else "", "".join(f"{it.tag} " for it in element)), (
        f"children of {element.tag}: {[it.tag for it in element]}"
    )
    for name, value in element.attrib.items():
        assert re.fullmatch(_VALUES.get(name, ".*"), value), (element.tag, name, value)
    for it in element:
        check(it)


@dataclass(frozen=True, kw_only=True)
class Told:
    """One message that is as the schema has it."""

    root: Element

    @property
    def event(self) -> str:
        return self.root[0][0].attrib["originalText"]

    @property
    def type(self) -> str | None:
        found = self.root.find("EventIdentification/EventTypeCode")
        return None if found is None else found.attrib["csd-code"]

    @property
    def action(self) -> str:
        return self.root[0].attrib["EventActionCode"]

    @property
    def outcome(self) -> int:
        return int(self.root[0].attrib["EventOutcomeIndicator"])

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(self.root[0].attrib["EventDateTime"])

    @property
    def source_id(self) -> str:
        return self.root.findall("AuditSourceIdentification")[0].attrib["AuditSourceID"]

    def participants(self) -> dict[str, tuple[str, str]]:
        """Of each role ("" for none): AE titles or else the user's ID, and where."""
        found = {}
        for it in self.root.findall("ActiveParticipant"):
            role = it.find("RoleIDCode")
            who = it.get("AlternativeUserID", it.attrib["UserID"])
            name = "" if role is None else role.attrib["originalText"]
            found[name] = (who, it.get("NetworkAccessPointID", ""))
        return found

    @property
    def requestor(self) -> str | None:
        """AE titles, or else the ID, of who asked for it: one at most."""
        asked = [it for it in self.root.findall("ActiveParticipant") if it.get("UserIsRequestor") == "true"]
        assert len(asked) <= 1
        return next((it.get("AlternativeUserID", it.attrib["UserID"]) for it in asked), None)

    def objects(self, kind: str) -> list[Element]:
        """Participant objects whose ID is of that kind."""
        return [
            it
            for it in self.root.findall("ParticipantObjectIdentification")
            if it[0].attrib["originalText"] == kind
        ]

    def ids(self, kind: str) -> list[str]:
        return [it.attrib["ParticipantObjectID"] for it in self.objects(kind)]

    def counts(self) -> dict[str, int]:
        """Number of instances by SOP Class UID, of all studies."""
        return {it.attrib["UID"]: int(it.attrib["NumberOfInstances"]) for it in self.root.iter("SOPClass")}

    @property
    def query(self) -> bytes:
        return b64decode(next(self.root.iter("ParticipantObjectQuery")).text or "", validate=True)

    def detail(self, kind: str) -> str:
        found = {it.attrib["type"]: it.attrib["value"] for it in self.root.iter("ParticipantObjectDetail")}
        return b64decode(found[kind], validate=True).decode()


def told(content: bytes) -> Told:
    """Parse a message and hold it against the schema and the general rules of A.5.2."""
    root = fromstring(content)
    check(root)
    message = Told(root=root)
    assert message.at.tzinfo is not None
    return message


def told_in(path: Path, *events: str) -> Sequence[Told]:
    """The messages of a file, of these events or all."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [it for it in map(told, lines) if not events or it.event in events]


def summary(messages: Sequence[Told]) -> list[tuple[Any, ...]]:
    """Event, action, outcome and requestor of each."""
    return [(it.event, it.action, it.outcome, it.requestor) for it in messages]
