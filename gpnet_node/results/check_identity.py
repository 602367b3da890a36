"""What the self-check asks of any object: the source's patient and study, and that it says RESEARCH."""

from pydicom import Dataset, dcmread

from gpnet_node.errors import StorageError
from gpnet_node.imaging.volume import Volume
from gpnet_node.results.findings import Findings

_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID")


def check_identity(dataset: Dataset, name: str, volume: Volume, findings: Findings) -> None:
    """Compare patient and study with the source's. The sentences name attributes, never their values.

    Raises StorageError where the source cannot be read again.
    """
    tags = [*_IDENTITY, "SpecificCharacterSet"]
    try:
        source = dcmread(volume.frames[0].path, stop_before_pixels=True, specific_tags=tags)
    except OSError as exc:
        raise StorageError(f"{volume.frames[0]} cannot be read again: {exc.strerror}") from exc
    for keyword in _IDENTITY:
        same = str(dataset.get(keyword) or "") == str(source.get(keyword) or "")
        findings.expect(same, f"the {name}'s {keyword} is not the source's")
    findings.expect(
        dataset.get("ContentQualification") == "RESEARCH", f"the {name} does not say that it is RESEARCH"
    )
    findings.expect(
        "RESEARCH" in str(dataset.get("SeriesDescription")), f"the {name}'s series does not say RESEARCH"
    )
