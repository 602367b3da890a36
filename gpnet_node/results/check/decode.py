"""Reads a written segmentation and report back with plain pydicom and numpy.

Nothing here knows how the objects were written: no highdicom, no geometry of ours. What a receiver would
find in the bytes is what comes out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.elements import PARSE_FAILURES

CodeKey = tuple[str, str]  # value, scheme


@dataclass(frozen=True, kw_only=True)
class SegFrame:
    """One frame of a segmentation: which segment (None: all of them), where, from which source frame."""

    segment: int | None
    position_mm: tuple[float, float, float]
    sources: tuple[tuple[str, int | None], ...]  # SOP instance and frame number it was derived from
    locations_preserved: bool


@dataclass(frozen=True, kw_only=True)
class SegSegment:
    """One segment as its description names it."""

    label: str
    category: CodeKey
    type: CodeKey
    region: CodeKey
    laterality: CodeKey | None


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedSeg:
    """A segmentation as its bytes say. ``orientation``: direction cosines of row and column."""

    dataset: Dataset
    rows: int
    columns: int
    orientation: NDArray[np.float64]  # (6,)
    spacing_mm: tuple[float, float, float]  # between slices, rows, columns
    segments: dict[int, SegSegment]
    frames: tuple[SegFrame, ...]
    referenced_instances: frozenset[str]
    packed: NDArray[np.uint8]

    def mask(self, index: int, segment: int) -> NDArray[np.bool_] | None:
        """Pixels of a segment in frame ``index`` (from 0), (rows, columns); None where there is none.

        Of a BINARY one the bits run through the frames without padding, the first in the lowest bit
        (PS3.5 8.1.1, 8.2); a LABELMAP has the segments' numbers, one byte each.
        """
        size = self.rows * self.columns
        if self.frames[index].segment is None:
            values = self.packed[index * size : (index + 1) * size].reshape(self.rows, self.columns)
            return values == segment if (values == segment).any() else None
        if self.frames[index].segment != segment:
            return None
        start, offset = divmod(index * size, 8)
        chunk = self.packed[start : start + (offset + size + 7) // 8]
        if not chunk.any():
            return None
        bits = np.unpackbits(chunk, bitorder="little")[offset : offset + size]
        return bits.reshape(self.rows, self.columns).astype(bool) if bits.any() else None

    def points(self, index: int, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Centres of the set pixels of a frame, (n, 3), LPS mm (PS3.3 C.7.6.2.1.1)."""
        row, column = np.nonzero(mask)
        along_row, along_column = self.orientation[:3], self.orientation[3:]
        corner = np.array(self.frames[index].position_mm)
        return np.asarray(
            corner
            + np.outer(column * self.spacing_mm[2], along_row)
            + np.outer(row * self.spacing_mm[1], along_column)
        )


@dataclass(frozen=True, kw_only=True)
class SrGroup:
    """One measurement group of a report."""

    segment: int
    seg_instance_uid: str
    finding: CodeKey
    site: CodeKey
    laterality: CodeKey | None
    numbers: dict[tuple[str, str | None], tuple[float, str]]  # (name, derivation): (value, unit)
    point_mm: tuple[float, float, float] | None
    point_frame_of_reference_uid: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedReport:
    """A report as its bytes say."""

    dataset: Dataset
    groups: tuple[SrGroup, ...]
    evidence: frozenset[str] = field(default_factory=frozenset)


def decode_seg(data: bytes) -> DecodedSeg:
    """Decode a BINARY or LABELMAP segmentation. Raises SelfCheckError where a reader could not."""
    try:
        return _seg(dcmread(BytesIO(data)))
    except PARSE_FAILURES as exc:
        raise SelfCheckError(f"the segmentation cannot be read back ({type(exc).__name__})") from exc


def decode_report(data: bytes) -> DecodedReport:
    """Decode a TID 1500 report. Raises SelfCheckError where a reader could not."""
    try:
        return _report(dcmread(BytesIO(data)))
    except PARSE_FAILURES as exc:
        raise SelfCheckError(f"the report cannot be read back ({type(exc).__name__})") from exc


