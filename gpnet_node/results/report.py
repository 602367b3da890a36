"""Writes the measurements as a structured report: TID 1500 (PS3.16) in a Comprehensive 3D SR."""

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import Code, ModelCard
from gpnet_node.results import codes
from gpnet_node.results.codes import concept
from gpnet_node.results.header import RESEARCH_STATEMENT, finish
from gpnet_node.results.identifiers import MANUFACTURER, JobIdentity, content_digest, device_uid, uid
from gpnet_node.results.measure import ASYMMETRY_FORMULA, Measurement
from gpnet_node.results.seg import algorithm_parameters
from gpnet_node.results.source import Source, read_source

CONTAINS = sr.RelationshipTypeValues.CONTAINS
INFERRED_FROM = sr.RelationshipTypeValues.INFERRED_FROM

# What is written is rounded to this; finer digits than the voxels allow would only look exact.
DECIMALS = {"mm3": 2, "mm": 3, "%": 2, "1": 3}


def write_report(
    volume: Volume,
    labels: LabelMap,
    measurements: Sequence[Measurement],
    seg: Dataset,
    card: ModelCard,
    job: JobIdentity,
    *,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Write one TID 1411 group per segment of ``seg``, in the card's order.

    Each group names the segment, its site and side, and gives volume (mm3), centre of mass (a point in
    the source's frame of reference, and its three coordinates as numbers in mm), mean and standard
    deviation of the signal, left-right asymmetry (%) and the algorithm. What an empty structure cannot
    have is left out, and a comment says so. ``notes`` become comments (TID 1500, Extensible).

    Evidence lists every source instance and the segmentation. Raises as ``read_source``.
    """
    source = read_source(volume)
    values = repr([_values(measurement) for measurement in measurements])
    digest = content_digest(labels, card, job, str(seg.SOPInstanceUID), values, *notes)
    frame_of_reference_uid = str(seg.FrameOfReferenceUID)
    content = sr.MeasurementReport(
        observation_context=_observer(card, job),
        procedure_reported=concept(codes.MR_IMAGING),
        imaging_measurements=[
            _group(measurement, seg, source, card, frame_of_reference_uid) for measurement in measurements
        ],
    )
    content[0].ContentSequence.extend(_comments(measurements, notes))
    report = sr.Comprehensive3DSR(
        evidence=[*source.evidence(), _evidence_of(seg)],
        content=content,
        series_instance_uid=uid(job, "sr series", digest),
        series_number=source.result_series_number(2),
        sop_instance_uid=uid(job, "sr", digest),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    report.CodingSchemeIdentificationSequence = [codes.uberon(), codes.private_scheme()]
    finish(report, source, card, job, "GP-net measurements")
    return report


def _observer(card: ModelCard, job: JobIdentity) -> sr.ObservationContext:
    """This node is the observer, no person is (TID 1001, 1004)."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(job),
        name=job.node_ae_title,
        manufacturer_name=MANUFACTURER,
        model_name=card.name,
        serial_number=job.node_ae_title,
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
            observer_identifying_attributes=device,
        )
    )


def _group(
    measurement: Measurement, seg: Dataset, source: Source, card: ModelCard, frame_of_reference_uid: str
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
        measurements=list(_numbers(measurement)),
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


def _values(measurement: Measurement) -> list[tuple[Code, float | None, Code, Code | None]]:
    """What is measured, how much, in which unit, and how it was derived."""
    x, y, z = measurement.centroid_mm or (None, None, None)
    return [
        (codes.VOLUME, measurement.volume_mm3, codes.CUBIC_MM, None),
        (codes.CENTRE_X, x, codes.MM, None),
        (codes.CENTRE_Y, y, codes.MM, None),
        (codes.CENTRE_Z, z, codes.MM, None),
        (codes.SIGNAL, measurement.signal_mean, codes.NO_UNITS, codes.MEAN),
        (codes.SIGNAL, measurement.signal_sd, codes.NO_UNITS, codes.STANDARD_DEVIATION),
        (codes.ASYMMETRY, measurement.asymmetry_percent, codes.PERCENT, None),
    ]


def _numbers(measurement: Measurement) -> Iterator[sr.Measurement]:
    for name, value, unit, derivation in _values(measurement):
        if value is None:
            continue
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


def _comments(measurements: Sequence[Measurement], notes: Sequence[str]) -> list[sr.TextContentItem]:
    empty = [m.structure.name for m in measurements if m.centroid_mm is None]
    texts = [
        RESEARCH_STATEMENT,
        *(f"No voxel of {name} was found: it has no center of mass and no signal." for name in empty),
        *notes,
    ]
    return [sr.TextContentItem(concept(codes.COMMENT), text, CONTAINS) for text in texts]


def _evidence_of(seg: Dataset) -> Dataset:
    """The segmentation as evidence, without its pixels: highdicom copies what it is given."""
    evidence = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(evidence, keyword, seg[keyword].value)
    return evidence
