"""What the self-check asks of rejection notes and of a report that nothing was segmented."""

from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.elements import PARSE_FAILURES
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.identity import check_identity, identity_of, read_identity
from gpnet_node.results.content import Content

_REJECTED_FOR_QUALITY = "113001"
_REJECTED_FOR_SAFETY = "113037"


def check_rejection(data: bytes, content: Content, findings: Findings) -> None:
    """The note rejects exactly the objects of the older result, in the source's study.

    Raises SelfCheckError where it cannot be read back, StorageError where the source cannot.
    """
    note = _read(data, "rejection note")
    check_identity("rejection note", note, read_identity(content.volume), findings)
    older = {it.sop_instance_uid for it in content.background.replaces}
    _check_named(note, _REJECTED_FOR_QUALITY, older, findings)


def check_withdrawal(data: bytes, result: Path, older: Collection[str]) -> None:
    """The note rejects exactly the objects of the older result, of which ``result`` is one, in its study.

    Raises SelfCheckError, and StorageError where the result cannot be read.
    """
    note, findings = _read(data, "rejection note"), Findings()
    check_identity("rejection note", note, identity_of(result), findings)
    _check_named(note, _REJECTED_FOR_SAFETY, set(older), findings)
    findings.raise_any()


def _check_named(note: Dataset, wanted: str, older: set[str], findings: Findings) -> None:
    title = note.ConceptNameCodeSequence[0].CodeValue
    findings.expect(title == wanted, f"the rejection note is titled {title}")
    named = set(_named(note))
    findings.expect(
        named == older, f"the rejection note names {len(named & older)} of {len(older)} objects, and "
        f"{len(named - older)} others",
    )  # fmt: skip


def check_refusal(data: bytes, source: Path, reason: str) -> None:
    """The report is of the source's patient and study, and gives the reason. Raises SelfCheckError."""
    report, findings = _read(data, "report of a refusal"), Findings()
    check_identity("report of a refusal", report, identity_of(source), findings)
    findings.expect(
        any(reason in text for text in _texts(report)), "the report of a refusal does not give the reason"
    )
    findings.raise_any()


def _read(data: bytes, name: str) -> Dataset:
    try:
        dataset = dcmread(BytesIO(data))
        dataset.decode()
    except PARSE_FAILURES as exc:
        raise SelfCheckError(f"the {name} cannot be read back ({type(exc).__name__})") from exc
    return dataset


def _named(note: Dataset) -> Iterator[str]:
    for item in note.ContentSequence:
        for reference in item.get("ReferencedSOPSequence", []):
            yield str(reference.ReferencedSOPInstanceUID)


def _texts(item: Dataset) -> Iterator[str]:
    if "TextValue" in item:
        yield str(item.TextValue)
    for child in item.get("ContentSequence", []):
        yield from _texts(child)
