"""The stages of an evaluation; what each has done is kept in the work folder and not done again.

What is kept belongs to one set of weights, one case or one way of registering: others have names of their
own there.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path

import torch

from gpnet_node.errors import ConfigurationError, NoPallidumError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.drawing import atlas, relaxation
from gpnet_node.model.drawing.head import Renderer, nothing
from gpnet_node.model.evaluation import contenders
from gpnet_node.model.evaluation.absent import AbsentImage, absent_images
from gpnet_node.model.evaluation.cohort import Case, as_volume, control_of, draw, set_a, set_b, set_c
from gpnet_node.model.evaluation.contenders import Brain, ContenderSettings
from gpnet_node.model.evaluation.scores import Score, load, save, score_carried, score_network
from gpnet_node.model.segment import GPNetSegmenter

# What is kept is drawn and segmented again when one of these files has changed.
_DRAWN_BY = ("drawing/*.py", "evaluation/cohort.py")
_SEGMENTED_BY = ("*.py", "evaluation/scores.py", "evaluation/metrics.py")

Progress = Callable[[str, int, int], None]  # stage, done, of how many


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What is evaluated, with what, where. ``work`` may be removed: it only saves time.

    ``atlases``: folder with synthseg/, allen/, bigbrain/ and cit168/; real heads are looked for beside it, in
    images/ and dicom/. ``pool``: who draws, segments and registers; see :func:`processes`.
    ``network_only``: leave atlases and fusion out; the bar that needs them is then told as not measured.
    """

    model: Path
    atlases: Path
    work: Path
    out: Path
    now: datetime
    command: str
    progress: Progress
    pool: Executor
    network_only: bool = False

    def each(self, work: Callable[..., None], tasks: Sequence[tuple[object, ...]], stage: str) -> None:
        """Do every task, in the pool; ``work`` leaves what it finds in a file."""
        futures = [self.pool.submit(work, *task) for task in tasks]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            self.progress(stage, done, len(tasks))

    @property
    def anatomies(self) -> Path:
        """The people's label maps, built once."""
        return self.work / "anatomies"


def processes() -> ProcessPoolExecutor:
    """One process for each core, each with one thread: many small tasks gain most so."""
    cores = len(os.sched_getaffinity(0))
    return ProcessPoolExecutor(
        cores, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread
    )


def _one_thread() -> None:
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # before ANTs is imported
    torch.set_num_threads(1)


def open_segmenter(evaluation: Evaluation, people: Sequence[str]) -> GPNetSegmenter:
    """The model. Raises ConfigurationError when it was trained on one of the people."""
    card = read_card(evaluation.model)
    trained = card.training.get("train_people", [])
    known = sorted(set(people) & set(trained)) if isinstance(trained, list) else []
    if known:
        raise ConfigurationError(
            f"{evaluation.model}: these weights were trained on people {', '.join(known)} of the cohort"
        )
    return GPNetSegmenter(evaluation.model)


def build_anatomies(evaluation: Evaluation, people: Sequence[str], judged: Sequence[str] = ()) -> None:
    """The people's label maps, each built once; ``judged`` get CIT168's border too."""
    done = 0

    def advance(_: str) -> None:
        nonlocal done
        done += 1
        evaluation.progress("anatomies", done, len(people))

    atlas.build(evaluation.atlases, people, evaluation.anatomies, advance, judged=judged)


def score_sets(evaluation: Evaluation, card: ModelCard) -> list[Score]:
    """The network on sets A, B, C and on the control; C is drawn by the renderer that training never saw."""
    sets: dict[str, tuple[Case, ...]] = {
        "A": set_a(),
        "control": tuple(control_of(case) for case in set_a()),
        "B": set_b(),
        "C": set_c(),
    }
    scores: list[Score] = []
    for name, cases in sets.items():
        renderer = relaxation.render if name == "C" else None
        scores += score_cases(evaluation, card, name, cases, renderer)
    return scores


def score_cases(
    evaluation: Evaluation,
    card: ModelCard,
    cohort: str,
    cases: Sequence[Case],
    renderer: Renderer | None = None,
) -> list[Score]:
    """Draw, segment and score each case, or take what an earlier run kept."""
    folder = evaluation.work / f"scores-{_digest_of_results(card)}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {case: folder / f"{cohort.replace(' ', '-')}-{case.name}-{_digest(case)}.json" for case in cases}
    tasks = [
        (evaluation.model, evaluation.anatomies, cohort, case, renderer, path)
        for case, path in paths.items()
        if not path.exists()
    ]
    evaluation.each(_score_case, tasks, f"GP-net on {cohort}")
    return [score for path in paths.values() for score in load(path)]


