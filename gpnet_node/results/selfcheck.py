"""Compares the written objects, decoded again by an independent path, with the label map they were made of.

Nothing leaves the node before this has passed.
"""

from collections.abc import Mapping, Sequence

from pydicom import Dataset, dcmread

from gpnet_node.errors import StorageError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.results.check_report import check_report
from gpnet_node.results.check_seg import check_seg
from gpnet_node.results.decode import decode_report, decode_seg
from gpnet_node.results.findings import Findings
from gpnet_node.results.measure import Measurement, refuse_unmapped
from gpnet_node.results.truth import Truth, measure_again

_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID")


def check(
    seg_bytes: bytes,
    sr_bytes: bytes,
    volume: Volume,
    labels: LabelMap,
    measurements: Sequence[Measurement],
    card: ModelCard,
) -> None:
    """Check a segmentation and its report against the label map, the volume and the model card.

    Compared: patient and study, frame of reference, grid, segment codes, the position and source
    reference of every frame, every voxel, centre of mass, volume and side of every structure, the
    report's references, evidence and every number in it. The tolerances stand, each with its reason, in
    ``check_seg`` and ``check_report``.

    Raises SelfCheckError with one sentence for each thing that differs, StorageError where the source
    cannot be read again.
    """
    refuse_unmapped(labels, card)
    seg, report = decode_seg(seg_bytes), decode_report(sr_bytes)
    truth = measure_again(volume, labels, card)
    findings = Findings()
    _check_identity(seg.dataset, report.dataset, volume, findings)
    check_seg(seg, volume, labels, truth, card, findings)
    _check_sides(truth, card, findings)
    _check_measurements(measurements, truth, card, findings)
    check_report(report, str(seg.dataset.SOPInstanceUID), volume, truth, card, findings)
    findings.raise_any()


def _check_identity(seg: Dataset, report: Dataset, volume: Volume, findings: Findings) -> None:
    """Same patient and study, and both say RESEARCH. The sentences name attributes, never their values."""
    tags = [*_IDENTITY, "SpecificCharacterSet"]
    try:
        source = dcmread(volume.frames[0].path, stop_before_pixels=True, specific_tags=tags)
    except OSError as exc:
        raise StorageError(f"{volume.frames[0]} cannot be read again: {exc.strerror}") from exc
    for name, dataset in (("segmentation", seg), ("report", report)):
        for keyword in _IDENTITY:
            same = str(dataset.get(keyword) or "") == str(source.get(keyword) or "")
            findings.expect(same, f"the {name}'s {keyword} is not the source's")
        findings.expect(
            dataset.get("ContentQualification") == "RESEARCH", f"the {name} does not say that it is RESEARCH"
        )


def _check_sides(truth: Mapping[int, Truth], card: ModelCard, findings: Findings) -> None:
    """Left lies at larger x than right (LPS): each left structure against its counterpart."""
    for left in (structure for structure in card.structures if structure.side == "left"):
        for right in card.structures:
            here, there = truth[left.number].centroid_mm, truth[right.number].centroid_mm
            if right.side == "left" or right.type != left.type or here is None or there is None:
                continue
            findings.expect(
                float(here[0]) > float(there[0]),
                f"{left.name} lies to the patient's right of {right.name}: sides are exchanged",
            )


def _check_measurements(
    measurements: Sequence[Measurement], truth: Mapping[int, Truth], card: ModelCard, findings: Findings
) -> None:
    findings.expect(
        [measurement.structure for measurement in measurements] == list(card.structures),
        "the measurements are not those of the card's structures, in its order",
    )
    for measurement in measurements:
        expected = truth.get(measurement.structure.number)
        found = measurement.voxel_count
        findings.expect(
            expected is not None and found == expected.count,
            f"{measurement.structure.name}: measured {found} voxels, the label map has "
            f"{0 if expected is None else expected.count}",
        )
