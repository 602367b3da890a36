"""A folder of anatomies as ``atlas.build`` leaves it, every person the same made head."""

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpnet_node.model.evaluation.cohort import TEST_PEOPLE
from gpnet_node.model.evaluation.stages import Evaluation, Progress
from gpnet_node.parts import now
from tests.anatomies import head


def keep_people(folder: Path, people: Sequence[str] = TEST_PEOPLE) -> None:
    """Write ``folder/PERSON.npz`` for each of them."""
    made = head()
    arrays: dict[str, NDArray[np.generic]] = {"head_tissue": made.tissue, "head_centres": made.centres}
    for side, anatomy in made.sides.items():
        arrays[f"{side}_tissue"] = anatomy.tissue
        arrays |= {f"{side}_border_{name}": border for name, border in anatomy.border.items()}
    for person in people:
        np.savez(folder / f"{person}.npz", allow_pickle=False, **arrays)


def an_evaluation(
    work: Path, pool: Executor, *, model: Path, progress: Progress = lambda *_: None
) -> Evaluation:
    """Everything that it reads and writes is in one folder."""
    return Evaluation(
        model=model,
        atlases=work,
        work=work,
        out=work,
        now=now(),
        command="",
        progress=progress,
        pool=pool,
    )
