"""Draws the panels of the page: image, contours, names and scale of a cut, and the surfaces."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, Structure
from gpnet_node.results.page.panels import STEP_MM, Box, Panel
from gpnet_node.results.page.planes import LEFT, POSTERIOR, SUPERIOR, Plane, cut, cut_structure
from gpnet_node.results.page.sheet import HEIGHT_PX, INK, WIDTH_PX, points, rgb, short_name
from gpnet_node.results.page.surfaces_view import look_at

Colour = str | tuple[float, float, float]
_FRAME = "#2a303a"
# Around the structures in three dimensions.
_AIR_MM = 3.5
# From a structure's edge to the middle of its name.
_NAME_MM = 2.6


def shades_of(volume: Volume, labels: LabelMap, plane: Plane) -> tuple[float, float]:
    """Black and white for all panels, for contrast in and around the pallida.

    Between them lies what the pallida show (four standard deviations), and the middle four fifths of what the
    plane holds; but white is no further above the median than black below it, by a quarter: CSF may saturate.
    """
    affine = np.asarray(volume.geometry.affine, dtype=float)
    seen = cut(volume.voxels, affine, plane.points(1.0))
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return 0.0, 1.0
    inside = volume.voxels[labels.labels > 0].astype(float)
    inside = inside if inside.size else seen
    low, median, high = np.percentile(seen, (10, 50, 90))
    reach = 4 * inside.std()
    black = min(low, inside.mean() - reach)
    white = max(inside.mean() + reach, min(high, median + 1.25 * (median - black)))
    return float(black), float(max(white, black + 1e-6))


def draw_cut(
    figure: Figure,
    panel: Panel,
    volume: Volume,
    labels: LabelMap,
    card: ModelCard,
    shades: tuple[float, float],
) -> Axes:
    """One cut with its contours, in its place on the sheet."""
    affine = np.asarray(volume.geometry.affine, dtype=float)
    axes = _axes(figure, panel.box_px)
    sampled = panel.plane.points(STEP_MM)
    axes.imshow(
        cut(volume.voxels, affine, sampled),
        cmap="gray",
        vmin=shades[0],
        vmax=shades[1],
        extent=_extent(panel.plane),
        interpolation="bilinear",
        aspect="auto",
    )
    _draw_contours(axes, panel, labels, card, sampled)
    _annotate(axes, panel)
    return axes


def draw_fields(axes: Axes, whole: Panel, parts: list[Panel]) -> None:
    """Show in the cut of both sides what the other axial cuts enlarge."""
    for part in parts:
        if part.plane.down is not whole.plane.down:
            continue
        x, y = whole.plane.place(part.plane.centre_mm)
        width, height = part.plane.width_mm, part.plane.height_mm
        corner = (x - width / 2, y - height / 2)
        axes.add_patch(
            Rectangle(corner, width, height, fill=False, edgecolor=INK, linewidth=points(1.5), linestyle="--")
        )


def draw_surfaces(
    figure: Figure, box_px: Box, labels: LabelMap, card: ModelCard, affine: NDArray[np.float64]
) -> None:
    """The structures from the front and, below that, from the feet, at one scale."""
    left, top, width, height = box_px
    middle, extent = _extent_mm(labels, affine)
    # Front view above, view from the feet below: the widest scale at which both fit.
    high_mm = extent[2] + extent[1] + 4 * _AIR_MM
    wide_mm = max(extent[0] + 4 * _AIR_MM, high_mm * width / height)
    upper = round(height * (extent[2] + 2 * _AIR_MM) / high_mm)
    for title, down, y_px, high_px in (
        ("from the front", -SUPERIOR, top, upper),
        ("from the feet", POSTERIOR, top + upper, height - upper),
    ):
        axes = _axes(figure, (left, y_px, width, high_px))
        plane = Plane(
            centre_mm=middle, right=LEFT, down=down, width_mm=wide_mm, height_mm=wide_mm * high_px / width
        )
        image = look_at(labels, card, affine, plane)
        axes.imshow(image, extent=_extent(plane), aspect="auto", interpolation="bilinear")
        _label(axes, 0.015, 1 - 7 / high_px, f"3D  {title}", size_px=18, horizontal="left", vertical="top")
        for letter, x in (("R", 0.022), ("L", 0.978)):
            _label(axes, x, 0.5, letter, size_px=24, bold=True)
    _draw_bar(axes, plane, 10)


def _extent_mm(
    labels: LabelMap, affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle of all structures (LPS mm), and how far they reach along the patient's axes."""
    where = np.argwhere(labels.labels > 0)
    if not len(where):
        where = np.argwhere(np.ones((2, 2, 2))) * (np.array(labels.labels.shape) - 1)
    places = where @ affine[:3, :3].T + affine[:3, 3]
    low, high = places.min(axis=0), places.max(axis=0)
    return (low + high) / 2, high - low


def _axes(figure: Figure, box_px: Box) -> Axes:
    left, top, width, height = box_px
    axes = figure.add_axes(
        (left / WIDTH_PX, 1 - (top + height) / HEIGHT_PX, width / WIDTH_PX, height / HEIGHT_PX)
    )
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(_FRAME)
    return axes


