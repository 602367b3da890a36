"""A series as its headers tell it: the volumes it holds, which one counts, and whether it is whole.

``split`` groups frames that can belong together, ``choose`` names the one to use, ``sort`` lays it along the
slice normal (PS3.3 C.7.6.2.1.1) and refuses what is not one regular, gap-free stack.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.errors import MissingSlicesError, NotAVolumeError
from gpnet_node.imaging.frames import Frame, read_headers
from gpnet_node.imaging.kinds import acquisition_traits, component, repetition_traits
from gpnet_node.imaging.pixels import Limits

__all__ = [
    "Frame",
    "Limits",
    "SortedStack",
    "Stack",
    "choose",
    "read_headers",
    "sort",
    "split",
]

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
# A hole wider than this many slices is a second block elsewhere, not missing slices.
LARGEST_GAP_SLICES = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """Frames that can belong to one volume: same series, frame of reference, grid and kind of image.

    Not checked for gaps and duplicates; ``sort`` does that. ``traits``: what tells this stack from others
    of its series, as (name, value). ``repetition``: 1, 2, ... for acquisitions that followed each other
    at the same positions, else 1.
    """

    frames: tuple[Frame, ...]
    traits: tuple[tuple[str, str], ...] = ()
    repetition: int = 1

    @property
    def series_instance_uid(self) -> str:
        """Of all its frames."""
        return self.frames[0].series_instance_uid

    def describe(self) -> str:
        """Say in one phrase what it holds, without naming the patient."""
        first = self.frames[0]
        traits = "".join(f", {name} {value}" for name, value in self.traits)
        return f"{len(self.frames)} images of {first.rows} x {first.columns}{traits}"


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


def split(frames: Sequence[Frame]) -> tuple[Stack, ...]:
    """Group frames into stacks that can each be one volume, in order of first appearance.

    Always apart: other series, frame of reference, orientation, matrix or pixel spacing; magnitude and
    phase; other image type, echo, b-value, inversion time, vendor's stack. Apart only where positions
    repeat, and only if each part then covers the same positions once: temporal position, acquisition
    number, diffusion direction, trigger time, vendor's image subset. What still repeats stays in one
    stack, and ``sort`` names it.
    """
    groups: dict[tuple[object, ...], list[Frame]] = {}
    grids: list[Frame] = []
    for frame in frames:
        grid = next((i for i, other in enumerate(grids) if _same_grid(frame, other)), len(grids))
        if grid == len(grids):
            grids.append(frame)
        groups.setdefault((grid, acquisition_traits(frame)), []).append(frame)
    return tuple(stack for group in groups.values() for stack in _repetitions(group))


def _same_grid(a: Frame, b: Frame) -> bool:
    return (
        (a.series_instance_uid, a.frame_of_reference_uid, a.rows, a.columns)
        == (b.series_instance_uid, b.frame_of_reference_uid, b.rows, b.columns)
        and np.allclose(a.orientation, b.orientation, rtol=0, atol=SAME_DIRECTION)
        and np.allclose(a.spacing_mm, b.spacing_mm, rtol=SAME_SPACING_SHARE, atol=0)
    )


def _repetitions(frames: list[Frame]) -> Iterable[Stack]:
    """Take frames of one kind apart where they repeat positions, if the headers say how."""
    traits = acquisition_traits(frames[0])
    whole = Stack(frames=tuple(frames), traits=traits)
    places = _places(frames)
    if len(set(places)) == len(frames):
        return (whole,)
    for name, trait, is_order in repetition_traits():
        parts = _parts(frames, places, trait)
        if parts:
            return tuple(
                Stack(
                    frames=tuple(part),
                    traits=(*traits, (name, value if isinstance(value, str) else f"{value:g}")),
                    repetition=number if is_order else 1,
                )
                for number, (value, part) in enumerate(parts, start=1)
            )
    return (whole,)


def _parts(
    frames: list[Frame], places: list[int], trait: Callable[[Frame], float | str | None]
) -> list[tuple[float | str, list[Frame]]]:
    """Frames by value of ``trait``, ascending; empty unless each part covers all positions just once."""
    parts: dict[float | str, list[tuple[int, Frame]]] = {}
    for place, frame in zip(places, frames, strict=True):
        value = trait(frame)
        if value is None:
            return []
        parts.setdefault(value, []).append((place, frame))
    everywhere = sorted(set(places))
    if any(sorted(place for place, _ in part) != everywhere for part in parts.values()):
        return []
    order = sorted(parts, key=lambda value: (isinstance(value, str), value))
    return [(value, [frame for _, frame in parts[value]]) for value in order]


def _projections(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Position of each frame along the common normal, mm."""
    return np.array([frame.position_mm for frame in frames]) @ frames[0].normal


