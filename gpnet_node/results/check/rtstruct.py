"""What the self-check asks of an RT Structure Set: every contour, ROI, code and reference.

Decoded with plain pydicom; nothing here knows how the contours were made.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.elements import PARSE_FAILURES
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, Structure
from gpnet_node.results.check.decode import CodeKey
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.identity import check_identity, read_identity
from gpnet_node.results.check.polygons import area_and_moment, crossings, hausdorff
from gpnet_node.results.check.seg import code_key
from gpnet_node.results.check.source_planes import FrameKey, SourcePlane, read_planes
from gpnet_node.results.check.truth import Truth

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
# A contour's coordinates are rounded to 0.0001 mm; a receiver looks for its plane within far more.
PLANE_TOLERANCE_MM = 0.01
# What smoothing may change on the same slices, and what planning stations tell apart.
VOLUME_TOLERANCE = 0.03
CENTROID_TOLERANCE_MM = 0.3
HAUSDORFF_TOLERANCE_PIXELS = 1.0
# ROIVolume is the label map's own, in cm3 with six decimals.
STATED_VOLUME_TOLERANCE_MM3 = 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class _Contour:
    """One contour as its bytes say: which frame it names, and its points, (n, 3), LPS mm."""

    frame: FrameKey
    points_mm: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Roi:
    """One ROI as the three sequences of a structure set describe it."""

    name: str
    frame_of_reference_uid: str
    volume_mm3: float | None
    colour: tuple[int, ...]
    category: CodeKey
    type: CodeKey
    laterality: CodeKey
    contours: tuple[_Contour, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _StructureSet:
    dataset: Dataset
    frame_of_reference_uid: str
    study_instance_uid: str
    instances: frozenset[str]
    rois: Mapping[int, _Roi]


def check_rtstruct(
    content: bytes,
    volume: Volume,
    labels: LabelMap,
    truth: Mapping[int, Truth],
    card: ModelCard,
    findings: Findings,
) -> None:
    """Compare the bytes of a structure set with the label map, the source's own planes and the card.

    Raises SelfCheckError where a reader could not read them, StorageError where the source cannot be read
    again; everything that differs becomes a finding.
    """
    try:
        decoded = _decode(dcmread(BytesIO(content)))
    except PARSE_FAILURES as exc:
        raise SelfCheckError(f"the structure set cannot be read back ({type(exc).__name__})") from exc
    check_identity("structure set", decoded.dataset, read_identity(volume), findings)
    _check_references(decoded, volume, labels, findings)
    numbers = [structure.number for structure in card.structures]
    findings.expect(list(decoded.rois) == numbers, f"ROIs are numbered {list(decoded.rois)}, not {numbers}")
    planes = read_planes(volume)
    for structure in card.structures:
        roi = decoded.rois.get(structure.number)
        if roi is not None:
            _check_description(roi, structure, decoded, truth[structure.number], findings)
            _check_contours(roi, structure, planes, labels, truth[structure.number], findings)


def _decode(dataset: Dataset) -> _StructureSet:
    if dataset.SOPClassUID != RTSTRUCT_CLASS or dataset.Modality != "RTSTRUCT":
        raise SelfCheckError("the structure set cannot be read back: it is another kind of object")
    (frame_of_reference,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame_of_reference.RTReferencedStudySequence
    contours = {int(item.ReferencedROINumber): item for item in dataset.ROIContourSequence}
    observations = {int(item.ReferencedROINumber): item for item in dataset.RTROIObservationsSequence}
    return _StructureSet(
        dataset=dataset,
        frame_of_reference_uid=str(frame_of_reference.FrameOfReferenceUID),
        study_instance_uid=str(study.ReferencedSOPInstanceUID),
        instances=frozenset(
            str(image.ReferencedSOPInstanceUID)
            for series in study.RTReferencedSeriesSequence
            for image in series.ContourImageSequence
        ),
        rois={
            int(item.ROINumber): _roi(item, contours[int(item.ROINumber)], observations[int(item.ROINumber)])
            for item in dataset.StructureSetROISequence
        },
    )


def _roi(roi: Dataset, contours: Dataset, observation: Dataset) -> _Roi:
    kind = observation.RTROIIdentificationCodeSequence[0]
    stated = roi.get("ROIVolume")
    return _Roi(
        name=str(roi.ROIName),
        frame_of_reference_uid=str(roi.ReferencedFrameOfReferenceUID),
        volume_mm3=None if stated is None else 1000 * float(stated),
        colour=tuple(int(value) for value in contours.ROIDisplayColor),
        category=_code(observation.SegmentedPropertyCategoryCodeSequence[0]),
        type=_code(kind),
        laterality=_code(kind.SegmentedPropertyTypeModifierCodeSequence[0]),
        contours=tuple(_contour(item) for item in contours.get("ContourSequence", [])),
    )


def _contour(item: Dataset) -> _Contour:
    (image,) = item.ContourImageSequence
    number = image.get("ReferencedFrameNumber")
    points = np.array(item.ContourData, dtype=np.float64).reshape(-1, 3)
    if item.ContourGeometricType != "CLOSED_PLANAR" or item.NumberOfContourPoints != len(points):
        raise SelfCheckError("a contour is not CLOSED_PLANAR, or has another number of points than it states")
    return _Contour(
        frame=(str(image.ReferencedSOPInstanceUID), None if number is None else int(number)),
        points_mm=points,
    )


def _code(item: Dataset) -> CodeKey:
    return str(item.CodeValue), str(item.CodingSchemeDesignator)


def _check_references(decoded: _StructureSet, volume: Volume, labels: LabelMap, findings: Findings) -> None:
    expected, found = str(labels.geometry.frame_of_reference_uid), decoded.frame_of_reference_uid
    findings.expect(
        found == expected, f"the structure set's frame of reference is {found}, the source's is {expected}"
    )
    findings.expect(
        decoded.study_instance_uid == str(decoded.dataset.StudyInstanceUID),
        "the structure set refers to another study than its own",
    )
    instances = frozenset(frame.sop_instance_uid for frame in volume.frames)
    findings.expect(
        decoded.instances == instances,
        f"the structure set lists {len(decoded.instances & instances)} of {len(instances)} source instances",
    )


def _check_description(
    roi: _Roi, structure: Structure, decoded: _StructureSet, truth: Truth, findings: Findings
) -> None:
    for word, found, expected in (
        ("name", roi.name, structure.name),
        ("colour", roi.colour, structure.colour),
        ("category", roi.category, code_key(structure.category)),
        ("type", roi.type, code_key(structure.type)),
        ("laterality", roi.laterality, code_key(structure.laterality)),
        ("frame of reference", roi.frame_of_reference_uid, decoded.frame_of_reference_uid),
    ):
        findings.expect(
            found == expected,
            f"ROI {structure.number} ({structure.name}): its {word} is {found}, not {expected}",
        )
    findings.expect(
        abs((roi.volume_mm3 or 0.0) - truth.volume_mm3) <= STATED_VOLUME_TOLERANCE_MM3,
        f"{structure.name}: ROIVolume is not the label map's volume",
    )


def _check_contours(
    roi: _Roi,
    structure: Structure,
    planes: Mapping[FrameKey, SourcePlane],
    labels: LabelMap,
    truth: Truth,
    findings: Findings,
) -> None:
    on_slices: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    moments_mm = []
    slice_mm = float(np.linalg.norm(np.asarray(labels.geometry.affine)[:3, 0]))
    for number, contour in enumerate(roi.contours, start=1):
        where = f"contour {number} of {len(roi.contours)} ({structure.name})"
        plane = planes.get(contour.frame)
        if plane is None:
            findings.expect(False, f"{where} names no image of the source")
            continue
        off_mm = float(plane.distance_mm(contour.points_mm).max())
        findings.expect(
            off_mm <= PLANE_TOLERANCE_MM, f"{where} lies {off_mm:.2f} mm off the plane of the image it names"
        )
        pixels = plane.pixels(contour.points_mm)
        area, moment = area_and_moment(pixels)
        area_mm2 = area * float(plane.spacing_mm.prod())
        centre_mm = plane.points_mm(moment[None] / max(area, 1e-12))[0]
        moments_mm.append(np.append(centre_mm, 1.0) * area_mm2 * slice_mm)
        on_slices[plane.slice_index].append(pixels)
    _check_shape(structure.name, np.sum([np.zeros(4), *moments_mm], axis=0), truth, findings)
    _check_borders(structure, on_slices, labels, findings)


def _check_shape(name: str, moment: NDArray[np.float64], truth: Truth, findings: Findings) -> None:
    """``moment``: volume times centre, and volume, in mm."""
    volume_mm3 = float(moment[3])
    findings.expect(
        abs(volume_mm3 - truth.volume_mm3) <= VOLUME_TOLERANCE * truth.volume_mm3,
        f"{name}: the contours' volume is {volume_mm3:.1f} mm3, the label map's {truth.volume_mm3:.1f} mm3",
    )
    if truth.centroid_mm is None or not volume_mm3:
        return
    off_mm = float(np.linalg.norm(moment[:3] / volume_mm3 - truth.centroid_mm))
    findings.expect(
        off_mm <= CENTROID_TOLERANCE_MM,
        f"{name}: the contours' centre of mass is {off_mm:.2f} mm off the label map's",
    )


def _check_borders(
    structure: Structure,
    on_slices: Mapping[int, list[NDArray[np.float64]]],
    labels: LabelMap,
    findings: Findings,
) -> None:
    """On each slice: as near to the border of the structure's pixels as smoothing needs, and no crossing."""
    mask = labels.labels == structure.number
    worst, crossed = 0.0, 0
    for index in sorted({*on_slices, *np.flatnonzero(mask.any(axis=(1, 2))).tolist()}):
        contours = on_slices.get(index, [])
        worst = max(worst, hausdorff(contours, mask[index]))
        crossed += crossings(contours)
    findings.expect(
        worst <= HAUSDORFF_TOLERANCE_PIXELS,
        f"{structure.name}: contours and label map lie up to {worst:.2f} pixels apart on a slice",
    )
    findings.expect(not crossed, f"{structure.name}: contours cross themselves or each other {crossed} times")
