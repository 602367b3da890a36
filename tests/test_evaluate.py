"""The small version of ``gpnet-node evaluate``: shipped weights on a few drawn heads, and what must fail.

It needs no atlases: the heads come from the shape model that ships with the program.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import tomlkit
import torch
from safetensors.torch import load_file, save_file

from gpnet_node.errors import ConfigurationError, NoPallidumError
from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import CARD_NAME, WEIGHTS_NAME
from gpnet_node.model.drawing.head import DrawnHead
from gpnet_node.model.evaluation.cohort import TEST_PEOPLE, Case, as_volume
from gpnet_node.model.evaluation.scores import FINE, NATIVE, Score, score_network, values
from gpnet_node.model.evaluation.stages import open_segmenter
from gpnet_node.model.evaluation.summary import STRUCTURES, select
from gpnet_node.model.segment import GPNetSegmenter
from gpnet_node.model.segmentation import Segmentation
from tests.drawn import CLEAR, MODEL, drawn_head
from tests.made_people import an_evaluation

SEEDS = (1, 2, 3)
LEAST_DICE = 0.75  # median of either structure
MOST_OFFSET_MM = 0.5  # median of found less true centre, along each axis of the patient

Change = Callable[[Segmentation], Segmentation]


def test_the_shipped_weights_pass() -> None:
    assert _faults(_scores(lambda found: found)) == []


def test_shuffled_weights_fail(tmp_path: Path) -> None:
    tensors = load_file(MODEL / WEIGHTS_NAME)
    generator = torch.Generator().manual_seed(1)
    for name, value in tensors.items():
        if name.startswith("segmenter."):
            order = torch.randperm(value.numel(), generator=generator)
            tensors[name] = value.flatten()[order].reshape(value.shape)

    shuffled = GPNetSegmenter(_shipped(tmp_path, tensors))

    assert _faults(_scored(1, _segmented(drawn_head(seed=1), shuffled)))


def test_left_and_right_swapped_fail() -> None:
    def swapped(found: Segmentation) -> Segmentation:
        table = np.zeros(256, np.uint8)
        table[[1, 2, 3, 4]] = [3, 4, 1, 2]
        labels = LabelMap(labels=table[found.labels.labels], geometry=found.labels.geometry)
        return replace(
            found, labels=labels, sides={"left": found.sides["right"], "right": found.sides["left"]}
        )

    assert _faults(_scores(swapped))


@pytest.mark.parametrize("axis", [0, 1, 2], ids="xyz")
def test_labels_shifted_by_one_millimetre_fail(axis: int) -> None:
    def shifted(found: Segmentation) -> Segmentation:
        offset = np.eye(3)[axis]
        sides = {}
        for name, side in found.sides.items():
            x, y, z = (float(v) for v in np.array(side.origin_mm) + offset)
            sides[name] = replace(side, origin_mm=(x, y, z))
        return replace(found, sides=sides)

    assert _faults(_scores(shifted))


def test_the_two_grids_agree_on_what_was_found() -> None:
    scores = _scores(lambda found: found)

    fine, native = (np.median(values(select(scores, grid=grid), "dice")) for grid in (FINE, NATIVE))

    assert abs(fine - native) < 0.05


def test_a_refused_image_counts_as_nothing_found() -> None:
    scores = _scored(1, None)

    assert all(score.refused and score.metrics.dice == 0 for score in scores)
    assert np.isinf(values(scores, "hd95_mm")).all()


def test_weights_that_know_a_person_of_the_cohort_are_refused(tmp_path: Path) -> None:
    folder = _shipped(tmp_path, load_file(MODEL / WEIGHTS_NAME))
    card = tomlkit.parse((folder / CARD_NAME).read_text(encoding="utf-8"))
    card["training"]["train_people"] = ["01", "14"]
    (folder / CARD_NAME).write_text(tomlkit.dumps(card), encoding="utf-8")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigurationError, match="trained on people 14"):
        open_segmenter(an_evaluation(tmp_path, pool, model=folder), TEST_PEOPLE)


def _faults(scores: Sequence[Score]) -> list[str]:
    """What a reader of the table would stumble over."""
    faults = []
    for structure in STRUCTURES:
        rows = select(scores, grid=FINE, structure=structure)
        found = float(np.median(values(rows, "dice")))
        if found < LEAST_DICE:
            faults.append(f"{structure}: median Dice {found:.2f}")
        for axis in "xyz":
            offset = float(np.median(values(rows, f"centre_{axis}_mm")))
            if not abs(offset) <= MOST_OFFSET_MM:
                faults.append(f"{structure}: {offset:.2f} mm off along {axis}")
    return faults


def _scores(change: Change) -> list[Score]:
    return [score for seed in SEEDS for score in _scored(seed, change(_found(seed)))]


def _scored(seed: int, found: Segmentation | None) -> list[Score]:
    drawn = drawn_head(seed=seed)
    case = Case(
        name=f"head {seed}", person="drawn", seed=seed, scene=CLEAR, spacing_mm=(1.2, 0.8, 0.8), slices=44
    )
    return list(score_network("small", case, drawn, found, _segmenter().card))


@lru_cache(maxsize=len(SEEDS))
def _found(seed: int) -> Segmentation:
    return _segmenter().segment(as_volume(drawn_head(seed=seed)))


def _segmented(drawn: DrawnHead, segmenter: GPNetSegmenter) -> Segmentation | None:
    try:
        return segmenter.segment(as_volume(drawn))
    except NoPallidumError:
        return None


@lru_cache(maxsize=1)
def _segmenter() -> GPNetSegmenter:
    return GPNetSegmenter(MODEL)


def _shipped(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A model folder with other weights, and the shipped card brought up to them."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS_NAME)
    card = tomlkit.parse((MODEL / CARD_NAME).read_text(encoding="utf-8"))
    card["weights_sha256"] = hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()
    (folder / CARD_NAME).write_text(tomlkit.dumps(card), encoding="utf-8")
    return folder
