"""What every section of the configuration shares: strictness, and the kinds of values."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Range = tuple[float, float]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Section(BaseModel):
    """Settings common to all sections: no unknown keys, no change after loading, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
