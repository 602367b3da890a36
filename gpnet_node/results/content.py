"""What all objects of one result tell, each in its own way."""

from dataclasses import dataclass

from gpnet_node.errors import ConfigurationError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.model.segmentation import Quality
from gpnet_node.results.acpc import AcPcPosition, Plan
from gpnet_node.results.identifiers import JobIdentity
from gpnet_node.results.measure import Measurement
from gpnet_node.results.source import Reference


@dataclass(frozen=True, kw_only=True)
class Background:
    """What is known of the series beyond its images.

    ``completeness``: why it was thought complete. ``plan``: where the commissures lie, None if nobody said.
    ``replaces``: the objects of its earlier result that were delivered.
    """

    completeness: str = ""
    plan: Plan | None = None
    replaces: tuple[Reference, ...] = ()


NOTHING_KNOWN = Background()


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """A segmented series. ``gate``: what the gate had to remark.

    Raises ConfigurationError for a plan that was made on images of another frame of reference.
    """

    volume: Volume
    labels: LabelMap
    quality: Quality
    measurements: tuple[Measurement, ...]
    card: ModelCard
    job: JobIdentity
    gate: tuple[str, ...] = ()
    background: Background = NOTHING_KNOWN

    def __post_init__(self) -> None:
        """Refuse a plan that says nothing of these images."""
        plan, own = self.background.plan, str(self.volume.geometry.frame_of_reference_uid)
        if plan is not None and plan.frame_of_reference_uid != own:
            raise ConfigurationError(
                f"the plan was made in frame of reference {plan.frame_of_reference_uid}, these images lie in "
                f"{own}"
            )

    def position(self, measurement: Measurement) -> AcPcPosition | None:
        """A structure's centre of mass as seen from the commissures; None where either is not known."""
        plan = self.background.plan
        if plan is None or measurement.centroid_mm is None:
            return None
        return plan.position(measurement.centroid_mm)
