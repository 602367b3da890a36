"""The regular grid that frames must lie on: one orientation, one matrix, one step along the normal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import floor, log

import numpy as np
from numpy.typing import NDArray

from gpnet_node.errors import MissingSlicesError, NotAVolumeError
from gpnet_node.imaging.frames import Frame

# Two images closer than this are at one position: vendors round positions to 0.001 mm or finer.
SAME_POSITION_MM = 0.01
# A slice may lie this far from its place on the regular grid, in mm or as a share of the spacing
# (whichever is larger); that is rounding of positions, and far below a voxel.
UNEVEN_MM = 0.01
UNEVEN_SHARE = 0.01
# A stack whose slices drift sideways by more than this in all is sheared (as by a tilted gantry).
SHEAR_MM = 0.05
# Direction cosines closer than this are one orientation: 0.03 mm at the edge of a 300 mm field of view.
SAME_DIRECTION = 1e-4
# Pixel spacings closer than this share are one spacing.
SAME_SPACING_SHARE = 1e-4
# Frames are looked up by cells of this many tolerances: small enough that few grids share one, large enough
# that most frames touch a single one.
CELL = 4
# A hole wider than this many slices is a second block elsewhere, not missing slices.
LARGEST_GAP_SLICES = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class SortedStack:
    """One regular, gap-free stack; frames ascend along the normal (row x column).

    ``spacing_mm``: between slices, from all positions. ``normal``: unit vector, (3,), LPS.
    """

    frames: tuple[Frame, ...]
    spacing_mm: float
    normal: NDArray[np.float64]

    @property
    def series_instance_uid(self) -> str:
        """Of all its frames."""
        return self.frames[0].series_instance_uid


def same_grid(a: Frame, b: Frame) -> bool:
    """Whether two frames can lie in one volume: same series, frame of reference, matrix, and parallel."""
    return (
        (a.series_instance_uid, a.frame_of_reference_uid, a.rows, a.columns)
        == (b.series_instance_uid, b.frame_of_reference_uid, b.rows, b.columns)
        and _parallel(a, b)
        and all(
            abs(x - y) <= SAME_SPACING_SHARE * max(x, y)
            for x, y in zip(a.spacing_mm, b.spacing_mm, strict=True)
        )
    )


def _parallel(a: Frame, b: Frame) -> bool:
    return all(abs(x - y) <= SAME_DIRECTION for x, y in zip(a.orientation, b.orientation, strict=True))


def grid_numbers(frames: Sequence[Frame]) -> list[int]:
    """Number of each frame's grid, in order of first appearance.

    A frame lies on the first grid whose first frame it could share a volume with (``same_grid``), else it
    begins a new one. Near-linear in the number of frames, however many grids they lie on.
    """
    firsts: list[Frame] = []
    of_cell: dict[tuple[object, ...], list[int]] = {}
    numbers = []
    for frame in frames:
        near = {number for cell in _cells(frame, within=1.0) for number in of_cell.get(cell, ())}
        number = min((n for n in near if same_grid(firsts[n], frame)), default=len(firsts))
        if number == len(firsts):
            firsts.append(frame)
            (own,) = _cells(frame, within=0.0)
            of_cell.setdefault(own, []).append(number)
        numbers.append(number)
    return numbers


def _cells(frame: Frame, *, within: float) -> Iterator[tuple[object, ...]]:
    """Cells of orientation and pixel spacing that hold what is ``within`` so many tolerances of a frame's."""
    exact = (frame.series_instance_uid, frame.frame_of_reference_uid, frame.rows, frame.columns)
    measures = [cosine / SAME_DIRECTION for cosine in frame.orientation]
    measures += [log(spacing) / SAME_SPACING_SHARE for spacing in frame.spacing_mm]
    margin = within * 1.001  # beside rounding, and the logarithm's share of a spacing
    ranges = [range(_cell(measure - margin), _cell(measure + margin) + 1) for measure in measures]
    return ((*exact, *cell) for cell in product(*ranges))


def _cell(measure: float) -> int:
    """Zero and one, which most cosines are, lie in the middle of a cell."""
    return floor(measure / CELL + 0.5)


def difference(a: Frame, b: Frame) -> str:
    """Say what keeps two frames of one series from lying in one volume."""
    if a.frame_of_reference_uid != b.frame_of_reference_uid:
        return f"frames of reference: {a.source} and {b.source} differ"
    if (a.rows, a.columns) != (b.rows, b.columns):
        return f"matrices: {a.source} has {a.rows} x {a.columns}, {b.source} has {b.rows} x {b.columns}"
    if not _parallel(a, b):
        return f"orientations: {a.source} and {b.source} do not lie parallel"
    return f"pixel spacings: {a.source} has {a.spacing_mm} mm, {b.source} has {b.spacing_mm} mm"


