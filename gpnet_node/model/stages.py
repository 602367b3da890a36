"""The stages of an evaluation; what each has done is kept in the work folder and not done again.

What is kept belongs to one set of weights, one case or one way of registering: others have names of their
own there.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gpnet_node.errors import ConfigurationError, NoPallidumError
from gpnet_node.model import atlas, contenders, relaxation
from gpnet_node.model.absent import absent_images
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.cohort import Case, as_volume, control_of, draw, set_a, set_b, set_c
from gpnet_node.model.contenders import Brain, Carried, ContenderSettings
from gpnet_node.model.head import Renderer
from gpnet_node.model.scores import Score, load, save, score_carried, score_network
from gpnet_node.model.segment import GPNetSegmenter

# What is kept is drawn and segmented again when one of these modules has changed.
_DRAWN_BY = (
    "registration",
    "atlas",
    "tissue",
    "scene",
    "scanner",
    "lesion",
    "synthesise",
    "pose",
    "head",
    "cohort",
    "relaxation",
    "composition",
    "fields",
    "kspace",
)
_SEGMENTED_BY = ("localise", "patient_grid", "network", "segment", "quality")

Progress = Callable[[str, int, int], None]  # stage, done, of how many


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What is evaluated, with what, where. ``work`` may be removed: it only saves time.

    ``atlases``: folder with synthseg/, allen/, bigbrain/ and cit168/; real heads are looked for beside it, in
    images/ and dicom/.
    """

    model: Path
    atlases: Path
    work: Path
    out: Path
    now: datetime
    command: str
    progress: Progress

    @property
    def anatomies(self) -> Path:
        """The people's label maps, built once."""
        return self.work / "anatomies"


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


def score_sets(evaluation: Evaluation, segmenter: GPNetSegmenter) -> list[Score]:
    """The network on sets A, B, C and on the control; C is drawn by the renderer that training never saw."""
    sets: dict[str, tuple[Case, ...]] = {
        "A": set_a(),
        "control": tuple(control_of(case) for case in set_a()),
        "B": set_b(),
    }
    scores: list[Score] = []
    for name, cases in sets.items():
        scores += score_cases(evaluation, segmenter, name, cases)
    return scores + list(score_cases(evaluation, segmenter, "C", set_c(), relaxation.render))


def score_cases(
    evaluation: Evaluation,
    segmenter: GPNetSegmenter,
    cohort: str,
    cases: Sequence[Case],
    renderer: Renderer | None = None,
) -> Iterator[Score]:
    """Draw, segment and score each case, or take what an earlier run kept."""
    folder = evaluation.work / f"scores-{_digest_of_results(segmenter.card)}"
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        path = folder / f"{cohort.replace(' ', '-')}-{case.name}-{_digest(case)}.json"
        if not path.exists():
            drawn = draw(case, evaluation.anatomies, segmenter.card, renderer=renderer)
            try:
                found = segmenter.segment(as_volume(drawn))
            except NoPallidumError:
                found = None
            save(path, list(score_network(cohort, case, drawn, found, segmenter.card)))
        yield from load(path)
        evaluation.progress(f"GP-net on {cohort}", number + 1, len(cases))


def score_contenders(
    evaluation: Evaluation,
    card: ModelCard,
    cases: Sequence[Case],
    cohort: str,
    settings: ContenderSettings,
) -> list[Score]:
    """Register to each person of the cases once, then score what was carried on each of their images."""
    drawn_by = _digest_of_code(_DRAWN_BY)
    folder = evaluation.work / f"contenders-{_digest(settings)}-{drawn_by}"
    registrations = evaluation.work / f"registrations-{_digest(settings.syn)}-{drawn_by}"
    folder.mkdir(parents=True, exist_ok=True)
    people = sorted({case.person for case in cases})
    carried: dict[str, dict[str, Carried]] = {}
    fused: dict[str, Brain] = {}
    for number, person in enumerate(people):
        kept = folder / f"{person}.npz"
        if not kept.exists():
            for other in contenders.FUSED_PEOPLE:
                fused.setdefault(other, contenders.drawn_brain(other, evaluation.anatomies, card))
            head = contenders.drawn_brain(person, evaluation.anatomies, card)
            found = contenders.contenders(head, fused, evaluation.atlases, settings, registrations / person)
            contenders.save(kept, found)
        carried[person] = contenders.load(kept)
        evaluation.progress("atlases and fusion", number + 1, len(people))
    scores: list[Score] = []
    for number, case in enumerate(cases):
        path = folder / f"{cohort}-{case.name}-{_digest(case)}.json"
        if not path.exists():
            drawn = draw(case, evaluation.anatomies, card)
            rows: list[Score] = []
            for method, sides in carried[case.person].items():
                rows += score_carried(cohort, case, drawn, method, sides)
            save(path, rows)
        scores += load(path)
        evaluation.progress(f"scoring them on {cohort}", number + 1, len(cases))
    return scores


def try_absent(evaluation: Evaluation, segmenter: GPNetSegmenter) -> dict[str, dict[str, int]]:
    """By kind: how many images were refused, held for a review, or claimed to hold a whole pallidum."""
    folder = evaluation.work / f"absent-{_digest_of_results(segmenter.card)}"
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, dict[str, int]] = {}
    images = list(absent_images(evaluation.anatomies, segmenter.card))
    for number, image in enumerate(images):
        path = folder / f"{image.name}.txt"
        if not path.exists():
            try:
                reasons = segmenter.segment(image.volume()).quality.reasons
                outcome = "held for review" if reasons else "claimed"
            except NoPallidumError:
                outcome = "refused"
            path.write_text(outcome, encoding="utf-8")
        counts = outcomes.setdefault(image.kind, {"refused": 0, "held for review": 0, "claimed": 0})
        counts[path.read_text(encoding="utf-8")] += 1
        evaluation.progress("images without a pallidum", number + 1, len(images))
    return outcomes


def _digest(of: object) -> str:
    """Of a frozen dataclass: all that it says."""
    return hashlib.sha256(repr(of).encode()).hexdigest()[:10]


def _digest_of_code(modules: Sequence[str]) -> str:
    folder = Path(__file__).parent
    content = b"".join((folder / f"{module}.py").read_bytes() for module in modules)
    return hashlib.sha256(content).hexdigest()[:10]


def _digest_of_results(card: ModelCard) -> str:
    """Whatever changes what the network says of a case: weights, thresholds, code."""
    says = (card.weights_sha256, card.quality, card.review, card.test_time_shifts)
    return _digest((says, _digest_of_code((*_DRAWN_BY, *_SEGMENTED_BY, "scores", "metrics"))))
