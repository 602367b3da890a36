"""The main path: files of one series in, checked result objects out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpnet_node.config import RouteConfig
from gpnet_node.errors import NotEligibleError
from gpnet_node.imaging import gate, series
from gpnet_node.imaging.volume import Volume, assemble
from gpnet_node.model.card import ModelCard
from gpnet_node.model.segmentation import Segmentation
from gpnet_node.result_profile import USUAL_PROFILE, ResultProfile
from gpnet_node.results import selfcheck
from gpnet_node.results.content import NOTHING_KNOWN, Background, Content
from gpnet_node.results.identifiers import JobIdentity
from gpnet_node.results.measure import measure
from gpnet_node.results.objects import write_objects
from gpnet_node.results.written import WrittenObject


class Segmenter(Protocol):
    """Anything that segments a volume: here GP-net on this machine."""

    @property
    def card(self) -> ModelCard:
        """The structures that its label maps hold."""

    def segment(self, volume: Volume) -> Segmentation:
        """Label map on exactly the volume's grid, and how far to trust it. Raises NoPallidumError."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What one series became. ``route`` is None when the gate was not asked.

    Where the content's quality has reasons, a person must look at the objects before they leave.
    """

    route: RouteConfig | None
    content: Content
    objects: tuple[WrittenObject, ...]
    left_out: tuple[str, ...]  # what could not be made of this series, and why


def run(
    paths: Sequence[Path],
    *,
    job: JobIdentity,
    routes: Sequence[RouteConfig] | None,
    segmenter_for: Callable[[RouteConfig | None], Segmenter],
    profiles_of: Callable[[RouteConfig | None], Sequence[ResultProfile]] = lambda _: (USUAL_PROFILE,),
    background: Background = NOTHING_KNOWN,
) -> Results:
    """Segment one series; ``routes`` None leaves the gate out. ``profiles_of`` a route: what is written.

    Raises NotEligibleError with the gate's reasons, NotAVolumeError or UnreadableInstanceError for a series
    that cannot be assembled, NoPallidumError, and SelfCheckError when an object disagrees with the label map.
    """
    frames = series.read_headers(paths)
    series.refuse_mixed_patients(frames)
    stacks = series.split(frames)
    if routes is None:
        chosen = series.choose(stacks)
        decision = gate.Decision(stack=chosen, route=None, notes=tuple(gate.notes_on(chosen)))
    else:
        decision = gate.decide(stacks, routes)
    if decision.stack is None:
        raise NotEligibleError(decision.reasons)
    volume = assemble(decision.stack)
    segmenter = segmenter_for(decision.route)
    segmentation = segmenter.segment(volume)
    content = Content(
        volume=volume,
        labels=segmentation.labels,
        quality=segmentation.quality,
        measurements=measure(volume, segmentation.labels, segmenter.card),
        card=segmenter.card,
        job=job,
        gate=decision.notes,
        background=background,
    )
    objects, left_out = write_objects(content, profiles_of(decision.route))
    selfcheck.check(objects, content)
    return Results(route=decision.route, content=content, objects=objects, left_out=left_out)
