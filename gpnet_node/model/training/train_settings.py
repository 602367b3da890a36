"""``train.toml``: who is trained on, and how. A number that it does not name has its default here."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gpnet_node.model.drawing.scene import DrawSettings
from gpnet_node.model.network import GPNetConfig
from gpnet_node.model.training.loss import LossSettings
from gpnet_node.toml_file import TomlFile

Part = Literal["segmenter", "localiser"]
PARTS: tuple[Part, ...] = ("segmenter", "localiser")


class PartSettings(BaseModel):
    """How one network is trained. ``steps = 0`` takes it over from ``start`` as it is.

    ``average``: decay of the running mean of the weights, which is what is shipped. ``threads``: of the
    arithmetic; another number ends in slightly other weights. ``workers``: processes that draw.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    network: GPNetConfig
    steps: int
    batch: int
    learning_rate: float
    warm_up: int = 300
    weight_decay: float = 1e-5
    clip: float = 1.0
    average: float = 0.999
    bfloat16: bool = True  # of the forward pass; weights and losses stay float32
    threads: int = 2
    workers: int = 1
    save_every: int = 100
    validate_every: int = 500
    validation_samples: int = 12


class CohortSettings(BaseModel):
    """How an own cohort is used. Subjects are divided into ``folds``; those of ``fold`` are validated on.

    ``drawn_share``: of the samples, how many are drawn ones. ``second_channel``: T1w as well, for which
    segmenter.network.in_channels must be 2; it is left out of a share ``drop_out`` of the samples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    folds: int = Field(default=5, ge=2)
    fold: int = Field(default=0, ge=0)
    drawn_share: float = Field(default=0.5, ge=0, le=1)
    second_channel: bool = False
    drop_out: float = Field(default=0.3, ge=0, le=1)
    rotation_degrees: float = 12.0
    stretch: float = 0.1
    shift_voxels: float = 4.0


class TrainSettings(BaseModel):
    """The whole file. ``start``: folder of shipped weights to go on from, seen from the file's own folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int
    train_people: tuple[str, ...]
    validate_people: tuple[str, ...]
    test_people: tuple[str, ...]
    segmenter: PartSettings
    localiser: PartSettings
    loss: LossSettings = LossSettings()
    draw: DrawSettings = DrawSettings()
    start: str | None = None
    cohort: CohortSettings = CohortSettings()

    @model_validator(mode="after")
    def _channels_are_those_of_the_network(self) -> "TrainSettings":
        channels = 2 if self.cohort.second_channel else 1
        if self.segmenter.network.in_channels != channels:
            raise ValueError(f"segmenter.network.in_channels must be {channels}: see cohort.second_channel")
        if self.cohort.fold >= self.cohort.folds:
            raise ValueError(f"cohort.fold must be below cohort.folds, {self.cohort.folds}")
        return self

    def part(self, name: Part) -> PartSettings:
        """Settings of one network."""
        return self.segmenter if name == "segmenter" else self.localiser


def read_settings(path: Path) -> TrainSettings:
    """Raises ConfigurationError naming file, line and key."""
    return TomlFile(path).validated(TrainSettings)


def recipe(settings: TrainSettings, name: Part, cohort_sha256: str | None = None) -> dict[str, object]:
    """What one network is trained by, as plain values to be kept with it."""
    kept = settings.model_dump(mode="json", exclude_none=True)
    if cohort_sha256 is None:
        del kept["cohort"]
    else:
        kept["cohort"]["sha256"] = cohort_sha256
    return {key: value for key, value in kept.items() if key == name or key not in PARTS}