def _score_case(
    model: Path, anatomies: Path, cohort: str, case: Case, renderer: Renderer | None, path: Path
) -> None:
    segmenter = _segmenter(model)
    drawn = draw(case, anatomies, segmenter.card, renderer=renderer)
    try:
        found = segmenter.segment(as_volume(drawn))
    except NoPallidumError:
        found = None
    save(path, list(score_network(cohort, case, drawn, found, segmenter.card)))


def score_contenders(
    evaluation: Evaluation, cases: Sequence[Case], cohort: str, settings: ContenderSettings
) -> list[Score]:
    """Register to each person of the cases once, then score what was carried on each of their images."""
    drawn_by = _digest_of_code(_DRAWN_BY)
    folder = evaluation.work / f"contenders-{_digest(settings)}-{drawn_by}"
    registrations = evaluation.work / f"registrations-{_digest(settings.syn)}-{drawn_by}"
    folder.mkdir(parents=True, exist_ok=True)
    carried = {person: folder / f"{person}.npz" for person in sorted({case.person for case in cases})}
    tasks: list[tuple[object, ...]] = [
        (evaluation.model, evaluation.anatomies, evaluation.atlases, person, settings, registrations, kept)
        for person, kept in carried.items()
        if not kept.exists()
    ]
    evaluation.each(_carry_to, tasks, "atlases and fusion")
    paths = {case: folder / f"{cohort}-{case.name}-{_digest(case)}.json" for case in cases}
    tasks = [
        (evaluation.model, evaluation.anatomies, cohort, case, carried[case.person], path)
        for case, path in paths.items()
        if not path.exists()
    ]
    evaluation.each(_score_carried, tasks, f"scoring them on {cohort}")
    return [score for path in paths.values() for score in load(path)]


def _carry_to(
    model: Path,
    anatomies: Path,
    atlases: Path,
    person: str,
    settings: ContenderSettings,
    registrations: Path,
    kept: Path,
) -> None:
    people = {other: _drawn_brain(other, anatomies, model) for other in contenders.FUSED_PEOPLE}
    head = contenders.drawn_brain(person, anatomies, read_card(model))
    contenders.save(kept, contenders.contenders(head, people, atlases, settings, registrations / person))


def _score_carried(model: Path, anatomies: Path, cohort: str, case: Case, carried: Path, path: Path) -> None:
    drawn = draw(case, anatomies, read_card(model), renderer=nothing)
    rows: list[Score] = []
    for method, sides in contenders.load(carried).items():
        rows += score_carried(cohort, case, drawn, method, sides)
    save(path, rows)


def try_absent(evaluation: Evaluation, card: ModelCard) -> dict[str, dict[str, int]]:
    """By kind: how many images were refused, held for a review, or claimed to hold a whole pallidum."""
    folder = evaluation.work / f"absent-{_digest_of_results(card)}"
    folder.mkdir(parents=True, exist_ok=True)
    images = list(absent_images(evaluation.anatomies, card))
    tasks = [
        (evaluation.model, image, folder / f"{image.name}.txt")
        for image in images
        if not (folder / f"{image.name}.txt").exists()
    ]
    evaluation.each(_try_absent, tasks, "images without a pallidum")
    outcomes: dict[str, dict[str, int]] = {}
    for image in images:
        counts = outcomes.setdefault(image.kind, {"refused": 0, "held for review": 0, "claimed": 0})
        counts[(folder / f"{image.name}.txt").read_text(encoding="utf-8")] += 1
    return outcomes


def _try_absent(model: Path, image: AbsentImage, path: Path) -> None:
    try:
        reasons = _segmenter(model).segment(image.volume()).quality.reasons
        outcome = "held for review" if reasons else "claimed"
    except NoPallidumError:
        outcome = "refused"
    path.write_text(outcome, encoding="utf-8")


@lru_cache(maxsize=1)
def _segmenter(model: Path) -> GPNetSegmenter:
    """Of this process."""
    return GPNetSegmenter(model)


@cache
def _drawn_brain(person: str, anatomies: Path, model: Path) -> Brain:
    """Of this process: every head is registered to the same people."""
    return contenders.drawn_brain(person, anatomies, read_card(model))


def _digest(of: object) -> str:
    """Of a frozen dataclass: all that it says."""
    return hashlib.sha256(repr(of).encode()).hexdigest()[:10]


def _digest_of_code(patterns: Sequence[str]) -> str:
    package = Path(__file__).parents[1]
    paths = sorted(path for pattern in patterns for path in package.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:10]


def _digest_of_results(card: ModelCard) -> str:
    """Whatever changes what the network says of a case: weights, thresholds, code."""
    says = (card.weights_sha256, card.quality, card.review, card.test_time_shifts)
    return _digest((says, _digest_of_code((*_DRAWN_BY, *_SEGMENTED_BY))))
