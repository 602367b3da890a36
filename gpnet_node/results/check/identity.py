"""What the self-check asks of every object: the source's patient and study, and the word RESEARCH."""

from pathlib import Path

from pydicom import Dataset, dcmread

from gpnet_node.errors import StorageError
from gpnet_node.imaging.volume import Volume
from gpnet_node.results.check.findings import Findings

_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID")


def read_identity(volume: Volume) -> Dataset:
    """Patient and study as the first source file names them. Raises StorageError where it cannot be read."""
    return identity_of(volume.frames[0].path)


def identity_of(path: Path) -> Dataset:
    """Patient and study as a file names them. Raises StorageError where it cannot be read."""
    tags = [*_IDENTITY, "SpecificCharacterSet"]
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except OSError as exc:
        raise StorageError(f"file {path.name} cannot be read again: {exc.strerror}") from exc


def check_identity(name: str, dataset: Dataset, source: Dataset, findings: Findings) -> None:
    """Compare with ``read_identity``. The sentences name attributes, never their values."""
    for keyword in _IDENTITY:
        same = str(dataset.get(keyword) or "") == str(source.get(keyword) or "")
        findings.expect(same, f"the {name}'s {keyword} is not the source's")
    findings.expect(
        dataset.get("ContentQualification") == "RESEARCH", f"the {name} does not say that it is RESEARCH"
    )
    findings.expect(
        "RESEARCH" in str(dataset.get("SeriesDescription")), f"the {name}'s series does not say RESEARCH"
    )
