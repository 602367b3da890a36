"""Writes a label map as an RT Structure Set (PS3.3 A.19): contours on the source slices."""

from collections.abc import Iterator

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.frames import Frame
from gpnet_node.imaging.volume import LabelMap, SourceFrame, Volume
from gpnet_node.model.card import ModelCard, Structure
from gpnet_node.results import codes
from gpnet_node.results.header import RESEARCH_STATEMENT, code_item, finish
from gpnet_node.results.identifiers import MANUFACTURER, JobIdentity, content_digest, uid
from gpnet_node.results.keyhole import keyhole
from gpnet_node.results.measure import refuse_other_grid, refuse_unmapped
from gpnet_node.results.outline import outlines
from gpnet_node.results.source import Source, read_source

LABEL = "GPNET_RESEARCH"
# The study is referenced as an instance of this retired class, for which there is no other (PS3.3 C.8.8.5).
DETACHED_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"
# Digits of a coordinate in mm: far below a pixel, and a value is no longer than 16 characters (DS).
DECIMALS = 4
# Explicit VR has two bytes for the length of a Decimal String (PS3.5 7.1.2).
MOST_BYTES = 65534


def write_rtstruct(volume: Volume, labels: LabelMap, card: ModelCard, job: JobIdentity) -> Dataset:
    """Write one ROI per structure of the card, its contours CLOSED_PLANAR in the source's own planes.

    Each contour lies on one source slice and names its instance (and frame). It is the smooth outline of
    ``results.outline``: filled again at the pixel centres it gives the label map. A part with a hole is one
    contour with a channel to the hole (keyhole, PS3.3 C.8.8.6.3), since that is the one way to draw a hole
    with CLOSED_PLANAR contours: receivers that unite the contours of a slice fill a separate inner one, and
    many do not know CLOSEDPLANAR_XOR. An empty structure is an ROI without contours. The same arguments give
    the same dataset at any time.

    Raises SelfCheckError for a label that the card does not name, another grid than the volume's or a
    contour that is too long for DICOM, UnreadableInstanceError or StorageError where a source file cannot be
    read again.
    """
    refuse_unmapped(labels, card)
    refuse_other_grid(volume, labels)
    source = read_source(volume)
    digest = content_digest(labels, card, job)
    structure_set = hd.base.SOPClass(
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=uid(job, "rtstruct series", digest),
        series_number=source.result_series_number(3),
        sop_instance_uid=uid(job, "rtstruct", digest),
        sop_class_uid=RTStructureSetStorage,
        instance_number=1,
        modality="RTSTRUCT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=[codes.uberon()],
    )
    finish(structure_set, source, card, job, "GP-net contours")
    _describe(structure_set, source, card)
    voxel_mm3 = float(np.prod(np.linalg.norm(np.asarray(volume.geometry.affine)[:3, :3], axis=0)))
    structures = card.structures
    structure_set.StructureSetROISequence = [
        _roi(one, float((labels.labels == one.number).sum()) * voxel_mm3, source, card) for one in structures
    ]
    structure_set.ROIContourSequence = [_contours(one, labels.labels, source) for one in structures]
    structure_set.RTROIObservationsSequence = [_observation(one) for one in structures]
    return structure_set


def _describe(structure_set: Dataset, source: Source, card: ModelCard) -> None:
    """Structure Set and Approval modules (PS3.3 C.8.8.5, C.8.8.16), and the frame of reference."""
    structure_set.OperatorsName = None
    structure_set.StructureSetLabel = LABEL
    structure_set.StructureSetName = f"{card.name} globus pallidus, RESEARCH"
    structure_set.StructureSetDescription = RESEARCH_STATEMENT
    structure_set.StructureSetDate = structure_set.ContentDate
    structure_set.StructureSetTime = structure_set.ContentTime
    del structure_set.ContentDate, structure_set.ContentTime  # no module of a structure set has these
    structure_set.ApprovalStatus = "UNAPPROVED"
    structure_set.FrameOfReferenceUID = source.frames[0].frame_of_reference_uid
    structure_set.PositionReferenceIndicator = source.header.get("PositionReferenceIndicator")
    structure_set.ReferencedFrameOfReferenceSequence = [_referenced_frame_of_reference(source)]


