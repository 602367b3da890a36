"""What every section of the configuration shares: strictness, and the kinds of values."""

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _from_array(values: object) -> object:
    return tuple(values) if isinstance(values, list) else values


Range = tuple[float, float]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# TOML has arrays alone; within ``node.toml`` they come as lists.
Texts = Annotated[tuple[str, ...], BeforeValidator(_from_array)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Section(BaseModel):
    """Settings common to all sections: no unknown keys, no change after loading, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def faults_of_files(files: Mapping[str, Path | None], *, secret: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) for each file that is not there, or is ``secret`` and open to others."""
    for name, path in files.items():
        if path is None:
            continue
        if not path.is_file():
            yield name, f"there is no file {path}"
        elif name in secret and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield name, f"{path} is secret, and others may read it: chmod 600 {path}"
