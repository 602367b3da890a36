from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.segmentation import Quality
from gpnet_node.results.measure import measure
from gpnet_node.results.page.legend import write_head, write_notes, write_table
from gpnet_node.results.page.sheet import DPI, HEIGHT_PX, WIDTH_PX
from tests.pallida import JOB, Head, draw_head

NAMES = ("GPe left", "GPi left", "GPe right", "GPi right")
GOOD = Quality(
    entropy=dict(zip(NAMES, (0.21, 0.33, 0.19, 0.3), strict=True)),
    predicted_dice=dict(zip(NAMES, (0.91, 0.86, 0.92, 0.87), strict=True)),
    lesion_mm3={"left": 0.0, "right": 1.2},
    edge_distance_mm={"left": 13.2, "right": 12.8},
)
LONG = (
    "the right pallidum reaches beyond the volume by 12 % of what was found, and there is more to be said "
    * 2
)


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    return draw_head(tmp_path_factory.mktemp("head"), shape=(10, 48, 60), spacing_mm=(3.0, 1.0, 1.0))


def page_of(head: Head, card: ModelCard, quality: Quality) -> Figure:
    """The sheet without its pictures."""
    figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    write_head(figure)
    write_table(figure, measure(head.volume, head.labels, card), quality)
    write_notes(figure, head.volume, card, JOB, quality)
    return figure


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_volumes_stand_beside_their_norms_with_the_quality_of_each(head: Head, card: ModelCard) -> None:
    said = texts(page_of(head, card, GOOD))

    gpe = measure(head.volume, head.labels, card)[0]
    row = said[said.index("GPe left") :][:9]
    low, high = gpe.structure.volume_range_mm3
    assert row[:3] == ["GPe left", f"{gpe.volume_mm3:.0f} mm³", f"{low:.0f}–{high:.0f} mm³"]
    assert row[3] in {"within", "below", "above"}
    assert "left larger" in row[4]
    assert row[5:7] == ["0.91", "0.21"]
    assert "Lesion or lead in or at the pallidum: right 1 mm³, left 0 mm³." in said
    assert "From the pallidum to the edge of the images: right 13 mm, left 13 mm." in said


def test_what_was_used_when_and_how_is_told(head: Head, card: ModelCard) -> None:
    said = texts(page_of(head, card, Quality()))

    assert f"{card.name} {card.version}, weights {card.weights_sha256[:12]}" in said
    assert "gpnet_node 0.1.0" in said
    assert "2026-03-04 05:06 (UTC+0000)" in said
    assert "60 × 48 × 10 of 1.00 × 1.00 × 3.00 mm" in said
    assert "RESEARCH – not for clinical use" in said
    assert any("patient's left is on the right" in text for text in said)


def test_a_quality_that_is_not_known_is_no_number(head: Head, card: ModelCard) -> None:
    said = texts(page_of(head, card, Quality()))

    assert said[said.index("GPe left") :][5:7] == ["–", "–"]
    assert "NEEDS REVIEW BY A PERSON" not in said


def test_reasons_of_a_review_are_told_in_place_of_praise(head: Head, card: ModelCard) -> None:
    said = texts(page_of(head, card, Quality(reasons=("the left pallidum is doubtful", "it is small"))))

    assert said[said.index("NEEDS REVIEW BY A PERSON") + 1 :][:2] == [
        "• The left pallidum is doubtful.",
        "• It is small.",
    ]
    assert not any("No reason was found" in text for text in said)


def test_reasons_beyond_the_room_are_counted(head: Head, card: ModelCard) -> None:
    said = texts(page_of(head, card, Quality(reasons=("it is small",) * 4 + (LONG,) * 3)))

    assert said.count("• It is small.") == 4
    assert "… and 3 more, in the report." in said


@pytest.mark.parametrize("reasons", [(), (LONG,) * 12, ("it is small",) * 6], ids=["none", "long", "as many"])
def test_no_text_leaves_the_sheet_or_lies_on_another_and_all_is_legible_at_1024_pixels(
    head: Head, card: ModelCard, reasons: tuple[str, ...]
) -> None:
    labels = head.labels.labels.copy()
    labels[:, 10:40, 5:25] = np.where(labels[:, 10:40, 5:25] == 0, 3, labels[:, 10:40, 5:25])  # large numbers
    quality = Quality(**{**vars(GOOD), "reasons": reasons})

    figure = page_of(head.relabelled(labels), card, quality)

    boxes = [(text.get_text(), text.get_window_extent()) for text in figure.texts]
    for name, box in boxes:
        assert box.x0 >= 0, name
        assert box.x1 <= WIDTH_PX, name
        assert box.y0 >= 0, name
        assert box.y1 <= HEIGHT_PX, name
    for (one, box), (other, second) in combinations(boxes, 2):
        assert not box.overlaps(second), f"{one} lies on {other}"
    assert min(float(text.get_fontsize()) for text in figure.texts) * DPI / 72 * 1024 / WIDTH_PX >= 11