def _referenced_frame_of_reference(source: Source) -> Dataset:
    series, study, frame_of_reference = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = source.series_instance_uid
    series.ContourImageSequence = [_reference(frame) for frame in source.instances]
    study.ReferencedSOPClassUID = DETACHED_STUDY_MANAGEMENT
    study.ReferencedSOPInstanceUID = source.study_instance_uid
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference.FrameOfReferenceUID = source.frames[0].frame_of_reference_uid
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference


def _reference(frame: SourceFrame) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = frame.sop_class_uid
    reference.ReferencedSOPInstanceUID = frame.sop_instance_uid
    return reference


def _roi(structure: Structure, volume_mm3: float, source: Source, card: ModelCard) -> Dataset:
    roi = Dataset()
    roi.ROINumber = structure.number
    roi.ReferencedFrameOfReferenceUID = source.frames[0].frame_of_reference_uid
    roi.ROIName = structure.name
    roi.ROIDescription = f"{structure.type.meaning}, {structure.side}. {RESEARCH_STATEMENT}"
    if volume_mm3:
        roi.ROIVolume = f"{volume_mm3 / 1000:.6f}"  # cm3
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    roi.ROIGenerationDescription = f"{MANUFACTURER}, {card.name} {card.version}"
    return roi


def _observation(structure: Structure) -> Dataset:
    """What the ROI is (PS3.3 C.8.8.8); the interpreted type is ORGAN, and no person interpreted it."""
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = structure.number
    observation.SegmentedPropertyCategoryCodeSequence = [code_item(structure.category)]
    identification = code_item(structure.type)
    identification.SegmentedPropertyTypeModifierCodeSequence = [code_item(structure.laterality)]
    observation.RTROIIdentificationCodeSequence = [identification]
    observation.RTROIInterpretedType = "ORGAN"
    observation.ROIInterpreter = None
    return observation


def _contours(structure: Structure, labels: NDArray[np.uint8], source: Source) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = structure.number
    item.ROIDisplayColor = list(structure.colour)
    contours = list(_on_slices(structure, labels, source))
    for number, contour in enumerate(contours, start=1):
        contour.ContourNumber = number
    if contours:
        item.ContourSequence = contours
    return item


def _on_slices(structure: Structure, labels: NDArray[np.uint8], source: Source) -> Iterator[Dataset]:
    mask = labels == structure.number
    for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        for outline in outlines(mask[index]):
            yield _contour(_in_patient(keyhole(outline), source.frames[index]), source.frames[index].source)


def _in_patient(points: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    """Row and column to LPS mm, by the frame's own plane (PS3.3 C.7.6.2.1.1)."""
    along_row, along_column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    down = np.outer(points[:, 0] * frame.spacing_mm[0], along_column)
    right = np.outer(points[:, 1] * frame.spacing_mm[1], along_row)
    return np.asarray(np.array(frame.position_mm) + down + right)


def _contour(points_mm: NDArray[np.float64], frame: SourceFrame) -> Dataset:
    image = _reference(frame)
    if frame.frame_number is not None:
        image.ReferencedFrameNumber = frame.frame_number
    contour = Dataset()
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points_mm)
    # Adding zero takes the sign from a negative zero.
    values = [f"{value:.{DECIMALS}f}" for value in (points_mm.round(DECIMALS) + 0.0).ravel().tolist()]
    if sum(map(len, values)) + len(values) > MOST_BYTES:
        raise SelfCheckError(
            f"a contour of {len(points_mm)} points is too long for DICOM: nothing is written"
        )
    contour.ContourData = values
    return contour