def projections(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Position of each frame along the common normal, mm."""
    return np.array([frame.position_mm for frame in frames]) @ frames[0].normal


def places(frames: Sequence[Frame]) -> list[int]:
    """Number of each frame's position along the normal; frames closer than SAME_POSITION_MM share one."""
    along_mm = projections(frames)
    order = np.argsort(along_mm, kind="stable")
    numbers = np.concatenate(([0], np.cumsum(np.diff(along_mm[order]) > SAME_POSITION_MM)))
    found = np.empty(len(frames), dtype=int)
    found[order] = numbers
    return [int(number) for number in found]


def lay_along_normal(frames: Sequence[Frame]) -> SortedStack:
    """Sort frames along their normal (PS3.3 C.7.6.2.1.1) and check that it is one regular grid.

    Raises MissingSlicesError (with the missing projections), or NotAVolumeError for one image only,
    a mixed grid, a duplicate position, uneven spacing or a sheared stack; the text names UID and number.
    """
    first, uid = frames[0], frames[0].series_instance_uid
    for frame in frames:
        if not same_grid(first, frame):
            raise NotAVolumeError(f"series {uid} mixes {difference(first, frame)}")
    if len(frames) < 2:
        raise NotAVolumeError(f"series {uid} has one image only at this orientation: {first.source}")
    places_mm = projections(frames)
    order = np.argsort(places_mm, kind="stable")
    ordered, places_mm = tuple(frames[int(index)] for index in order), places_mm[order]
    _refuse_duplicates(uid, ordered, places_mm)
    _refuse_gaps(uid, ordered, places_mm)
    _refuse_shear(uid, ordered)
    spacing_mm = float(places_mm[-1] - places_mm[0]) / (len(ordered) - 1)
    return SortedStack(frames=ordered, spacing_mm=spacing_mm, normal=first.normal)


def _refuse_duplicates(uid: str, frames: Sequence[Frame], projections: NDArray[np.float64]) -> None:
    repeated = [i for i, gap in enumerate(np.diff(projections)) if gap <= SAME_POSITION_MM]
    if repeated:
        at, a, b = projections[repeated[0]], frames[repeated[0]].source, frames[repeated[0] + 1].source
        more = f", and {len(repeated) - 1} more" if len(repeated) > 1 else ""
        raise NotAVolumeError(f"series {uid} has two images at {at:.2f} mm: {a} and {b}{more}")


def _refuse_gaps(uid: str, frames: Sequence[Frame], projections: NDArray[np.float64]) -> None:
    gaps = np.diff(projections)
    step = _step_mm(frames[0], gaps)
    tolerance = max(UNEVEN_MM, UNEVEN_SHARE * step)
    counts = np.rint(gaps / step)
    uneven = np.abs(gaps - counts * step) > 2 * tolerance  # both ends of a gap may be off
    if not uneven.any() and counts.max() > 1 and counts.max() <= LARGEST_GAP_SLICES:
        missing = [
            float(start + step * number)
            for start, count in zip(projections, counts, strict=False)
            for number in range(1, int(count))
        ]
        listed = ", ".join([f"{position:.2f}" for position in missing[:10]] + ["..."] * (len(missing) > 10))
        raise MissingSlicesError(
            f"series {uid} misses {len(missing)} of {len(frames) + len(missing)} slices, at {listed} mm",
            positions_mm=missing,
        )
    regular = np.linspace(projections[0], projections[-1], len(projections))
    if np.abs(projections - regular).max() > tolerance:
        worst = int(np.argmax(np.abs(gaps - step)))
        raise NotAVolumeError(
            f"series {uid} is unevenly spaced: {gaps[worst]:.3f} mm from {frames[worst].source} to "
            f"{frames[worst + 1].source}, {step:.3f} mm elsewhere"
        )


def _step_mm(frame: Frame, gaps: NDArray[np.float64]) -> float:
    """Distance that neighbours should have: the usual one, or the stated one if that tells of lost slices.

    SpacingBetweenSlices is trusted only where every gap is a multiple of it and it is no smaller than
    the slice, since some writers put the gap between slices there. So a series that lost every second slice
    is not taken for one with thick steps.
    """
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    stated, thickness = frame.number("SpacingBetweenSlices"), frame.number("SliceThickness")
    if stated is None or thickness is None or not max(thickness, SAME_POSITION_MM) <= stated < usual:
        return usual
    multiples = np.abs(gaps - stated * np.rint(gaps / stated)) <= max(UNEVEN_MM, UNEVEN_SHARE * stated)
    return stated if multiples.all() else usual


def _refuse_shear(uid: str, frames: Sequence[Frame]) -> None:
    positions = np.array([frame.position_mm for frame in frames])
    along = (positions - positions[0]) @ frames[0].normal
    sideways = np.linalg.norm(positions - positions[0] - np.outer(along, frames[0].normal), axis=1)
    if sideways.max() > SHEAR_MM:
        raise NotAVolumeError(
            f"series {uid} is sheared: {frames[int(sideways.argmax())].source} lies {sideways.max():.2f} mm "
            f"beside the normal through {frames[0].source}"
        )
