"""The model card: the one table of structures, codes, colours, grid and provenance (``card.toml``)."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpnet_node.errors import ConfigurationError

CARD_NAME = "card.toml"
WEIGHTS_NAME = "weights.safetensors"


class Code(BaseModel):
    """A coded concept as DICOM writes it (PS3.3 8.8)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: str
    scheme: str
    meaning: str


class Structure(BaseModel):
    """One segmented structure on one side."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    number: int  # label value, and SEG segment number
    name: str  # "GPe left"
    side: Literal["left", "right"]
    channel: int  # of the network's output
    type: Code  # SegmentedPropertyType
    laterality: Code
    region: Code  # anatomic region
    category: Code
    colour: tuple[int, int, int]  # sRGB, 0-255
    volume_range_mm3: tuple[float, float]  # conventional volumes of one side


class ReviewLimits(BaseModel):
    """Beyond these a result waits for a person (table ``[review]``; these defaults without one)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    edge_mm: float = 3.0  # a pallidum nearer to the volume's outer faces than this
    outside_share: float = 0.01  # of a pallidum's volume, predicted beyond the volume
    volume_margin: float = 0.25  # by which a volume may pass its conventional range, as a share of the bound
    asymmetry_percent: float = 40.0  # left and right, by results.measure's formula; our choice, no norm
    lesion_mm3: float = 5.0  # lesion or lead inside or touching the pallidum


class DiceRegression(BaseModel):
    """Predicts the Dice of one structure from features of its segmentation (table ``[quality]``).

    ``quality.fit_predicted_dice`` makes it: logit(Dice) = intercept + coefficients . features.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    threshold: float  # below this predicted Dice a result waits for a person
    fitted_on: str = ""

    @model_validator(mode="after")
    def _one_coefficient_each(self) -> "DiceRegression":
        if len(self.features) != len(self.coefficients):
            raise ValueError(f"{len(self.features)} features, {len(self.coefficients)} coefficients")
        return self


class ModelCard(BaseModel):
    """What a person and the program must know about a set of weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    summary: str
    intended_use: str = ""
    not_for: tuple[str, ...] = ()
    weights_sha256: str
    structures: tuple[Structure, ...]
    spacing_mm: float  # isotropic grid that the network sees
    box_voxels: tuple[int, int, int]  # (z, y, x) of one side's box
    test_time_shifts: int = Field(default=0, ge=0, le=3)  # moved boxes that are averaged with the first
    review: ReviewLimits = ReviewLimits()
    quality: DiceRegression | None = None
    network: dict[str, object]
    localiser: dict[str, object]
    training: dict[str, object]
    data: tuple[dict[str, str], ...] = ()


def read_card(folder: Path) -> ModelCard:
    """Read ``folder/card.toml``. Raises ConfigurationError naming file and key."""
    path = folder / CARD_NAME
    if not path.is_file():  # an installed package has no weights beside it
        raise ConfigurationError(
            f"{path}: there is no such file; model_weights in node.toml names the folder that models are in"
        )
    try:
        return ModelCard.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as exc:
        raise ConfigurationError(f"{path}: {exc}") from exc
