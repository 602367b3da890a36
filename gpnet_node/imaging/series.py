"""A series as its headers tell it: the volumes it holds, which one counts, and whether it is whole.

``split`` groups frames that can belong together, ``choose`` names the one to use, ``sort`` lays it along the
slice normal (PS3.3 C.7.6.2.1.1) and refuses what is not one regular, gap-free stack.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpnet_node.errors import NotAVolumeError
from gpnet_node.imaging.frames import Frame, find_files, read_headers
from gpnet_node.imaging.grid import (
    SortedStack,
    difference,
    grid_numbers,
    lay_along_normal,
    places,
    same_grid,
)
from gpnet_node.imaging.kinds import acquisition_traits, component, repetition_traits, told
from gpnet_node.imaging.pixels import Limits

__all__ = [
    "Frame",
    "Limits",
    "SortedStack",
    "Stack",
    "choose",
    "find_files",
    "read_headers",
    "refuse_mixed_patients",
    "sort",
    "split",
]


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
        traits = "".join(f", {name} {told(value)}" for name, value in self.traits)
        return f"{len(self.frames)} images of {first.rows} x {first.columns}{traits}"


def split(frames: Sequence[Frame]) -> tuple[Stack, ...]:
    """Group frames into stacks that can each be one volume, in order of first appearance.

    Always apart: other series, frame of reference, orientation, matrix or pixel spacing; magnitude and
    phase; other image type, echo, b-value, inversion time, vendor's stack. Apart only where positions
    repeat, and only if each part then covers the same positions once: temporal position, acquisition
    number, diffusion direction, trigger time, vendor's image subset. What still repeats stays in one
    stack, and ``sort`` names it.
    """
    groups: dict[tuple[object, ...], list[Frame]] = {}
    for frame, grid in zip(frames, grid_numbers(frames), strict=True):
        groups.setdefault((grid, acquisition_traits(frame)), []).append(frame)
    return tuple(stack for group in groups.values() for stack in _repetitions(group))


def _repetitions(frames: list[Frame]) -> Iterable[Stack]:
    """Take frames of one kind apart where they repeat positions, if the headers say how."""
    traits = acquisition_traits(frames[0])
    whole = Stack(frames=tuple(frames), traits=traits)
    where = places(frames)
    if len(set(where)) == len(frames):
        return (whole,)
    for name, trait, is_order in repetition_traits():
        parts = _parts(frames, where, trait)
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
    frames: list[Frame], where: list[int], trait: Callable[[Frame], float | str | None]
) -> list[tuple[float | str, list[Frame]]]:
    """Frames by value of ``trait``, ascending; empty unless each part covers all positions just once."""
    parts: dict[float | str, list[tuple[int, Frame]]] = {}
    for place, frame in zip(where, frames, strict=True):
        value = trait(frame)
        if value is None:
            return []
        parts.setdefault(value, []).append((place, frame))
    everywhere = sorted(set(where))
    if any(sorted(place for place, _ in part) != everywhere for part in parts.values()):
        return []
    order = sorted(parts, key=lambda value: (isinstance(value, str), value))
    return [(value, [frame for _, frame in parts[value]]) for value in order]


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
    refuse_mixed_grids(stacks)
    left = [stack for stack in stacks if component(stack.frames[0]) == "MAGNITUDE"]
    if not left:
        raise NotAVolumeError(f"series {uids[0]} holds {len(stacks)} volumes, none of them magnitude images")
    best = min(suitability(stack) for stack in left)
    left = [stack for stack in left if suitability(stack) == best]
    if len(left) > 1:
        listed = "; ".join(stack.describe() for stack in left)
        raise NotAVolumeError(f"series {uids[0]} holds {len(left)} volumes of equal rank: {listed}")
    return left[0]


def suitability(stack: Stack) -> tuple[float, float, int]:
    """Order of preference among magnitude stacks, best first: see ``choose``."""
    first = stack.frames[0]
    return (first.number("DiffusionBValue") or 0.0, -(first.echo_time_ms or 0.0), stack.repetition)


def refuse_mixed_grids(stacks: Sequence[Stack]) -> None:
    """Raise NotAVolumeError where the stacks of one series do not lie on one grid, naming two images."""
    first = stacks[0].frames[0]
    for stack in stacks[1:]:
        other = stack.frames[0]
        if not same_grid(first, other):
            raise NotAVolumeError(f"series {first.series_instance_uid} mixes {difference(first, other)}")


def refuse_mixed_patients(frames: Sequence[Frame]) -> None:
    """Raise NotAVolumeError where images are not all of one patient and study, with counts and a UID.

    So it is while a corrected series arrives. The text never quotes what differs.
    """
    found: dict[tuple[str, int], dict[str, None]] = {}
    for frame in frames:
        images = found.setdefault((frame.study_instance_uid, frame.patient), {})
        images[frame.source.sop_instance_uid] = None
    if len(found) > 1:
        total, fewest = sum(map(len, found.values())), min(found.values(), key=len)
        raise NotAVolumeError(
            f"its images are of {len(found)} patients or studies: {len(fewest)} of {total} differ from the "
            f"others, SOP instance {next(iter(fewest))} among them"
        )


def sort(stack: Stack) -> SortedStack:
    """Lay a stack along its normal and check that it is one regular grid.

    Raises as ``grid.lay_along_normal`` does: MissingSlicesError or NotAVolumeError.
    """
    return lay_along_normal(stack.frames)
