"""What the self-check asks of a segmentation: every frame, voxel, code and reference."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import Code, ModelCard
from gpnet_node.result_profile import BINARY, SegForm
from gpnet_node.results.check.decode import DecodedSeg, SegFrame
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.truth import Truth

# A slice may lie this far from its place on the regular grid: assembly lets 0.05 mm of drift and 1 % of
# the spacing pass (imaging.series), and the segmentation keeps the source's own positions.
POSITION_TOLERANCE_MM = 0.1
# The same voxels at those positions, beside what the directions' own difference moves them (_turned_mm). A
# shift by one voxel is caught voxel by voxel, however small it is.
CENTROID_TOLERANCE_MM = 0.1
# Direction cosines that assembly makes orthonormal (imaging.frames), and with them spacing, relative. The
# segmentation keeps the source's own, which viewers compare.
DIRECTION_TOLERANCE = 1e-3
# Three spacings, each within that, relative.
VOLUME_TOLERANCE = 3e-3


def check_seg(
    seg: DecodedSeg,
    volume: Volume,
    labels: LabelMap,
    truth: Mapping[int, Truth],
    card: ModelCard,
    findings: Findings,
    form: SegForm = BINARY,
) -> None:
    """Compare a decoded segmentation with the label map and the card; it must be of that form."""
    _check_grid(seg, labels, form, findings)
    _check_frames(seg, labels, form, findings)
    _check_segments(seg, card, findings)
    _check_references(seg, volume, findings)
    names = {structure.number: structure.name for structure in card.structures}
    slices = [
        _check_place(seg, index, frame, volume, labels, names, findings)
        for index, frame in enumerate(seg.frames)
    ]
    _check_voxels(seg, slices, labels, names, form, findings)
    allowed_mm = CENTROID_TOLERANCE_MM + _turned_mm(seg, labels)
    for number, name in names.items():
        points = _points(seg, number)
        _check_shape(name, points, float(np.prod(seg.spacing_mm)), truth[number], allowed_mm, findings)


def _columns(of_labels: int, form: SegForm) -> int:
    return of_labels + (-of_labels % 8 if form.padded_columns else 0)


def _check_grid(seg: DecodedSeg, labels: LabelMap, form: SegForm, findings: Findings) -> None:
    expected, found = str(labels.geometry.frame_of_reference_uid), str(seg.dataset.FrameOfReferenceUID)
    findings.expect(
        found == expected, f"the segmentation's frame of reference is {found}, the source's is {expected}"
    )
    affine = np.asarray(labels.geometry.affine, dtype=float)
    _, rows, columns = labels.labels.shape
    wanted = _columns(columns, form)
    findings.expect(
        (seg.rows, seg.columns) == (rows, wanted),
        f"the segmentation has {seg.rows} x {seg.columns} pixels, not the {rows} x {wanted} of the label map",
    )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    findings.expect(
        bool(np.allclose(seg.spacing_mm, spacing, rtol=DIRECTION_TOLERANCE, atol=0)),
        f"the segmentation's spacing is {_mm(seg.spacing_mm)} mm, the label map's {_mm(spacing)} mm",
    )
    findings.expect(
        bool(np.abs(seg.orientation - _cosines(labels)).max() <= DIRECTION_TOLERANCE),
        "the segmentation's orientation is not the label map's",
    )


def _check_frames(seg: DecodedSeg, labels: LabelMap, form: SegForm, findings: Findings) -> None:
    """Each slice, or each that is not empty, has its frame: for every segment one, or one for all."""
    present = [(labels.labels == number).any(axis=(1, 2)) for number in seg.segments]
    if form.labelmap:
        present = [np.any(present, axis=0)]
    every = form.empty_frames or not np.any(present)  # of nothing at all, the empty frames are written
    wanted = len(present) * len(labels.labels) if every else int(np.sum(present))
    findings.expect(len(seg.frames) == wanted, f"the segmentation has {len(seg.frames)} frames, not {wanted}")
    findings.expect(
        all((frame.segment is None) == form.labelmap for frame in seg.frames),
        f"the segmentation is {'no' if form.labelmap else 'a'} label map",
    )


def _cosines(labels: LabelMap) -> NDArray[np.float64]:
    """Of row and column, (6,), as ImageOrientationPatient has them."""
    axes = np.asarray(labels.geometry.affine, dtype=float)[:3, [2, 1]]
    return np.asarray((axes / np.linalg.norm(axes, axis=0)).T.ravel())


def _turned_mm(seg: DecodedSeg, labels: LabelMap) -> float:
    """How far the difference of the directions, within its tolerance, moves the last voxel of a slice."""
    turn = np.abs(seg.orientation - _cosines(labels)).clip(max=DIRECTION_TOLERANCE).reshape(2, 3)
    return float(
        np.linalg.norm(seg.columns * seg.spacing_mm[2] * turn[0] + seg.rows * seg.spacing_mm[1] * turn[1])
    )


def _check_segments(seg: DecodedSeg, card: ModelCard, findings: Findings) -> None:
    numbers = [structure.number for structure in card.structures]
    findings.expect(
        list(seg.segments) == numbers, f"segments are numbered {list(seg.segments)}, the card's {numbers}"
    )
    for structure in card.structures:
        segment = seg.segments.get(structure.number)
        if segment is None:
            continue
        for word, found, expected in (
            ("category", segment.category, structure.category),
            ("type", segment.type, structure.type),
            ("region", segment.region, structure.region),
            ("laterality", segment.laterality, structure.laterality),
        ):
            findings.expect(
                found == code_key(expected),
                f"segment {structure.number} ({structure.name}): {word} is {found}, not {code_key(expected)}",
            )


def _check_references(seg: DecodedSeg, volume: Volume, findings: Findings) -> None:
    instances = frozenset(frame.sop_instance_uid for frame in volume.frames)
    findings.expect(
        seg.referenced_instances == instances,
        f"ReferencedSeriesSequence lists {len(seg.referenced_instances & instances)} of "
        f"{len(instances)} source instances",
    )


def _check_place(
    seg: DecodedSeg,
    index: int,
    frame: SegFrame,
    volume: Volume,
    labels: LabelMap,
    names: Mapping[int, str],
    findings: Findings,
) -> int | None:
    """Return the slice that a frame lies on; its source reference must be that slice's."""
    whose = "all segments" if frame.segment is None else names.get(frame.segment, "no segment of the card")
    where = f"frame {index + 1} of {len(seg.frames)} ({whose})"
    slice_index = _slice_at(frame.position_mm, labels)
    if slice_index is None:
        findings.expect(False, f"{where} lies on no slice of the source")
        return None
    wanted = volume.frames[slice_index]
    findings.expect(
        frame.sources == ((wanted.sop_instance_uid, wanted.frame_number),) and frame.locations_preserved,
        f"{where} does not refer to the source image that it lies on",
    )
    return slice_index


