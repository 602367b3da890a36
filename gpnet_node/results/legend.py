"""What stands on the sheet around the cuts: title, warning, convention, and the table of measurements."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gpnet_node.model.card import ModelCard, Structure
from gpnet_node.results.measure import Measurement

WIDTH_PX, HEIGHT_PX, DPI = 1400, 1205, 100
BACKGROUND, INK, FAINT, WARNING = "#0e1116", "#e6e9ee", "#8b95a5", "#ffb454"


def write_head(figure: Figure, card: ModelCard) -> None:
    """Title, model, and what the reader must know: RESEARCH, and which side is which."""

    def write(x_px: float, y_px: float, text: str, size: float, colour: str, side: str = "left") -> None:
        weight = "bold" if size > 12 else "normal"
        place = (x_px / WIDTH_PX, 1 - y_px / HEIGHT_PX)
        figure.text(*place, text, fontsize=size, color=colour, va="center", ha=side, weight=weight)

    write(20, 30, "Globus pallidus, segmented by GP-net", 19, INK)
    write(20, 62, f"Model {card.name} {card.version}", 11, FAINT)
    write(WIDTH_PX - 20, 30, "RESEARCH – not for clinical use", 17, WARNING, "right")
    convention = "Radiological convention: the patient's left is on the right of the picture"
    write(WIDTH_PX - 20, 62, convention, 11, FAINT, "right")


# Right edge of each column, the first one's left.
_COLUMNS_PX = (58, 290, 475, 590, 775, 1060, 1375)
_HEADINGS = (
    "Structure",
    "Volume",
    "Conventional range",
    "Volume is",
    "Signal, mean ± SD",
    "Centre x, y, z (LPS, mm)",
    "Left-right asymmetry of volume",
)


def write_table(figure: Figure, measurements: Sequence[Measurement]) -> None:
    """One line per structure, beside its colour; volumes outside the conventional range stand out."""

    def write(column: int, y_px: float, text: str, colour: str, weight: str = "normal") -> None:
        figure.text(
            _COLUMNS_PX[column] / WIDTH_PX,
            1 - y_px / HEIGHT_PX,
            text,
            fontsize=12,
            color=colour,
            va="center",
            ha="left" if column == 0 else "right",
            weight=weight,
        )

    top = 1008
    for column, heading in enumerate(_HEADINGS):
        write(column, top, heading, FAINT)
    for row, measurement in enumerate(measurements):
        y_px = top + 36 + 40 * row
        structure = measurement.structure
        figure.patches.append(
            Rectangle(
                (22 / WIDTH_PX, 1 - (y_px + 9) / HEIGHT_PX),
                24 / WIDTH_PX,
                18 / HEIGHT_PX,
                transform=figure.transFigure,
                facecolor=rgb(structure),
            )
        )
        low, high = structure.volume_range_mm3
        against, colour = _against(measurement)
        write(0, y_px, structure.name, INK, "bold")
        write(1, y_px, f"{measurement.volume_mm3:.0f} mm³", INK, "bold")
        write(2, y_px, f"{low:.0f}–{high:.0f} mm³", FAINT)
        write(3, y_px, against, colour)
        write(4, y_px, _signal(measurement), INK)
        write(5, y_px, _place(measurement), INK)
        write(6, y_px, _asymmetry(measurement), INK)


def _against(measurement: Measurement) -> tuple[str, str]:
    low, high = measurement.structure.volume_range_mm3
    if not measurement.voxel_count:
        return "not found", WARNING
    if measurement.volume_mm3 < low:
        return "below", WARNING
    if measurement.volume_mm3 > high:
        return "above", WARNING
    return "within", INK


def _signal(measurement: Measurement) -> str:
    if measurement.signal_mean is None or measurement.signal_sd is None:
        return "–"
    return f"{measurement.signal_mean:.0f} ± {measurement.signal_sd:.0f}"


def _place(measurement: Measurement) -> str:
    if measurement.centroid_mm is None:
        return "–"
    return ",  ".join(tenths(value) for value in measurement.centroid_mm)


def tenths(value: float) -> str:
    """One decimal, and no minus before a zero."""
    return f"{round(float(value), 1) + 0.0:.1f}"


def _asymmetry(measurement: Measurement) -> str:
    percent = measurement.asymmetry_percent
    if percent is None:
        return "–"
    larger = "left larger" if percent > 0 else "right larger" if percent < 0 else "equal"
    return f"{percent:+.1f} %  ({larger})"


def rgb(structure: Structure) -> tuple[float, float, float]:
    """The card's colour as matplotlib takes it."""
    red, green, blue = structure.colour
    return red / 255, green / 255, blue / 255
