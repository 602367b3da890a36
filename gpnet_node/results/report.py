"""Writes the measurements as a structured report: TID 1500 (PS3.16) in a Comprehensive 3D SR."""

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.model.card import Code, ModelCard
from gpnet_node.results import codes
from gpnet_node.results.codes import concept
from gpnet_node.results.content import Content
from gpnet_node.results.header import RESEARCH_STATEMENT, finish
from gpnet_node.results.identifiers import MANUFACTURER, JobIdentity, content_digest, device_uid, uid
from gpnet_node.results.measure import ASYMMETRY_FORMULA, Measurement
from gpnet_node.results.seg import algorithm_parameters
from gpnet_node.results.source import Source, read_source

_Value = tuple[Code, float, Code, Code | None]
CONTAINS = sr.RelationshipTypeValues.CONTAINS
INFERRED_FROM = sr.RelationshipTypeValues.INFERRED_FROM

# What is written is rounded to this; finer digits than the voxels allow would only look exact.
DECIMALS = {"mm3": 2, "mm": 3, "%": 2, "1": 3}


def write_report(content: Content, seg: Dataset) -> Dataset:
    """Write one TID 1411 group per segment of ``seg``, in the card's order.

    Each group names the segment, its site and side, and gives volume (mm3), centre of mass (a point in
    the source's frame of reference, and its three coordinates as numbers in mm; where a plan tells the
    commissures, its place relative to them too), mean and standard deviation of the signal, left-right
    asymmetry (%), predicted Dice and entropy, and the algorithm. What an empty structure cannot have is left
    out, and a comment says so. Why the series was thought complete, what the gate remarked and why a person
    must look at the result become texts (TID 1500, Extensible).

    Evidence lists every source instance and the segmentation; a report that this one replaces is named as
    predecessor (PS3.3 C.17.2). Raises as ``read_source``.
    """
    card, job = content.card, content.job
    source = read_source(content.volume)
    groups = [_values(content, measurement) for measurement in content.measurements]
    texts = list(_texts(content))
    replaced = [it for it in content.background.replaces if it.kind == "sr"]
    digest = content_digest(
        content.labels, card, job, str(seg.SOPInstanceUID), repr(groups), repr(texts), repr(replaced)
    )
    frame_of_reference_uid = str(seg.FrameOfReferenceUID)
    root = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer(card, job)),
        procedure_reported=concept(codes.MR_IMAGING),
        imaging_measurements=[
            _group(measurement, values, seg, source, card, frame_of_reference_uid)
            for measurement, values in zip(content.measurements, groups, strict=True)
        ],
    )
    root[0].ContentSequence.extend(sr.TextContentItem(concept(c), text, CONTAINS) for c, text in texts)
    report = sr.Comprehensive3DSR(
        evidence=[*source.evidence(), _evidence_of(seg)],
        content=root,
        series_instance_uid=uid(job, "sr series", digest),
        series_number=source.result_series_number(2),
        sop_instance_uid=uid(job, "sr", digest),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=[source.blank(it) for it in replaced] or None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    report.CodingSchemeIdentificationSequence = [codes.uberon(), codes.private_scheme()]
    finish(report, source, card, job, "GP-net measurements")
    return report


def observer(card: ModelCard, job: JobIdentity) -> sr.ObserverContext:
    """This node is the observer, no person is (TID 1002, 1004)."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(job),
        name=job.node_ae_title,
        manufacturer_name=MANUFACTURER,
        model_name=card.name,
        serial_number=job.node_ae_title,
    )
    return sr.ObserverContext(observer_type=concept(codes.DEVICE), observer_identifying_attributes=device)


def _group(
    measurement: Measurement,
    values: Sequence[_Value],
    seg: Dataset,
    source: Source,
    card: ModelCard,
    frame_of_reference_uid: str,
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    structure = measurement.structure
    segment = next(item for item in seg.SegmentSequence if item.SegmentNumber == structure.number)
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=structure.number,
            source_series=sr.SourceSeriesForSegmentation(source.series_instance_uid),
        ),
        finding_category=concept(structure.category),
        finding_type=concept(structure.type),
        finding_sites=[
            sr.FindingSite(
                anatomic_location=concept(structure.region), laterality=concept(structure.laterality)
            )
        ],
        algorithm_id=_algorithm(card),
        measurements=list(_numbers(values)),
    )
    if measurement.centroid_mm is not None:
        # TID 1411 is extensible and has no row for a point inside the region: it stands beside the numbers.
        group[0].ContentSequence.append(
            sr.Scoord3DContentItem(
                name=concept(codes.CENTRE_OF_MASS),
                graphic_type=sr.GraphicTypeValues3D.POINT,
                graphic_data=np.round(np.array([measurement.centroid_mm]), DECIMALS["mm"]),
                frame_of_reference_uid=frame_of_reference_uid,
                relationship_type=CONTAINS,
            )
        )
    return group


def _algorithm(card: ModelCard) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=card.name,
        version=card.version,
        # One text for all: readers keep one.
        parameters=[", ".join(f"{name}={value}" for name, value in algorithm_parameters(card).items())],
        family=concept(codes.ARTIFICIAL_INTELLIGENCE),
    )


def _values(content: Content, measurement: Measurement) -> list[_Value]:
    """What is measured, how much, in which unit, and how it was derived; what is not known is left out."""
    x, y, z = measurement.centroid_mm or (None, None, None)
    position, name = content.position(measurement), measurement.structure.name
    found: list[tuple[Code, float | None, Code, Code | None]] = [
        (codes.VOLUME, measurement.volume_mm3, codes.CUBIC_MM, None),
        (codes.CENTRE_X, x, codes.MM, None),
        (codes.CENTRE_Y, y, codes.MM, None),
        (codes.CENTRE_Z, z, codes.MM, None),
        (codes.SIGNAL, measurement.signal_mean, codes.NO_UNITS, codes.MEAN),
        (codes.SIGNAL, measurement.signal_sd, codes.NO_UNITS, codes.STANDARD_DEVIATION),
        (codes.ASYMMETRY, measurement.asymmetry_percent, codes.PERCENT, None),
        (codes.PREDICTED_DICE, content.quality.predicted_dice.get(name), codes.NO_UNITS, None),
        (codes.ENTROPY, content.quality.entropy.get(name), codes.NO_UNITS, None),
    ]
    if position is not None:
        found += [(codes.AC_PC[key], mm, codes.MM, None) for key, mm in position._asdict().items()]
    return [(code, value, unit, how) for code, value, unit, how in found if value is not None]


def _numbers(values: Sequence[_Value]) -> Iterator[sr.Measurement]:
    for name, value, unit, derivation in values:
        number = sr.Measurement(
            name=concept(name),
            value=round(value, DECIMALS[unit.value]),
            unit=concept(unit),
            derivation=None if derivation is None else concept(derivation),
            method=concept(codes.SUM_OF_VOXELS) if name == codes.VOLUME else None,
        )
        if name == codes.ASYMMETRY:
            equation = sr.TextContentItem(concept(codes.EQUATION), ASYMMETRY_FORMULA, INFERRED_FROM)
            number[0].ContentSequence = sr.ContentSequence([equation])
        yield number


def _texts(content: Content) -> Iterator[tuple[Code, str]]:
    yield codes.COMMENT, RESEARCH_STATEMENT
    for measurement in content.measurements:
        if measurement.centroid_mm is None:
            name = measurement.structure.name
            yield codes.COMMENT, f"No voxel of {name} was found: it has no center of mass and no signal."
    if content.background.completeness:
        yield codes.COMPLETENESS, content.background.completeness
    yield from ((codes.GATE, note) for note in content.gate)
    yield from ((codes.REVIEW, reason) for reason in content.quality.reasons)


def _evidence_of(seg: Dataset) -> Dataset:
    """The segmentation as evidence, without its pixels: highdicom copies what it is given."""
    evidence = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(evidence, keyword, seg[keyword].value)
    return evidence
