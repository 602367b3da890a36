"""May this series be segmented? Decided from headers by the routes, with a sentence for each reason."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpnet_node.config import RouteConfig
from gpnet_node.eligibility import ContrastRule, EligibilityConfig
from gpnet_node.errors import NotAVolumeError
from gpnet_node.imaging.frames import Frame
from gpnet_node.imaging.kinds import component, distortion_correction, scanning_sequences, told
from gpnet_node.imaging.series import SortedStack, Stack, refuse_mixed_grids, sort, suitability

# Everything this node writes bears this Manufacturer (or this contributing equipment): never our own input.
OWN_MANUFACTURER = "gpnet_node"
# Better first; an image that does not say is between the corrected and the uncorrected ones.
CORRECTION_ORDER = ("DIS3D", "DIS2D", None, "ND")
# Direction cosines further off than this were rounded to fewer than five digits, and move voxels by microns.
EXACT_COSINES = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What the gate says: either a stack and its route, or the reasons against, one sentence each.

    ``notes``: what a reader of the results must know about an eligible series.
    """

    stack: Stack | None
    route: RouteConfig | None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def eligible(self) -> bool:
        """Whether there is something to segment."""
        return self.stack is not None


def decide(stacks: Sequence[Stack], routes: Sequence[RouteConfig]) -> Decision:
    """Offer the stacks to each route in turn; the first route that takes one wins.

    Of several stacks that a route takes, the one better corrected for gradient distortion is used (DIS3D,
    DIS2D, not stated, ND, where the route prefers that), then the one that ``series.choose`` would take. Not
    eligible is a normal answer. Raises NotAVolumeError (or MissingSlicesError) for a series that is meant
    for a route but is not one whole volume.
    """
    reasons: list[str] = []
    broken: list[NotAVolumeError] = []
    of_series: dict[str, list[Stack]] = {}
    for stack in stacks:
        of_series.setdefault(stack.series_instance_uid, []).append(stack)
    mixed = {uid: _mixed(of_one) for uid, of_one in of_series.items()}
    for route in routes:
        taken: list[Stack] = []
        for stack in stacks:
            try:
                faults = _faults(stack, mixed[stack.series_instance_uid], route.eligible)
            except NotAVolumeError as exc:
                broken.append(exc)
                continue
            if not faults:
                taken.append(stack)
            series = f"Series {stack.series_instance_uid}: " if len(of_series) > 1 else ""
            offered = f"Route {route.name}: " if len(routes) > 1 else ""
            reasons.extend(f"{series}{offered}{fault}" for fault in faults)
        if taken:
            return _best(taken, route, tuple(dict.fromkeys(f"Passed over: {error}." for error in broken)))
    if broken:
        raise broken[0]
    fallback = "There is no image." if routes else "No route is configured."
    return Decision(stack=None, route=None, reasons=tuple(dict.fromkeys(reasons)) or (fallback,))


def _mixed(stacks: Sequence[Stack]) -> str | None:
    """Say what grids a series mixes; that is looked for once, however many stacks it has."""
    try:
        refuse_mixed_grids(stacks)
    except NotAVolumeError as exc:
        return str(exc)
    return None


def _faults(stack: Stack, mixed: str | None, eligible: EligibilityConfig) -> tuple[str, ...]:
    """All reasons against a stack; its geometry is looked at only when its kind is right."""
    faults = tuple(_faults_of_kind(stack, eligible))
    if faults:
        return faults
    if mixed is not None:
        raise NotAVolumeError(mixed)
    return tuple(_faults_of_grid(sort(stack), eligible))


def _best(stacks: Sequence[Stack], route: RouteConfig, notes: Sequence[str]) -> Decision:
    def rank(stack: Stack) -> tuple[int, float, float, int]:
        correction = CORRECTION_ORDER.index(distortion_correction(stack.frames[0]))
        return (correction if route.eligible.prefer_distortion_corrected else 0, *suitability(stack))

    ranked = sorted(stacks, key=rank)
    equals = [stack for stack in ranked if rank(stack) == rank(ranked[0])]
    if len(equals) > 1:
        listed = "; ".join(f"series {stack.series_instance_uid}, {stack.describe()}" for stack in equals)
        return Decision(
            stack=None,
            route=None,
            reasons=(f"{len(equals)} volumes suit route {route.name} equally well: {listed}.",),
        )
    return Decision(stack=ranked[0], route=route, notes=(*notes, *notes_on(ranked[0])))


def notes_on(stack: Stack) -> Iterator[str]:
    """What a reader of the results must know about the images, one sentence each."""
    correction = distortion_correction(stack.frames[0])
    if correction == "ND":
        yield "The images are not corrected for gradient distortion (ND), which grows off the isocentre."
    if correction == "DIS2D":
        yield "The images are corrected for gradient distortion within the slice only (DIS2D)."
    if _is_lossy(stack):
        yield "The images were compressed with loss."
    if any(frame.pixels.photometric == "MONOCHROME1" for frame in stack.frames):
        yield "The images are MONOCHROME1; their stored values are used as they are."
    worst = max(stack.frames, key=lambda frame: frame.cosines_off)
    if worst.cosines_off > EXACT_COSINES:
        yield (
            "Direction cosines were made unit vectors at a right angle, by a change of up to "
            f"{worst.cosines_off:.4f} (in {worst.source})."
        )