def _seg(dataset: Dataset) -> DecodedSeg:
    kind, bits = str(dataset.SegmentationType), int(dataset.BitsAllocated)
    if (kind, bits) not in (("BINARY", 1), ("LABELMAP", 8)):
        raise SelfCheckError(f"the segmentation is {kind} of {bits} bits, not BINARY of one or LABELMAP of 8")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    row_spacing, column_spacing = (float(value) for value in measures.PixelSpacing)
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    series = dataset.get("ReferencedSeriesSequence", [])
    frames = tuple(_seg_frame(item) for item in dataset.PerFrameFunctionalGroupsSequence)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    packed = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    if int(dataset.NumberOfFrames) != len(frames) or packed.size * 8 < (len(frames) * rows * columns * bits):
        raise SelfCheckError(
            f"the segmentation cannot be read back: it states {dataset.NumberOfFrames} frames, describes "
            f"{len(frames)} and has {packed.size} bytes of pixels"
        )
    return DecodedSeg(
        dataset=dataset,
        rows=rows,
        columns=columns,
        orientation=cosines,
        spacing_mm=(float(measures.SpacingBetweenSlices), row_spacing, column_spacing),
        segments={int(item.SegmentNumber): _segment(item) for item in dataset.SegmentSequence},
        frames=frames,
        referenced_instances=frozenset(
            str(item.ReferencedSOPInstanceUID) for one in series for item in one.ReferencedInstanceSequence
        ),
        packed=packed,
    )


def _segment(item: Dataset) -> SegSegment:
    kind = item.SegmentedPropertyTypeCodeSequence[0]
    modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence")
    return SegSegment(
        label=str(item.SegmentLabel),
        category=_code(item.SegmentedPropertyCategoryCodeSequence[0]),
        type=_code(kind),
        region=_code(item.AnatomicRegionSequence[0]),
        laterality=_code(modifiers[0]) if modifiers else None,
    )


def _seg_frame(item: Dataset) -> SegFrame:
    sources = [
        source
        for derivation in item.get("DerivationImageSequence", [])
        for source in derivation.get("SourceImageSequence", [])
    ]
    x, y, z = (float(value) for value in item.PlanePositionSequence[0].ImagePositionPatient)
    identified = item.get("SegmentIdentificationSequence")
    return SegFrame(
        segment=int(identified[0].ReferencedSegmentNumber) if identified else None,
        position_mm=(x, y, z),
        sources=tuple(
            (str(source.ReferencedSOPInstanceUID), _optional_int(source.get("ReferencedFrameNumber")))
            for source in sources
        ),
        locations_preserved=bool(sources)
        and all(source.get("SpatialLocationsPreserved") == "YES" for source in sources),
    )


def _report(dataset: Dataset) -> DecodedReport:
    containers = [
        item for root in dataset.ContentSequence if _name(root) == "126010" for item in root.ContentSequence
    ]
    evidence = dataset.get("CurrentRequestedProcedureEvidenceSequence", [])
    return DecodedReport(
        dataset=dataset,
        groups=tuple(_sr_group(item) for item in containers if _name(item) == "125007"),
        evidence=frozenset(
            str(instance.ReferencedSOPInstanceUID)
            for study in evidence
            for series in study.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        ),
    )


def _sr_group(group: Dataset) -> SrGroup:
    reference = _only(group, "121191").ReferencedSOPSequence[0]
    site = _only(group, "363698007")
    laterality = [item for item in site.get("ContentSequence", []) if _name(item) == "272741003"]
    points = [item for item in group.ContentSequence if item.ValueType == "SCOORD3D"]
    x, y, z = (float(value) for value in points[0].GraphicData) if points else (0.0, 0.0, 0.0)
    return SrGroup(
        segment=int(reference.ReferencedSegmentNumber),
        seg_instance_uid=str(reference.ReferencedSOPInstanceUID),
        finding=_code(_only(group, "121071").ConceptCodeSequence[0]),
        site=_code(site.ConceptCodeSequence[0]),
        laterality=_code(laterality[0].ConceptCodeSequence[0]) if laterality else None,
        numbers=dict(_numbers(group)),
        point_mm=(x, y, z) if points else None,
        point_frame_of_reference_uid=str(points[0].ReferencedFrameOfReferenceUID) if points else None,
    )


def _numbers(group: Dataset) -> Iterator[tuple[tuple[str, str | None], tuple[float, str]]]:
    for item in group.ContentSequence:
        if item.ValueType != "NUM":
            continue
        derivations = [
            str(child.ConceptCodeSequence[0].CodeValue)
            for child in item.get("ContentSequence", [])
            if _name(child) == "121401"
        ]
        measured = item.MeasuredValueSequence[0]
        unit = str(measured.MeasurementUnitsCodeSequence[0].CodeValue)
        yield (_name(item), derivations[0] if derivations else None), (float(measured.NumericValue), unit)


def _only(group: Dataset, name: str) -> Dataset:
    matches = [item for item in group.ContentSequence if _name(item) == name]
    if len(matches) != 1:
        raise SelfCheckError(
            f"a measurement group of the report has {len(matches)} items named {name}, not 1"
        )
    match: Dataset = matches[0]
    return match


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _code(item: Dataset) -> CodeKey:
    return str(item.CodeValue), str(item.CodingSchemeDesignator)


def _optional_int(value: Any) -> int | None:  # noqa: ANN401  # an IS, or nothing
    return None if value is None else int(value)