def _slice_at(position_mm: tuple[float, float, float], labels: LabelMap) -> int | None:
    """Which slice has its first voxel at this position; None if none does."""
    affine = np.asarray(labels.geometry.affine, dtype=float)
    step = affine[:3, 0]
    offset = np.array(position_mm) - affine[:3, 3]
    index = round(float(offset @ step) / float(step @ step))
    near = np.linalg.norm(offset - index * step) <= POSITION_TOLERANCE_MM
    return index if near and 0 <= index < labels.labels.shape[0] else None


def _check_voxels(
    seg: DecodedSeg,
    slices: Sequence[int | None],
    labels: LabelMap,
    names: Mapping[int, str],
    form: SegForm,
    findings: Findings,
) -> None:
    """Each voxel of the label map is in the segmentation, in its segment, and no other is."""
    columns = labels.labels.shape[2]
    if (seg.rows, seg.columns) != (labels.labels.shape[1], _columns(columns, form)):
        return
    at = {
        (frame.segment, slice_index): index
        for index, (frame, slice_index) in enumerate(zip(seg.frames, slices, strict=True))
    }
    findings.expect(len(at) == len(seg.frames), "two frames of one segment lie on one slice")
    for number, name in names.items():
        structure = labels.labels == number
        present = structure.any(axis=(1, 2))
        wrong = 0
        for slice_index in range(len(labels.labels)):
            frame_index = at.get((None if form.labelmap else number, slice_index))
            mask = None if frame_index is None else seg.mask(frame_index, number)
            if mask is not None:
                wrong += int((mask[:, :columns] != structure[slice_index]).sum() + mask[:, columns:].sum())
            elif present[slice_index]:
                wrong += int(structure[slice_index].sum())
        findings.expect(not wrong, f"{name}: {wrong} voxels differ from the label map")


def _points(seg: DecodedSeg, number: int) -> NDArray[np.float64]:
    parts = [np.empty((0, 3))]
    for index in range(len(seg.frames)):
        mask = seg.mask(index, number)
        if mask is not None:
            parts.append(seg.points(index, mask))
    return np.concatenate(parts)


def _check_shape(
    name: str,
    points: NDArray[np.float64],
    voxel_mm3: float,
    truth: Truth,
    allowed_mm: float,
    findings: Findings,
) -> None:
    volume_mm3 = len(points) * voxel_mm3
    findings.expect(
        abs(volume_mm3 - truth.volume_mm3) <= VOLUME_TOLERANCE * truth.volume_mm3,
        f"{name}: the segmentation's volume is {volume_mm3:.1f} mm3, "
        f"the label map's {truth.volume_mm3:.1f} mm3",
    )
    if truth.centroid_mm is None or not len(points):
        return
    off_mm = float(np.linalg.norm(points.mean(axis=0) - truth.centroid_mm))
    findings.expect(
        off_mm <= allowed_mm,
        f"{name}: the segmentation's centre of mass is {off_mm:.2f} mm off the label map's",
    )


def code_key(code: Code) -> tuple[str, str]:
    """Value and scheme, by which codes are equal (PS3.3 8.1)."""
    return code.value, code.scheme


def _mm(values: Sequence[float] | NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4f}" for value in values)