def _faults_of_kind(stack: Stack, eligible: EligibilityConfig) -> Iterator[str]:
    """What the kind of image speaks against; one frame speaks for its stack."""
    frame = stack.frames[0]
    modality = frame.text("Modality") or ""
    if modality not in eligible.modalities:
        taken = ", ".join(eligible.modalities)
        yield f"Modality is {told(modality) or 'not stated'}; the route takes {taken}."
    if _is_own(frame):
        yield f"It was written by {OWN_MANUFACTURER} itself."
    for image_type in {frame.texts("ImageType")[:2], frame.image_type[:2]}:
        if image_type == ("DERIVED", "SECONDARY"):
            yield "Image Type is DERIVED\\SECONDARY; only acquired images are segmented."
    if component(frame) != "MAGNITUDE":
        yield f"It is a {component(frame)} image; only MAGNITUDE images are segmented."
    field = frame.number("MagneticFieldStrength")
    yield from _outside("Field strength", field, eligible.field_strength_tesla, "T")
    if _is_lossy(stack) and not eligible.allow_lossy:
        yield "It was compressed with loss, which the route does not allow."
    mismatches = [tuple(_mismatches(frame, rule)) for rule in eligible.contrast]
    if all(mismatches):
        for rule, sentences in zip(eligible.contrast, mismatches, strict=True):
            yield f"Contrast is not {rule.name}: {' '.join(sentences)}"


def _is_lossy(stack: Stack) -> bool:
    return any(frame.pixels.lossy for frame in stack.frames)


def _is_own(frame: Frame) -> bool:
    return OWN_MANUFACTURER in (*frame.texts("Manufacturer"), *frame.texts("ContributingEquipmentSequence"))


def _mismatches(frame: Frame, rule: ContrastRule) -> Iterator[str]:
    if rule.echo_time_ms is not None:
        yield from _outside("echo time", frame.echo_time_ms, rule.echo_time_ms, "ms")
    if rule.repetition_time_ms is not None:
        yield from _outside("repetition time", frame.number("RepetitionTime"), rule.repetition_time_ms, "ms")
    sequences = scanning_sequences(frame)
    found = told("\\".join(sequences)) or "not stated"
    if rule.scanning_sequence and not set(sequences) & set(rule.scanning_sequence):
        yield f"scanning sequence is {found}; the rule asks for {' or '.join(rule.scanning_sequence)}."
    excluded = sorted(set(sequences) & set(rule.excluded_scanning_sequence))
    if excluded:
        yield f"scanning sequence is {found}; the rule excludes {', '.join(excluded)}."
    if rule.description_pattern is not None:
        described = (frame.text("SeriesDescription") or "", frame.text("ProtocolName") or "")
        if not any(re.search(rule.description_pattern, text, re.IGNORECASE) for text in described):
            yield f"neither series description nor protocol name matches {rule.description_pattern!r}."


def _outside(name: str, found: float | None, bounds: tuple[float, float], unit: str) -> Iterator[str]:
    if found is None:
        yield f"{name} is not stated; the route takes {bounds[0]:g} to {bounds[1]:g} {unit}."
    elif not bounds[0] <= found <= bounds[1]:
        yield f"{name} is {found:g} {unit}; the route takes {bounds[0]:g} to {bounds[1]:g} {unit}."


def _faults_of_grid(stack: SortedStack, eligible: EligibilityConfig) -> Iterator[str]:
    frame, slices = stack.frames[0], len(stack.frames)
    if slices < eligible.min_slices:
        yield f"It has {slices} slices; the route asks for at least {eligible.min_slices}."
    # The limit is a protocol's own figure, so the last digits of a computed spacing do not count.
    in_plane_mm, slice_mm = round(max(frame.spacing_mm), 3), round(stack.spacing_mm, 3)
    if in_plane_mm > eligible.in_plane_spacing_mm:
        most_mm = eligible.in_plane_spacing_mm
        yield f"In-plane spacing is {in_plane_mm:g} mm; the route takes at most {most_mm:g} mm."
    if slice_mm > eligible.slice_spacing_mm:
        yield f"Slice spacing is {slice_mm:g} mm; the route takes at most {eligible.slice_spacing_mm:g} mm."
    along_mm = slices * stack.spacing_mm
    across_mm = min(frame.rows * frame.spacing_mm[0], frame.columns * frame.spacing_mm[1])
    for name, covered_mm, least_mm in (
        ("across the slices", along_mm, eligible.coverage_mm[0]),
        ("within the slice", across_mm, eligible.coverage_mm[1]),
    ):
        if round(covered_mm, 3) < least_mm:
            yield f"It covers {covered_mm:.1f} mm {name}; the route asks for at least {least_mm:g} mm."
