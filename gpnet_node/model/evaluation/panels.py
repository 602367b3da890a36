"""Pictures of results: cuts through the image, with what was found and what is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gpnet_node.model.drawing.synthesise import GPE, GPI

_COLOURS = {GPE: "#E69F00", GPI: "#56B4E9"}
_TRUTH: dict[str, Any] = {"linewidths": 1.0, "linestyles": "dashed"}
_FOUND: dict[str, Any] = {"linewidths": 1.6, "linestyles": "solid"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One side on the grid of its truth, (z, y, x); ``truth`` None where there is none to compare with."""

    title: str
    image: NDArray[np.float32]
    found: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None
    spacing_mm: float


def draw_panels(panels: Sequence[Panel], path: Path, caption: str) -> None:
    """Write a PNG: per panel one axial and one coronal cut through the middle of the pallidum."""
    figure = Figure(figsize=(3.1 * len(panels), 6.9), dpi=140, facecolor="white")
    for k, panel in enumerate(panels):
        reference = panel.truth if panel.truth is not None else panel.found
        where = np.argwhere(reference > 0)
        z, y, _ = where.mean(0).round().astype(int) if len(where) else np.array(reference.shape) // 2
        for row, cut in enumerate((np.s_[z], np.s_[:, y])):
            axes = figure.add_axes((k / len(panels) + 0.005, 0.50 - 0.42 * row, 0.99 / len(panels), 0.41))
            _cut(axes, panel, cut, upward=row == 1)
        figure.text((k + 0.5) / len(panels), 0.985, panel.title, fontsize=8, ha="center", va="top")
    figure.text(0.01, 0.012, caption, fontsize=8, color="#555555", va="bottom")
    figure.savefig(path)


def resampled(image: sitk.Image, grid: sitk.Image) -> NDArray[np.float32]:
    """The image on a panel's grid."""
    values: NDArray[np.float32] = sitk.GetArrayFromImage(
        sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    )
    return values


def _cut(axes: Axes, panel: Panel, cut: int | tuple[slice, int], *, upward: bool) -> None:
    image = panel.image[cut]
    low, high = np.percentile(panel.image, [1, 99])
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower" if upward else "upper")
    for labels, style in ((panel.truth, _TRUTH), (panel.found, _FOUND)):
        for label, colour in _COLOURS.items():
            if labels is not None and (labels[cut] == label).any():
                axes.contour(labels[cut] == label, [0.5], colors=[colour], **style)
    bar = 10 / panel.spacing_mm
    height = image.shape[0] * (0.06 if upward else 0.94)
    axes.plot([6, 6 + bar], [height, height], color="white", linewidth=2)
    axes.set_axis_off()
