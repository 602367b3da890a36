"""Draws a segmentation for the eye: contours over the image in the patient's planes, and the volumes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from gpnet_node.errors import StorageError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, Structure
from gpnet_node.results.legend import (
    BACKGROUND,
    DPI,
    FAINT,
    HEIGHT_PX,
    INK,
    WIDTH_PX,
    rgb,
    write_head,
    write_table,
)
from gpnet_node.results.measure import Measurement
from gpnet_node.results.panels import STEP_MM, Panel, lay_out
from gpnet_node.results.planes import Plane, cut, cut_structure


def draw(
    volume: Volume,
    labels: LabelMap,
    card: ModelCard,
    path: Path,
    measurements: Sequence[Measurement],
) -> None:
    """Write a PNG, 1400 x 1205 pixels: axial, coronal and both sagittal cuts through the pallida, an overview
    and a table of the measurements.

    The cuts follow the patient's axes, not the scan's, at equal scale in both directions. Radiological
    convention: patient left is on the right of the picture. The border of a structure is where linear
    interpolation of its voxels crosses one half. Nothing in the picture identifies the patient.

    Raises StorageError where the file cannot be written.
    """
    affine = np.asarray(volume.geometry.affine, dtype=float)
    panels = lay_out(labels, card, affine)
    shades = _window(volume.voxels, affine, panels[0].plane)
    figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    write_head(figure, card)
    for panel in panels:
        axes = _axes(figure, panel.box_px)
        _draw_cut(axes, panel, volume.voxels, affine, shades)
        _draw_contours(axes, panel, labels, card, affine)
        _annotate(axes, panel)
    _frame_field(figure.axes[-1], panels[-1].plane, panels[0].plane)
    write_table(figure, measurements)
    try:
        figure.savefig(path, format="png", dpi=DPI, facecolor=BACKGROUND, metadata={"Software": None})
    except OSError as exc:
        raise StorageError(f"the picture cannot be written to {path}: {exc.strerror}") from exc


def _window(voxels: NDArray[np.float32], affine: NDArray[np.float64], plane: Plane) -> tuple[float, float]:
    """Black and white for all panels, for contrast in the deep grey matter: of what the axial cut holds,
    white lies no further above the median than black below it, by a quarter; CSF may saturate.
    """
    seen = cut(voxels, affine, plane.points(1.0))
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return 0.0, 1.0
    low, median, high = np.percentile(seen, (0.5, 50, 99.5))
    return float(low), float(max(min(high, median + 1.25 * (median - low)), low + 1e-6))


def _axes(figure: Figure, box_px: tuple[int, int, int, int]) -> Axes:
    left, top, width, height = box_px
    axes = figure.add_axes(
        (left / WIDTH_PX, 1 - (top + height) / HEIGHT_PX, width / WIDTH_PX, height / HEIGHT_PX)
    )
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#2a303a")
    return axes


def _draw_cut(
    axes: Axes,
    panel: Panel,
    voxels: NDArray[np.float32],
    affine: NDArray[np.float64],
    shades: tuple[float, float],
) -> None:
    image = cut(voxels, affine, panel.plane.points(panel.step_mm))
    extent = _extent(panel.plane)
    axes.imshow(
        image,
        cmap="gray",
        vmin=shades[0],
        vmax=shades[1],
        extent=extent,
        interpolation="bilinear",
        aspect="auto",
    )


def _draw_contours(
    axes: Axes, panel: Panel, labels: LabelMap, card: ModelCard, affine: NDArray[np.float64]
) -> None:
    points = panel.plane.points(panel.step_mm)
    x = (points - panel.plane.centre_mm) @ panel.plane.right
    y = (points - panel.plane.centre_mm) @ panel.plane.down
    width = 1.8 if panel.step_mm <= STEP_MM else 1.0
    for structure in card.structures:
        share = cut_structure(labels.labels, structure.number, affine, points)
        if share.max() <= 0.5:
            continue
        lines = axes.contour(x, y, share, levels=[0.5], colors=[rgb(structure)], linewidths=width)
        halo = "#000000b0" if _luminance(structure) > 0.35 else "#ffffffa0"
        lines.set_path_effects([Stroke(linewidth=width + 1.6, foreground=halo), Normal()])


def _annotate(axes: Axes, panel: Panel) -> None:
    plane = panel.plane
    left, right, bottom, top = _extent(plane)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    _label(axes, 0.02, 0.972, panel.title, size=10, horizontal="left", vertical="top")
    for letter, (x, y) in zip(
        panel.edges, ((0.035, 0.5), (0.965, 0.5), (0.5, 0.94), (0.5, 0.055)), strict=True
    ):
        _label(axes, x, y, letter, size=18 if letter in {"L", "R"} else 12, weight="bold")
    for mark in panel.marks:
        x_mm, y_mm = plane.place(mark)
        axes.plot([x_mm] * 2, [bottom, bottom + 0.03 * (top - bottom)], color=FAINT, linewidth=1)
        axes.plot([x_mm] * 2, [top, top - 0.03 * (top - bottom)], color=FAINT, linewidth=1)
        axes.plot([left, left + 0.02 * (right - left)], [y_mm] * 2, color=FAINT, linewidth=1)
        axes.plot([right, right - 0.02 * (right - left)], [y_mm] * 2, color=FAINT, linewidth=1)
    _draw_bar(axes, panel)


def _draw_bar(axes: Axes, panel: Panel) -> None:
    """A scale bar at the bottom right."""
    share = panel.bar_mm / panel.plane.width_mm
    ends, y = (0.96 - share, 0.96), 0.06
    axes.plot(
        ends,
        (y, y),
        transform=axes.transAxes,
        color=INK,
        linewidth=3,
        solid_capstyle="butt",
        path_effects=[Stroke(linewidth=5, foreground="black"), Normal()],
    )
    _label(axes, sum(ends) / 2, y + 0.015, f"{panel.bar_mm} mm", size=9, vertical="bottom")


def _frame_field(axes: Axes, whole: Plane, field: Plane) -> None:
    """Show in the overview what the axial cut enlarges."""
    x, y = whole.place(field.centre_mm)
    corner = (x - field.width_mm / 2, y - field.height_mm / 2)
    axes.add_patch(
        Rectangle(
            corner, field.width_mm, field.height_mm, fill=False, edgecolor=INK, linewidth=1, linestyle="--"
        )
    )


def _label(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    horizontal: str = "center",
    vertical: str = "center",
    weight: str = "normal",
) -> None:
    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        fontsize=size,
        color=INK,
        ha=horizontal,
        va=vertical,
        weight=weight,
        path_effects=[Stroke(linewidth=2.5, foreground="black"), Normal()],
    )


def _extent(plane: Plane) -> tuple[float, float, float, float]:
    """Left, right, bottom, top in mm from the centre; down is positive."""
    return -plane.width_mm / 2, plane.width_mm / 2, plane.height_mm / 2, -plane.height_mm / 2


def _luminance(structure: Structure) -> float:
    """How bright a colour looks, 0 to 1 (sRGB weights)."""
    red, green, blue = rgb(structure)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
