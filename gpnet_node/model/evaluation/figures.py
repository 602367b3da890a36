"""The figures of an evaluation: Dice of all methods, and the images on which the network did worst."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpnet_node.errors import NoPallidumError
from gpnet_node.model.drawing.head import TRUTH_SPACING_MM
from gpnet_node.model.evaluation import summary
from gpnet_node.model.evaluation.box_plot import draw_box_plot
from gpnet_node.model.evaluation.cohort import Case, as_volume, draw
from gpnet_node.model.evaluation.contenders import FUSION
from gpnet_node.model.evaluation.mni_atlases import ATLASES
from gpnet_node.model.evaluation.panels import Panel, resampled
from gpnet_node.model.evaluation.scores import FINE, NETWORK, Score, grid_of, values
from gpnet_node.model.patient_grid import as_image
from gpnet_node.model.segment import GPNetSegmenter, classes_on


def draw_dice(scores: Sequence[Score], path: Path, *, model: str, source: str) -> None:
    """The box plot of set A. ``source``: date and command of the measurement."""
    rows = summary.select(scores, cohort="A", grid=FINE)
    measured = {score.method for score in rows}
    methods = [method for method in (NETWORK, *ATLASES, FUSION) if method in measured]
    images, people = len({score.image for score in rows}), len({score.person for score in rows})
    shown = f"{model} beside atlas segmentation" if len(methods) > 1 else model
    draw_box_plot(
        {
            structure: {
                method: list(values(summary.select(rows, method=method, structure=structure), "dice"))
                for method in methods
            }
            for structure in summary.STRUCTURES
        },
        path,
        title=f"{shown}: {images} drawn images of {people} people",
        caption=(
            f"Drawn images; no real 7T cohort was at hand. {source}. "
            f"Below each box: median and quartiles of {2 * images} sides; whiskers: 1.5 IQR.\n"
            "Dashed: medians that Solomon 2021 (doi:10.1002/hbm.25409) measured on 43 patients' 7T images: "
            "other images, for orientation only."
        ),
    )


def failure(segmenter: GPNetSegmenter, anatomies: Path, case: Case, score: Score) -> Panel:
    """One side of a case as the network sees it now, with its truth."""
    drawn = draw(case, anatomies, segmenter.card)
    volume, truth = as_volume(drawn), drawn.truth[score.side]
    grid = grid_of(truth)
    try:
        labels = classes_on(segmenter.segment(volume).sides[score.side], grid)
    except NoPallidumError:
        labels = np.zeros_like(truth.labels)
    return Panel(
        title=(
            f"{case.name}, person {case.person}, {score.side}\n"
            f"{score.structure} Dice {score.metrics.dice:.2f}\n"
            f"{score.contrast}, lamina {score.visibility}, SNR {score.snr:g}, {score.spacing_mm} mm\n"
            f"lesion: {score.lesion}; artefact: {score.artefact}"
        ),
        image=resampled(as_image(volume), grid),
        found=labels,
        truth=truth.labels,
        spacing_mm=TRUTH_SPACING_MM,
    )
