"""What stands on the page around the pictures: title, warning, measurements, quality and provenance."""

import textwrap
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gpnet_node.imaging.volume import Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.model.segmentation import Quality
from gpnet_node.results.identifiers import MANUFACTURER, JobIdentity
from gpnet_node.results.measure import Measurement
from gpnet_node.results.page.sheet import (
    FAINT,
    HEIGHT_PX,
    INK,
    WARNING,
    WIDTH_PX,
    rgb,
    tenths,
    write,
)

_TABLE_TOP, _ROW_PX = 752, 34
# Right edge of each column, the first one's left.
_COLUMNS_PX = {
    "Structure": 58,
    "Volume": 278,
    "Conventional": 452,
    "Volume is": 735,
    "Left-right asymmetry": 965,
    "Predicted Dice": 1120,
    "Entropy": 1218,
    "Signal ± SD": 1380,
    "Centre, LPS mm": 1584,
}
_GAUGE_PX = (472, 628)  # a scale of volumes, from none to twice the norm's middle
_NOTES_TOP, _LINE_PX, _LINES, _WRAP = 944, 27, 6, 88


def write_head(figure: Figure) -> None:
    """Title, and what the reader must know: RESEARCH, and which side is which."""
    write(figure, (16, 27), "Globus pallidus, segmented by GP-net", size_px=27, bold=True)
    warning = "RESEARCH – not for clinical use"
    write(figure, (WIDTH_PX - 16, 27), warning, size_px=27, colour=WARNING, side="right", bold=True)
    shown = "Cuts along the patient's axes; contours at the labels' border"
    write(figure, (16, 58), shown, colour=FAINT)
    convention = "Radiological convention: the patient's left is on the right of the picture"
    write(figure, (WIDTH_PX - 16, 58), convention, colour=FAINT, side="right")


def write_table(figure: Figure, measurements: Sequence[Measurement], quality: Quality) -> None:
    """One line per structure, beside its colour; volumes outside the conventional range stand out."""
    for heading, x_px in _COLUMNS_PX.items():
        side = "left" if heading == "Structure" else "right"
        write(figure, (x_px, _TABLE_TOP), heading, colour=FAINT, side=side)
    for row, measurement in enumerate(measurements, start=1):
        y_px = _TABLE_TOP + _ROW_PX * row + 4
        structure = measurement.structure
        _box(figure, (22, y_px - 10, 26, 20), rgb(structure))
        _gauge(figure, measurement, y_px)
        low, high = structure.volume_range_mm3
        against, colour = _against(measurement)
        dice, entropy = quality.predicted_dice.get(structure.name), quality.entropy.get(structure.name)
        cells = (
            (structure.name, INK),
            (f"{measurement.volume_mm3:.0f} mm³", INK),
            (f"{low:.0f}–{high:.0f} mm³", FAINT),
            (against, colour),
            (_asymmetry(measurement), INK),
            (_hundredths(dice), INK),
            (_hundredths(entropy), INK),
            (_signal(measurement), INK),
            (_place(measurement), INK),
        )
        for column, ((text, ink), x_px) in enumerate(zip(cells, _COLUMNS_PX.values(), strict=True)):
            side = "left" if column == 0 else "right"
            write(figure, (x_px, y_px), text, colour=ink, side=side, bold=column < 2)


def write_notes(figure: Figure, volume: Volume, card: ModelCard, job: JobIdentity, quality: Quality) -> None:
    """What speaks against the result, and of what, with what and when it was made."""
    rule = _NOTES_TOP - 20
    _box(figure, (16, rule, WIDTH_PX - 32, 1), "#2a303a")
    heading, lines, colour = _on_quality(quality, card)
    write(figure, (16, _NOTES_TOP), heading, colour=colour, bold=True)
    for row, line in enumerate(lines, start=1):
        write(figure, (16, _NOTES_TOP + _LINE_PX * row), line)
    x_px = 1000
    write(figure, (x_px, _NOTES_TOP), "Provenance", bold=True)
    for row, (name, text) in enumerate(_provenance(volume, card, job), start=1):
        write(figure, (x_px, _NOTES_TOP + _LINE_PX * row), name, colour=FAINT)
        write(figure, (x_px + 110, _NOTES_TOP + _LINE_PX * row), text)


