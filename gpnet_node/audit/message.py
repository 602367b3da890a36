"""Audit messages as XML, in the order of the schema of PS3.15 A.5.1, filled by the tables of A.5.2 and A.5.3.

What comes from a peer may hold anything; what XML cannot hold is replaced, and no message has a line break.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from ipaddress import ip_address
from xml.etree.ElementTree import Element, SubElement, tostring

_UNFIT = re.compile("[^ -~\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2, less line breaks


class Outcome(IntEnum):
    """EventOutcomeIndicator (A.5.2)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded value of a terminology (CodedValueType)."""

    value: str
    meaning: str
    system: str = "DCM"


# CID 400, Audit Event ID
APPLICATION_ACTIVITY = Code(value="110100", meaning="Application Activity")
BEGIN_TRANSFERRING = Code(value="110102", meaning="Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code(value="110103", meaning="DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code(value="110104", meaning="DICOM Instances Transferred")
QUERY = Code(value="110112", meaning="Query")
SECURITY_ALERT = Code(value="110113", meaning="Security Alert")

# CID 401, Audit Event Type Code
APPLICATION_START = Code(value="110120", meaning="Application Start")
APPLICATION_STOP = Code(value="110121", meaning="Application Stop")
NODE_AUTHENTICATION = Code(value="110126", meaning="Node Authentication")

# CID 402, Audit Active Participant Role ID Code
APPLICATION = Code(value="110150", meaning="Application")
DESTINATION = Code(value="110152", meaning="Destination Role ID")
SOURCE = Code(value="110153", meaning="Source Role ID")

# CID 404, Audit Participant Object ID Type Code, and those of RFC 3881
STUDY_INSTANCE_UID = Code(value="110180", meaning="Study Instance UID")
SOP_CLASS_UID = Code(value="110181", meaning="SOP Class UID")
NODE_ID = Code(value="110182", meaning="Node ID")
PATIENT_NUMBER = Code(value="2", meaning="Patient Number", system="RFC-3881")
SEARCH_CRITERIA = Code(value="10", meaning="Search Criteria", system="RFC-3881")

_PERSON, _SYSTEM = "1", "2"  # ParticipantObjectTypeCode
_PATIENT, _REPORT, _SECURITY_RESOURCE = "1", "3", "13"  # ParticipantObjectTypeCodeRole
_MACHINE_NAME, _IP_ADDRESS = "1", "2"  # NetworkAccessPointTypeCode
_APPLICATION_SERVER = "4"  # AuditSourceTypeCode


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened. ``action``: C(reate), R(ead), U(pdate), D(elete) or E(xecute)."""

    id: Code
    action: str
    at: datetime  # with its zone (A.5.2.5)
    type: Code | None = None
    outcome: Outcome = Outcome.SUCCESS


@dataclass(frozen=True, kw_only=True)
class Party:
    """Who takes part: a process, a peer by its AE title, or a person. ``host``: its address or machine."""

    user_id: str
    ae_title: str = ""
    host: str = ""


def message(
    event: Event, participants: Iterable[Element], objects: Iterable[Element] = (), *, source_id: str
) -> bytes:
    """Return one message, in ASCII with character references and without a line break."""
    root = Element("AuditMessage")
    identification = SubElement(
        root,
        "EventIdentification",
        EventActionCode=event.action,
        EventDateTime=event.at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(event.outcome)),
    )
    _add_code(identification, "EventID", event.id)
    if event.type is not None:
        _add_code(identification, "EventTypeCode", event.type)
    root.extend(participants)
    source = SubElement(root, "AuditSourceIdentification", AuditSourceID=_fit(source_id))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    root.extend(objects)
    content: bytes = tostring(root, encoding="us-ascii")
    return content


def participant(party: Party, *, role: Code | None = None, requests: bool = False) -> Element:
    """Return who takes part; ``requests``: it asked for what happened, which one at most did."""
    element = Element("ActiveParticipant", UserID=_fit(party.user_id), UserIsRequestor=str(requests).lower())
    if party.ae_title:
        element.set("AlternativeUserID", f"AETITLES={_fit(party.ae_title)}")
    if party.host:
        element.set("NetworkAccessPointID", _fit(party.host))
        element.set("NetworkAccessPointTypeCode", _IP_ADDRESS if _is_ip(party.host) else _MACHINE_NAME)
    if role is not None:
        _add_code(element, "RoleIDCode", role)
    return element


def study(study_uid: str, counts: Mapping[str, int]) -> Element:
    """Return a study; ``counts``: of its instances that this is about, by SOP Class UID."""
    element = _object(study_uid, STUDY_INSTANCE_UID, _SYSTEM, _REPORT, name=study_uid)
    description = SubElement(element, "ParticipantObjectDescription")
    for sop_class_uid, count in sorted(counts.items()):
        SubElement(description, "SOPClass", UID=_fit(sop_class_uid), NumberOfInstances=str(count))
    return element


def patient(patient_id: str) -> Element:
    """Return a patient. The name that the schema asks for is left empty: the ID says who."""
    return _object(patient_id, PATIENT_NUMBER, _PERSON, _PATIENT, name="")


def query(asked: str, id_type: Code, content: bytes, **details: str) -> Element:
    """Return a query: of what, and as it came over the network."""
    element = _object(asked, id_type, _SYSTEM, _REPORT)
    SubElement(element, "ParticipantObjectQuery").text = b64encode(content).decode()
    _add_details(element, details)
    return element


def subject(host: str, sentence: str) -> Element:
    """Return the node that an alert is about, and why there is one."""
    element = _object(host, NODE_ID, _SYSTEM, _SECURITY_RESOURCE, name=host)
    _add_details(element, {"Alert Description": sentence})
    return element


def _object(object_id: str, id_type: Code, type_code: str, role: str, name: str | None = None) -> Element:
    element = Element(
        "ParticipantObjectIdentification",
        ParticipantObjectID=_fit(object_id),
        ParticipantObjectTypeCode=type_code,
        ParticipantObjectTypeCodeRole=role,
    )
    _add_code(element, "ParticipantObjectIDTypeCode", id_type)
    if name is not None:
        SubElement(element, "ParticipantObjectName").text = _fit(name)
    return element


def _add_details(parent: Element, details: Mapping[str, str]) -> None:
    for kind, value in details.items():
        encoded = b64encode(value.encode("utf-8", "replace")).decode()
        SubElement(parent, "ParticipantObjectDetail", type=kind, value=encoded)


def _add_code(parent: Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning}
    SubElement(parent, name, attributes)


def _fit(text: str) -> str:
    return _UNFIT.sub("\ufffd", text)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
