"""Writes a label map as a DICOM segmentation (PS3.3 A.51), by highdicom."""

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.errors import ConfigurationError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, Structure
from gpnet_node.result_profile import BINARY, SegForm
from gpnet_node.results import codes
from gpnet_node.results.codes import concept
from gpnet_node.results.header import code_item, finish
from gpnet_node.results.identifiers import MANUFACTURER, JobIdentity, content_digest, uid
from gpnet_node.results.measure import refuse_other_grid, refuse_unmapped
from gpnet_node.results.source import Source, read_source

CONTENT_LABEL = "GPNET_RESEARCH"


def write_seg(
    volume: Volume,
    labels: LabelMap,
    card: ModelCard,
    job: JobIdentity,
    form: SegForm = BINARY,
) -> Dataset:
    """Write a segmentation: one segment per structure of the card, on exactly the source grid.

    Every frame refers to the source frame it lies on (DerivationImageSequence with
    SpatialLocationsPreserved YES): viewers place it by that. By default it is BINARY and all frames are
    written, the empty ones too, since some viewers shift a segmentation that leaves them out; what other
    receivers need is in ``form``. The same arguments give the same dataset at any time.

    Raises SelfCheckError for a label that the card does not name or another grid than the volume's,
    ConfigurationError for a card whose structures are not numbered 1, 2, 3 ..., UnreadableInstanceError
    or StorageError where a source file cannot be read again.
    """
    refuse_unmapped(labels, card)
    refuse_other_grid(volume, labels)
    _refuse_other_numbers(card)
    source = read_source(volume)
    digest = content_digest(labels, card, job, form.name)
    pixels = _padded(labels.labels) if form.padded_columns else labels.labels
    kinds = hd.seg.SegmentationTypeValues
    segmentation = hd.seg.Segmentation(
        source_images=source.planes(volume.geometry, columns=pixels.shape[2]),
        pixel_array=pixels,
        segmentation_type=kinds.LABELMAP if form.labelmap else kinds.BINARY,
        segment_descriptions=[_describe(structure, card, job, digest) for structure in card.structures],
        series_instance_uid=uid(job, "seg series", digest),
        series_number=source.result_series_number(1),
        sop_instance_uid=uid(job, "seg", digest),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=card.name,
        software_versions=job.software_version,
        device_serial_number=job.node_ae_title,
        content_label=CONTENT_LABEL,
        content_description="Globus pallidus by GP-net. RESEARCH, not for clinical use",
        content_creator_name=f"{MANUFACTURER}^{card.name}",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=not form.empty_frames,
    )
    if form.labelmap:
        _describe_no_background(segmentation)
    _refer_to_source(segmentation, source)
    _name_dimensions(segmentation, uid(job, "dimensions", digest))
    _state_spacing(segmentation, volume)
    segmentation.CodingSchemeIdentificationSequence = [codes.uberon()]
    finish(segmentation, source, card, job, "GP-net segmentation")
    return segmentation


def _padded(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Empty columns on the right, up to a multiple of 8: then each row of bits fills whole bytes."""
    return np.pad(labels, ((0, 0), (0, 0), (0, -labels.shape[2] % 8)))


def _describe_no_background(segmentation: Dataset) -> None:
    """highdicom describes value 0 too; viewers that count the items then shift all colours by one."""
    segmentation.SegmentSequence = [item for item in segmentation.SegmentSequence if item.SegmentNumber != 0]


def algorithm_parameters(card: ModelCard) -> dict[str, str]:
    """What the algorithm was run with, for segmentation and report: weights, grid and box."""
    box = "x".join(str(size) for size in card.box_voxels)
    return {"weights_sha256": card.weights_sha256, "spacing_mm": f"{card.spacing_mm:g}", "box_voxels": box}


def _refuse_other_numbers(card: ModelCard) -> None:
    numbers = [structure.number for structure in card.structures]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ConfigurationError(f"model card {card.name} numbers its structures {numbers}, not 1, 2, 3")


def _describe(
    structure: Structure, card: ModelCard, job: JobIdentity, digest: str
) -> hd.seg.SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=card.name,
        family=concept(codes.ARTIFICIAL_INTELLIGENCE),
        version=card.version,
        source=MANUFACTURER,
        parameters=algorithm_parameters(card),
    )
    description = hd.seg.SegmentDescription(
        segment_number=structure.number,
        segment_label=structure.name,
        segmented_property_category=concept(structure.category),
        segmented_property_type=concept(structure.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=uid(job, f"tracking {structure.name}", digest),
        tracking_id=structure.name,
        anatomic_regions=[concept(structure.region)],
        display_color=hd.color.CIELabColor.from_rgb(*structure.colour),
    )
    side = structure.laterality
    kind = description.SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(side)]
    description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [code_item(side)]
    return description


def _refer_to_source(segmentation: Dataset, source: Source) -> None:
    """Put the true references where ``Source.planes`` had slice indices; one item per instance on top."""
    # The segments' frames share their items, so all indices are read before any reference is changed.
    references = [
        frame.DerivationImageSequence[0].SourceImageSequence[0]
        for frame in segmentation.PerFrameFunctionalGroupsSequence
    ]
    indices = [int(reference.ReferencedSOPInstanceUID.rpartition(".")[2]) for reference in references]
    for reference, index in zip(references, indices, strict=True):
        plane = source.frames[index].source
        reference.ReferencedSOPClassUID = plane.sop_class_uid
        reference.ReferencedSOPInstanceUID = plane.sop_instance_uid
        if plane.frame_number is not None:
            reference.ReferencedFrameNumber = plane.frame_number
    series = Dataset()
    series.SeriesInstanceUID = source.series_instance_uid
    series.ReferencedInstanceSequence = [_reference(*uids) for uids in _instances(source)]
    segmentation.ReferencedSeriesSequence = [series]
    segmentation.SourceImageSequence = [_reference(*uids) for uids in _instances(source)]


def _instances(source: Source) -> list[tuple[str, str]]:
    return [(frame.sop_class_uid, frame.sop_instance_uid) for frame in source.instances]


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = sop_instance_uid
    return reference


def _state_spacing(segmentation: Dataset, volume: Volume) -> None:
    """The volume's spacing between slices, in as many digits as positions have."""
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = round(volume.geometry.spacing_between_slices, 6)


def _name_dimensions(segmentation: Dataset, dimension_uid: str) -> None:
    """highdicom draws a random UID for the dimensions; the job's takes its place."""
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimension_uid
    for index in segmentation.DimensionIndexSequence:
        index.DimensionOrganizationUID = dimension_uid
