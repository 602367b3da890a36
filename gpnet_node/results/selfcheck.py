"""Compares the written objects, decoded again by an independent path, with the label map they were made of.

Nothing leaves the node before this has passed.
"""

from collections.abc import Mapping, Sequence

from gpnet_node.model.card import ModelCard
from gpnet_node.result_profile import SegForm
from gpnet_node.results.check.burned_in import check_burned_in
from gpnet_node.results.check.capture import check_capture, check_pdf
from gpnet_node.results.check.decode import decode_report, decode_seg
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.identity import check_identity, read_identity
from gpnet_node.results.check.notes import check_rejection
from gpnet_node.results.check.report import check_report
from gpnet_node.results.check.rtstruct import check_rtstruct
from gpnet_node.results.check.seg import check_seg
from gpnet_node.results.check.surface import check_surfaces
from gpnet_node.results.check.truth import Truth, measure_again
from gpnet_node.results.content import Content
from gpnet_node.results.measure import Measurement, refuse_unmapped
from gpnet_node.results.written import WrittenObject


def check(objects: Sequence[WrittenObject], content: Content) -> None:
    """Check what was written against the label map, the volume and the model card.

    Compared: patient and study; of a segmentation its frame of reference, grid, segment codes, the position
    and source reference of every frame, every voxel, centre of mass, volume and side of every structure; of a
    report its references, evidence and every number in it. The tolerances stand, each with its reason, in
    ``results.check``.

    Raises SelfCheckError with one sentence for each thing that differs, StorageError where the source
    cannot be read again.
    """
    volume, labels, card = content.volume, content.labels, content.card
    refuse_unmapped(labels, card)
    truth = measure_again(volume, labels, card)
    findings = Findings()
    _check_sides(truth, card, findings)
    _check_measurements(content.measurements, truth, card, findings)
    _check_segmentations(objects, content, truth, findings)
    for it in objects:
        if it.kind == "rtstruct":
            check_rtstruct(it.content, volume, labels, truth, card, findings)
        elif it.kind == "capture":
            check_capture(it.content, it.picture, volume, findings)
        elif it.kind == "pdf":
            check_pdf(it.content, volume, findings)
        elif it.kind == "rejection":
            check_rejection(it.content, content, findings)
    images = [it.content for it in objects if it.kind == "mr"]
    if images:
        check_burned_in(images, volume, labels, card, findings)
    surfaces = [it.content for it in objects if it.kind == "stl"]
    if surfaces:
        check_surfaces(surfaces, volume, labels, truth, card, findings)
    findings.raise_any()


def _check_segmentations(
    objects: Sequence[WrittenObject], content: Content, truth: Mapping[int, Truth], findings: Findings
) -> None:
    """Each segmentation, and each report with the segmentation of its form."""
    volume, labels, card = content.volume, content.labels, content.card
    segs, identity = dict[SegForm | None, str](), read_identity(volume)
    for it in objects:
        if it.kind == "seg" and it.form is not None:
            seg = decode_seg(it.content)
            segs[it.form] = str(seg.dataset.SOPInstanceUID)
            check_seg(seg, volume, labels, truth, card, findings, it.form)
            check_identity("segmentation", seg.dataset, identity, findings)
        elif it.kind == "sr":
            report = decode_report(it.content)
            check_report(report, segs.get(it.form, "none"), content, truth, findings)
            check_identity("report", report.dataset, identity, findings)


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
