"""What a series must be to be segmented (``routes.toml``)."""

import re

from pydantic import field_validator

from gpnet_node.section import Count, Name, Positive, Range, Section


def _ordered(bounds: Range | None) -> Range | None:
    if bounds is not None and bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]:g} is above the upper bound {bounds[1]:g}")
    return bounds


class ContrastRule(Section):
    """Bounds on one kind of contrast; each bound given must hold.

    ``scanning_sequence``: at least one of these is among the values of Scanning Sequence (PS3.3 C.8.3.1);
    ``excluded_scanning_sequence``: none of these is. ``description_pattern``: a regular expression searched
    in Series Description or Protocol Name, upper and lower case alike.
    """

    name: Name
    echo_time_ms: Range | None = None
    repetition_time_ms: Range | None = None
    scanning_sequence: tuple[str, ...] = ()
    excluded_scanning_sequence: tuple[str, ...] = ()
    description_pattern: str | None = None

    _bounds = field_validator("echo_time_ms", "repetition_time_ms")(_ordered)

    @field_validator("description_pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
        return pattern


T2_SPIN_ECHO = ContrastRule(
    name="t2-tse",
    echo_time_ms=(30.0, 150.0),
    repetition_time_ms=(1500.0, 20000.0),
    scanning_sequence=("SE", "RM"),
    excluded_scanning_sequence=("EP", "IR"),  # diffusion and FLAIR have long echo times too
)


class EligibilityConfig(Section):
    """What a series must be to be segmented: every bound holds, and any one contrast rule matches."""

    modalities: tuple[str, ...] = ("MR",)
    field_strength_tesla: Range = (6.5, 8.0)
    contrast: tuple[ContrastRule, ...] = (T2_SPIN_ECHO,)
    in_plane_spacing_mm: Positive = 0.8  # at most
    slice_spacing_mm: Positive = 2.5  # at most
    coverage_mm: tuple[Positive, Positive] = (20.0, 100.0)  # at least: along the slice normal, in the plane
    min_slices: Count = 10
    prefer_distortion_corrected: bool = True
    allow_lossy: bool = True  # lossy compressed series are segmented, and flagged

    _bounds = field_validator("field_strength_tesla")(_ordered)

    @field_validator("contrast")
    @classmethod
    def _some_contrast(cls, rules: tuple[ContrastRule, ...]) -> tuple[ContrastRule, ...]:
        if not rules:
            raise ValueError("no contrast rule: nothing would ever be segmented")
        return rules