def _on_quality(quality: Quality, card: ModelCard) -> tuple[str, list[str], str]:
    """Heading, lines and the heading's colour; as many lines as there is room for."""
    if quality.reasons:
        return "NEEDS REVIEW BY A PERSON", list(_listed(quality.reasons)), WARNING
    lines = ["No reason was found why a person must look before the result is sent."]
    if quality.predicted_dice and card.quality is not None:
        lines.append(f"Predicted Dice: 0 to 1; below {card.quality.threshold:.2f} it would be a reason.")
    if quality.entropy:
        lines.append("Entropy: mean over the structure in nats, from 0 (sure) to 1.10 (knows nothing).")
    for text, unit, values in (
        ("Lesion or lead in or at the pallidum", "mm³", quality.lesion_mm3),
        ("From the pallidum to the edge of the images", "mm", quality.edge_distance_mm),
    ):
        if values:
            each = ", ".join(
                f"{side} {value:.0f} {unit}" for side, value in sorted(values.items(), reverse=True)
            )
            lines.append(f"{text}: {each}.")
    return "Quality", lines, INK


def _listed(reasons: Sequence[str]) -> Iterator[str]:
    """Whole reasons, as many as there is room for, and how many there are besides."""
    used = 0
    for number, reason in enumerate(reasons, start=1):
        sentence = f"{reason[:1].upper()}{reason[1:]}."
        lines = textwrap.wrap(sentence, _WRAP, initial_indent="• ", subsequent_indent="   ")
        used += len(lines)
        if used > _LINES - (number < len(reasons)):
            yield f"… and {len(reasons) - number + 1} more, in the report."
            return
        yield from lines


def _provenance(volume: Volume, card: ModelCard, job: JobIdentity) -> list[tuple[str, str]]:
    slice_mm, row_mm, column_mm = volume.geometry.spacing
    slices, rows, columns = volume.voxels.shape
    return [
        ("Model", f"{card.name} {card.version}, weights {card.weights_sha256[:12]}"),
        ("Software", f"{MANUFACTURER} {job.software_version}"),
        ("Made", f"{job.created_at:%Y-%m-%d %H:%M} (UTC{job.created_at:%z})"),
        ("Images", f"{columns} × {rows} × {slices} of {column_mm:.2f} × {row_mm:.2f} × {slice_mm:.2f} mm"),
        ("Norms", "conventional volumes of one side (model card)"),
    ]


def _gauge(figure: Figure, measurement: Measurement, y_px: float) -> None:
    """The volume as a mark on a scale, over the conventional range."""
    low, high = measurement.structure.volume_range_mm3
    left, right = _GAUGE_PX

    def at(volume_mm3: float) -> float:
        return left + (right - left) * min(volume_mm3 / (low + high), 1.0)

    _box(figure, (left, y_px - 1, right - left, 2), "#3a424e")
    _box(figure, (at(low), y_px - 6, at(high) - at(low), 12), "#59657a")
    if measurement.voxel_count:
        _box(figure, (at(measurement.volume_mm3) - 3, y_px - 11, 6, 22), _against(measurement)[1])


def _box(
    figure: Figure, box_px: tuple[float, float, float, float], colour: str | tuple[float, float, float]
) -> None:
    left, top, width, height = box_px
    corner = (left / WIDTH_PX, 1 - (top + height) / HEIGHT_PX)
    size = (width / WIDTH_PX, height / HEIGHT_PX)
    patch = Rectangle(corner, *size, transform=figure.transFigure, facecolor=colour, edgecolor="none")
    figure.patches.append(patch)


def _against(measurement: Measurement) -> tuple[str, str]:
    low, high = measurement.structure.volume_range_mm3
    if not measurement.voxel_count:
        return "not found", WARNING
    if measurement.volume_mm3 < low:
        return "below", WARNING
    if measurement.volume_mm3 > high:
        return "above", WARNING
    return "within", INK


def _hundredths(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _signal(measurement: Measurement) -> str:
    if measurement.signal_mean is None or measurement.signal_sd is None:
        return "–"
    return f"{measurement.signal_mean:.0f} ± {measurement.signal_sd:.0f}"


def _place(measurement: Measurement) -> str:
    if measurement.centroid_mm is None:
        return "–"
    return ",  ".join(tenths(value) for value in measurement.centroid_mm)


def _asymmetry(measurement: Measurement) -> str:
    percent = measurement.asymmetry_percent
    if percent is None:
        return "–"
    larger = "left larger" if percent > 0 else "right larger" if percent < 0 else "equal"
    return f"{percent:+.1f} %  ({larger})"