def _places(frames: Sequence[Frame]) -> list[int]:
    """Number of each frame's position; frames within SAME_POSITION_MM of a neighbour share one."""
    projections = _projections(frames)
    order = np.argsort(projections, kind="stable")
    numbers = np.concatenate(([0], np.cumsum(np.diff(projections[order]) > SAME_POSITION_MM)))
    places = np.empty(len(frames), dtype=int)
    places[order] = numbers
    return [int(place) for place in places]


def choose(stacks: Sequence[Stack]) -> Stack:
    """Choose the one stack to use where nobody else decides.

    One stack is itself. Of several: only magnitude images; of those the lowest b-value, then the longest
    echo (the most T2-weighted), then the first repetition. Raises NotAVolumeError where they belong to
    several series, lie on different grids (localizers, a slice of another matrix), hold no magnitude, or
    are still several.
    """
    if not stacks:
        raise NotAVolumeError("there is no image")
    if len(stacks) == 1:
        return stacks[0]
    uids = sorted({stack.series_instance_uid for stack in stacks})
    if len(uids) > 1:
        raise NotAVolumeError(f"the images belong to {len(uids)} series: {', '.join(uids)}")
    _refuse_mixed_grids(stacks)
    left = [stack for stack in stacks if component(stack.frames[0]) == "MAGNITUDE"]
    if not left:
        raise NotAVolumeError(f"series {uids[0]} holds {len(stacks)} volumes, none of them magnitude images")
    best = min(_preference(stack) for stack in left)
    left = [stack for stack in left if _preference(stack) == best]
    if len(left) > 1:
        listed = "; ".join(stack.describe() for stack in left)
        raise NotAVolumeError(f"series {uids[0]} holds {len(left)} volumes of equal rank: {listed}")
    return left[0]


def _preference(stack: Stack) -> tuple[float, float, int]:
    first = stack.frames[0]
    return (first.number("DiffusionBValue") or 0.0, -(first.echo_time_ms or 0.0), stack.repetition)


def _refuse_mixed_grids(stacks: Sequence[Stack]) -> None:
    first = stacks[0].frames[0]
    for stack in stacks[1:]:
        other = stack.frames[0]
        if not _same_grid(first, other):
            raise NotAVolumeError(f"series {first.series_instance_uid} mixes {_difference(first, other)}")


def _difference(a: Frame, b: Frame) -> str:
    if a.frame_of_reference_uid != b.frame_of_reference_uid:
        return f"frames of reference: {a.source} and {b.source} differ"
    if (a.rows, a.columns) != (b.rows, b.columns):
        return f"matrices: {a.source} has {a.rows} x {a.columns}, {b.source} has {b.rows} x {b.columns}"
    if not np.allclose(a.orientation, b.orientation, rtol=0, atol=SAME_DIRECTION):
        return f"orientations: {a.source} and {b.source} do not lie parallel"
    return f"pixel spacings: {a.source} has {a.spacing_mm} mm, {b.source} has {b.spacing_mm} mm"


def sort(stack: Stack) -> SortedStack:
    """Lay a stack along its normal and check that it is one regular grid.

    Raises MissingSlicesError (with the missing projections), or NotAVolumeError for one image only,
    a mixed grid, a duplicate position, uneven spacing or a sheared stack; the text names UID and number.
    """
    first, uid = stack.frames[0], stack.series_instance_uid
    for frame in stack.frames:
        if not _same_grid(first, frame):
            raise NotAVolumeError(f"series {uid} mixes {_difference(first, frame)}")
    if len(stack.frames) < 2:
        raise NotAVolumeError(f"series {uid} has one image only at this orientation: {first.source}")
    projections = _projections(stack.frames)
    order = np.argsort(projections, kind="stable")
    frames = tuple(stack.frames[int(index)] for index in order)
    projections = projections[order]
    _refuse_duplicates(uid, frames, projections)
    _refuse_gaps(uid, frames, projections)
    _refuse_shear(uid, frames)
    spacing_mm = float(projections[-1] - projections[0]) / (len(frames) - 1)
    return SortedStack(frames=frames, spacing_mm=spacing_mm, normal=first.normal)


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
    uneven = np.abs(gaps - counts * step) > tolerance
    if not uneven.any() and counts.max() > 1 and counts.max() <= LARGEST_GAP_SLICES:
        missing = [
            float(start + step * number)
            for start, count in zip(projections, counts, strict=False)
            for number in range(1, int(count))
        ]
        listed = ", ".join(f"{position:.2f}" for position in missing[:10]) + (
            ", ..." if len(missing) > 10 else ""
        )
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
