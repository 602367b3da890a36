"""The sheet that the page stands on: its size, its colours, and how text is put at a pixel."""

from matplotlib.figure import Figure

from gpnet_node.model.card import Structure

# As wide to high as A4 across, so that the same page prints; at 1024 pixels wide its text is 11 high.
WIDTH_PX, HEIGHT_PX, DPI = 1600, 1131, 137
# Ink on ground, and a warning that differs in brightness too: no meaning is in a hue alone.
BACKGROUND, INK, FAINT, WARNING = "#0e1116", "#e6e9ee", "#9aa5b5", "#ffb454"
TEXT_PX = 18


def points(pixels: float) -> float:
    """Font size or line width in points, of so many pixels of the sheet."""
    return pixels * 72 / DPI


def write(
    figure: Figure,
    place_px: tuple[float, float],
    text: str,
    *,
    size_px: float = TEXT_PX,
    colour: str = INK,
    side: str = "left",
    bold: bool = False,
) -> None:
    """Put text at a place from the sheet's top left, centred on that height; ``side``: which end is there."""
    x, y = place_px
    weight = "bold" if bold else "normal"
    at = (x / WIDTH_PX, 1 - y / HEIGHT_PX)
    figure.text(*at, text, fontsize=points(size_px), color=colour, va="center", ha=side, weight=weight)


def tenths(value: float) -> str:
    """One decimal, and no minus before a zero."""
    return f"{round(float(value), 1) + 0.0:.1f}"


def rgb(structure: Structure) -> tuple[float, float, float]:
    """The card's colour as matplotlib takes it."""
    red, green, blue = structure.colour
    return red / 255, green / 255, blue / 255


def short_name(structure: Structure) -> str:
    """Its name without its side."""
    return structure.name.removesuffix(f" {structure.side}")