def _draw_contours(
    axes: Axes, panel: Panel, labels: LabelMap, card: ModelCard, sampled: NDArray[np.float64]
) -> None:
    affine = np.asarray(labels.geometry.affine, dtype=float)
    x = (sampled - panel.plane.centre_mm) @ panel.plane.right
    y = (sampled - panel.plane.centre_mm) @ panel.plane.down
    width = points(3.0 if panel.sides else 2.2)
    centres = {}
    for structure in card.structures:
        share = cut_structure(labels.labels, structure.number, affine, sampled)
        if share.max() <= 0.5:
            continue
        lines = axes.contour(x, y, share, levels=[0.5], colors=[rgb(structure)], linewidths=width)
        halo = "#000000b0" if _luminance(structure) > 0.35 else "#ffffffa0"
        lines.set_path_effects([Stroke(linewidth=width + points(2.5), foreground=halo), Normal()])
        inside = share > 0.5
        if structure.side in panel.sides:
            centres[structure.number] = (structure, np.stack([x[inside], y[inside]], axis=1))
    _name(axes, panel.plane, list(centres.values()))


def _name(axes: Axes, plane: Plane, cuts: list[tuple[Structure, NDArray[np.float64]]]) -> None:
    """Write each structure's name beside it, turned away from the others where that place is free."""
    for structure, places in cuts:
        others = [other.mean(axis=0) for it, other in cuts if it is not structure]
        away = places.mean(axis=0) - (np.mean(others, axis=0) if others else np.zeros(2))
        length = float(np.linalg.norm(away))
        first = np.arctan2(away[1], away[0]) if length > 0.5 else -np.pi / 2
        spots = [_beside(places, first + np.radians(turn)) for turn in (0, 40, -40, 80, -80, 120, -120)]
        x, y = next((spot for spot in spots if _is_free(spot, plane)), spots[0])
        text = axes.text(x, y, short_name(structure), fontsize=points(20), color=rgb(structure))
        text.set(ha="center", va="center", weight="bold")
        text.set_path_effects([Stroke(linewidth=points(4), foreground="black"), Normal()])


def _beside(places: NDArray[np.float64], angle: float) -> tuple[float, float]:
    direction = np.array([np.cos(angle), np.sin(angle)])
    x, y = places[(places @ direction).argmax()] + _NAME_MM * direction
    return float(x), float(y)


def _is_free(spot: tuple[float, float], plane: Plane) -> bool:
    """Whether a name there leaves title, letters and scale bar alone."""
    left, right, bottom, top = _extent(plane)
    x, y = spot
    within = left + 5.5 < x < right - 5.5 and top + 6.0 < y < bottom - 4.5
    in_title = x < left + 24 and y < top + 8.5
    by_bar = x > right - 15 and y > bottom - 7
    return within and not in_title and not by_bar


def _annotate(axes: Axes, panel: Panel) -> None:
    plane = panel.plane
    left, right, bottom, top = _extent(plane)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    height_px = panel.box_px[3]
    _label(
        axes, 0.02, 1 - 7 / height_px, panel.title, size_px=19, horizontal="left", vertical="top", bold=True
    )
    _label(axes, 0.02, 1 - 32 / height_px, panel.subtitle, size_px=17, horizontal="left", vertical="top")
    side_px = panel.box_px[2]
    for letter, (x, y) in zip(
        panel.edges,
        ((14 / side_px, 0.5), (1 - 14 / side_px, 0.5), (0.5, 1 - 16 / height_px), (0.5, 15 / height_px)),
        strict=True,
    ):
        strong = letter in {"L", "R"}
        _label(axes, x, y, letter, size_px=24 if strong else 18, bold=strong)
    _draw_bar(axes, plane, panel.bar_mm)


def _draw_bar(axes: Axes, plane: Plane, bar_mm: int) -> None:
    """A scale bar at the bottom right."""
    left, right, bottom, top = _extent(plane)
    down = bottom - 0.05 * (bottom - top)
    end = right - 0.03 * (right - left)
    axes.plot(
        (end - bar_mm, end),
        (down, down),
        color=INK,
        linewidth=points(4),
        solid_capstyle="butt",
        path_effects=[Stroke(linewidth=points(7), foreground="black"), Normal()],
    )
    text = axes.text(end - bar_mm / 2, down - 0.02 * (bottom - top), f"{bar_mm} mm", ha="center", va="bottom")
    text.set_fontsize(points(16))
    text.set_color(INK)
    text.set_path_effects([Stroke(linewidth=points(4), foreground="black"), Normal()])


def _label(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size_px: float,
    horizontal: str = "center",
    vertical: str = "center",
    bold: bool = False,
) -> None:
    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        fontsize=points(size_px),
        color=INK,
        ha=horizontal,
        va=vertical,
        weight="bold" if bold else "normal",
        path_effects=[Stroke(linewidth=points(4), foreground="black"), Normal()],
    )


def _extent(plane: Plane) -> tuple[float, float, float, float]:
    """Left, right, bottom, top in mm from the centre; down is positive."""
    return -plane.width_mm / 2, plane.width_mm / 2, plane.height_mm / 2, -plane.height_mm / 2


def _luminance(structure: Structure) -> float:
    """How bright a colour looks, 0 to 1 (sRGB weights)."""
    red, green, blue = rgb(structure)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
