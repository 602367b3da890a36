"""The model card as a page to be read: ``CARD.md``, made from the card and the evaluation's figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpnet_node.model.card import ModelCard
from gpnet_node.model.evaluation.bars import Bar
from gpnet_node.model.evaluation.scores import FINE, NETWORK

PAGE_NAME = "CARD.md"
_CONDITIONS = {
    "contrast": "contrast",
    "visibility": "medial lamina",
    "lesion": "lesion on the side",
    "artefact": "artefact",
    "person": "person",
}
_DISTANCES = ("hd95_mm", "surface_mm", "interface_mm", "centre_mm")


def page(card: ModelCard, report: Mapping[str, Any], bars: Sequence[Bar]) -> str:
    """Markdown. ``report`` is what ``evaluation.json`` holds; ``bars`` its table."""
    return "\n".join(
        [
            f"# Model card: {card.name} {card.version}",
            "",
            f"{card.summary} Research use only; not a medical device.",
            "",
            f"Weights {card.weights_sha256[:16]}…; measured on {report['date'][:10]} with "
            f"`{report['command']}`, code {report['code']}. Every figure is of {report['measured_on']}.",
            "",
            *_use(card),
            *_people(card),
            *_bars(bars),
            *_medians(report),
            *_conditions(report["by_condition"]),
            *_failures(report),
            *_real_heads(report["real_heads"]),
            *_training(),
            *_data(card),
        ]
    )


def _use(card: ModelCard) -> Iterator[str]:
    yield from ("## Intended use", "", card.intended_use, "", "Not for:", "")
    yield from (f"- {line}" for line in card.not_for)
    yield ""


def _people(card: ModelCard) -> Iterator[str]:
    yield from ("## People", "")
    for key, words in (("train_people", "trained on"), ("validate_people", "chosen and calibrated by")):
        names = card.training.get(key, [])
        if isinstance(names, list):
            yield f"- {words}: {', '.join(str(name) for name in names)}"
    tested = card.training.get("test_people", [])
    if isinstance(tested, list):
        yield f"- measured on: {', '.join(str(name) for name in tested)}"
    yield from ("", "They are SynthSeg's training maps; mirrored sides stay with their person.", "")


def _bars(bars: Sequence[Bar]) -> Iterator[str]:
    yield from ("## What it is held to", "")
    yield from _table(
        ("", "must", "aim", "measured", "met"),
        ((bar.what, bar.must, bar.aim, bar.measured, _met(bar)) for bar in bars),
    )


def _met(bar: Bar) -> str:
    if bar.meets_must is None:
        return "not measured"
    return ("aim" if bar.meets_aim else "must") if bar.meets_must else "**no**"


def _medians(report: Mapping[str, Any]) -> Iterator[str]:
    """Dice on the 0.39 mm truth by cohort and method, and the network's distances on set A."""
    fine = {key: of for key, of in report["medians"].items() if key.endswith(FINE)}
    yield from (
        "## Dice by cohort and method",
        "",
        f"Median (quartiles), worst; per side, on the {FINE} truth.",
        "",
    )
    yield from _table(
        ("cohort, method", "GPe", "GPi"),
        ((_named(key), *(_spread(of[s]["dice"]) for s in ("GPe", "GPi"))) for key, of in fine.items()),
    )
    yield from ("![Dice of each side of set A](dice.png)", "")
    own = fine.get(f"A: {NETWORK}, {FINE}")
    if own:
        yield from ("## Distances on set A", "", "Median (quartiles), worst, mm.", "")
        yield from _table(
            ("", "GPe", "GPi"),
            ((m.removesuffix("_mm"), *(_spread(own[s][m]) for s in ("GPe", "GPi"))) for m in _DISTANCES),
        )


def _conditions(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Dice on set A by condition", "", "Median (quartiles), worst.", "")
    rows = [
        (f"{words}: {value}", str(of["GPe"]["sides"]), *(_spread(of[s]) for s in ("GPe", "GPi")))
        for condition, words in _CONDITIONS.items()
        for value, of in found[condition].items()
    ]
    yield from _table(("", "sides", "GPe", "GPi"), rows)


def _failures(report: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Where it fails", "", "The worst images of set A:", "")
    for case in report["worst"]:
        yield (
            f"- {case['image']}, {case['structure']} {case['side']}, Dice {case['dice']}: "
            f"{case['contrast']}, lamina {case['visibility']}, lesion {case['lesion']}, "
            f"artefact {case['artefact']}, SNR {case['snr']}"
        )
    yield from ("", "![The worst images of set A](failures.png)", "")


def _real_heads(heads: Mapping[str, Mapping[str, Any] | None]) -> Iterator[str]:
    """What was found where there is no truth: volumes, and what the node would ask a person to look at."""
    if not heads:
        return
    yield from ("## Real heads", "", "Neither is a 7T image; there is no truth to compare with.", "")
    for name, head in heads.items():
        if head is None:
            yield f"- {name}: no pallidum found"
            continue
        volumes = ", ".join(f"{structure} {mm3:.0f}" for structure, mm3 in head["volumes_mm3"].items())
        doubts = "; ".join(head["needs_review"]) or "none"
        yield f"- {name}: {volumes} mm3. To review: {doubts}."
    yield from ("", "![Real heads](real.png)", "")


def _training() -> Iterator[str]:
    yield from ("## How the training went", "", "Settings and code of every step are in `card.toml`.", "")
    yield from ("![Loss, Dice on the validation people and learning rate](curves.png)", "")


def _data(card: ModelCard) -> Iterator[str]:
    yield from ("## Data and licences", "")
    yield from _table(
        ("data", "source", "licence", "used for"),
        ((row["name"], row["source"], row["licence"], row["use"]) for row in card.data),
    )


def _named(key: str) -> str:
    return key.removesuffix(f", {FINE}")


def _spread(of: Mapping[str, float | None]) -> str:
    def shown(value: float | None) -> str:
        return "∞" if value is None else f"{value:.2f}"

    return f"{shown(of['median'])} ({shown(of['q1'])}-{shown(of['q3'])}), {shown(of['worst'])}"


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
