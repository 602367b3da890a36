"""One row per image, side, structure, method and grid: what was measured, and the conditions it was under."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.model.card import ModelCard
from gpnet_node.model.drawing.head import TRUTH_SPACING_MM, DrawnHead, FineTruth
from gpnet_node.model.drawing.scene import Lesion
from gpnet_node.model.evaluation.cohort import Case
from gpnet_node.model.evaluation.metrics import StructureMetrics, compare
from gpnet_node.model.segment import classes_on
from gpnet_node.model.segmentation import Segmentation, SideProbability

NETWORK = "GP-net"
FINE, NATIVE = "0.39 mm", "native"
NO_LESION = "none"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One structure of one side in one image. ``refused``: no pallidum was claimed, so the Dice is 0.

    ``lesion``: on this side. ``located_mm``: from the centre that localiser and re-centred box agreed on to
    the true one; NaN where there is none. ``reasons``: why the image needs a review. ``predicted_dice`` is
    NaN where none was predicted; ``features``: what it is predicted from.
    """

    cohort: str
    image: str
    person: str
    side: str
    structure: str
    method: str
    grid: str
    contrast: str
    visibility: str
    lesion: str
    artefact: str
    age_years: float
    snr: float
    drop_out: float
    ventricle_mm: float
    spacing_mm: str
    extent_mm: float
    refused: bool
    located_mm: float
    reasons: tuple[str, ...]
    predicted_dice: float
    features: Mapping[str, float]
    metrics: StructureMetrics

    @property
    def lesion_in_pallidum(self) -> bool:
        """Whether something more than a widened perivascular space was drawn on this side."""
        return self.lesion not in (NO_LESION, Lesion.PERIVASCULAR_SPACES)


def score_network(
    cohort: str, case: Case, drawn: DrawnHead, found: Segmentation | None, card: ModelCard
) -> Iterator[Score]:
    """Scores on the 0.39 mm truth and on the image's own grid; ``found`` None: the image was refused."""
    geometry = drawn.geometry
    axes = np.asarray(geometry.affine, float)[:3, :3] / geometry.spacing
    for side, truth in drawn.truth.items():
        common = _conditions(cohort, case, side) | {
            "method": NETWORK,
            "side": side,
            "located_mm": _located_mm(found, side, truth),
        }
        nothing = np.zeros_like(truth.labels)
        fine = classes_on(found.sides[side], grid_of(truth)) if found else nothing
        yield from _scores(compare(fine, truth.labels, (TRUTH_SPACING_MM,) * 3), FINE, found, common)
        own = _side_classes(found.labels.labels if found else np.zeros_like(drawn.labels), side, card)
        metrics = compare(own, _side_classes(drawn.labels, side, card), geometry.spacing, axes)
        yield from _scores(metrics, NATIVE, found, common)


def score_carried(
    cohort: str, case: Case, drawn: DrawnHead, method: str, carried: Mapping[str, SideProbability]
) -> Iterator[Score]:
    """Scores of an atlas or of the fusion on the 0.39 mm truth, cleaned up as the network's result is."""
    for side, truth in drawn.truth.items():
        metrics = compare(classes_on(carried[side], grid_of(truth)), truth.labels, (TRUTH_SPACING_MM,) * 3)
        yield from _scores(
            metrics,
            FINE,
            None,
            _conditions(cohort, case, side)
            | {"method": method, "side": side, "refused": False, "located_mm": np.nan},
        )


def grid_of(truth: FineTruth) -> sitk.Image:
    """Grid of a side's truth, empty."""
    grid = sitk.Image([int(n) for n in truth.labels.shape[::-1]], sitk.sitkUInt8)
    grid.SetSpacing([TRUTH_SPACING_MM] * 3)
    grid.SetOrigin([float(v) for v in truth.origin_mm])
    return grid


def write_csv(path: Path, scores: Sequence[Score]) -> None:
    """One line per score; metrics stand beside the conditions."""
    rows = [_flat(score) for score in scores]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def save(path: Path, scores: Sequence[Score]) -> None:
    """Keep scores for a run that is taken up again; replaced in one move."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([asdict(score) for score in scores]), encoding="utf-8")
    partial.rename(path)


def load(path: Path) -> list[Score]:
    """What :func:`save` kept."""
    return [
        Score(**row | {"metrics": StructureMetrics(**row["metrics"]), "reasons": tuple(row["reasons"])})
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]


def values(scores: Sequence[Score], metric: str) -> NDArray[np.float64]:
    """One metric of many scores."""
    return np.array([getattr(score.metrics, metric) for score in scores], float)


def _scores(
    metrics: Mapping[str, StructureMetrics],
    grid: str,
    found: Segmentation | None,
    common: Mapping[str, Any],
) -> Iterator[Score]:
    quality = found.quality if found else None
    for structure, measured in metrics.items():
        name = f"{structure} {common['side']}"
        row: dict[str, Any] = {
            "refused": found is None,
            "reasons": quality.reasons if quality else (),
            "predicted_dice": quality.predicted_dice.get(name, np.nan) if quality else np.nan,
            "features": dict(quality.features.get(name, {})) if quality else {},
            "structure": structure,
            "grid": grid,
            "metrics": measured,
        }
        yield Score(**row | dict(common))


def _conditions(cohort: str, case: Case, side: str) -> dict[str, Any]:
    scene = case.scene
    hurt = scene.lesions and side in scene.lesion_sides
    return {
        "cohort": cohort,
        "image": case.name,
        "person": case.person,
        "contrast": str(scene.contrast),
        "visibility": str(scene.visibility),
        "lesion": " and ".join(scene.lesions) if hurt else NO_LESION,
        "artefact": str(scene.artefact) if scene.artefact else "none",
        "age_years": scene.age_years,
        "snr": scene.snr,
        "drop_out": scene.drop_out,
        "ventricle_mm": scene.ventricle_mm,
        "spacing_mm": " x ".join(f"{s:g}" for s in case.spacing_mm),
        "extent_mm": round(case.spacing_mm[0] * case.slices, 1),
    }


def _located_mm(found: Segmentation | None, side: str, truth: FineTruth) -> float:
    seen = found.sides[side].located_mm if found else None
    return float(np.linalg.norm(np.array(seen) - truth.places_mm.mean(0))) if seen else float("nan")


def _side_classes(labels: NDArray[np.uint8], side: str, card: ModelCard) -> NDArray[np.uint8]:
    """The card's numbers of one side as 0 / GPE / GPI."""
    table = np.zeros(256, np.uint8)
    for structure in card.structures:
        if structure.side == side:
            table[structure.number] = structure.channel
    return table[labels]


def _flat(score: Score) -> dict[str, object]:
    kept = [f.name for f in fields(Score) if f.name not in ("metrics", "features", "reasons")]
    row: dict[str, object] = {name: getattr(score, name) for name in kept}
    row |= {name: round(value, 4) for name, value in asdict(score.metrics).items()}
    return row | {"reasons": "; ".join(score.reasons)}
