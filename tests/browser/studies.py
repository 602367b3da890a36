"""Studies to look at: a lopsided head and its segmentations, in each form that the node writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpnet_node.model.card import ModelCard
from gpnet_node.result_profile import SegForm
from gpnet_node.results.header import encode
from gpnet_node.results.seg import write_seg
from tests.browser.heads import draw_lopsided_head, mirrored, shifted
from tests.browser.screen import Screen, screen_of
from tests.pallida import JOB, OBLIQUE, Head

PLANES: Mapping[str, Mapping[str, Any]] = {
    "axial": {},
    # A row of a BINARY segmentation does not fill whole bytes here.
    "oblique, 70 columns": {"orientation": OBLIQUE, "shape": (35, 64, 70)},
}
FORMS = {
    "BINARY": SegForm(),
    "LABELMAP": SegForm(labelmap=True),
    "padded BINARY": SegForm(padded_columns=True),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """A written study: its files, and the series of each segmentation by name."""

    uid: str
    screen: Screen
    source: tuple[Path, ...]
    segmentations: Mapping[str, Path]
    series_uids: Mapping[str, str]


def write_study(folder: Path, card: ModelCard, plane: str) -> Study:
    """Draw a head in a plane, and write it with every form of its segmentation and two wrong ones."""
    uid = f"2.25.{7000 + list(PLANES).index(plane)}"
    head = draw_lopsided_head(folder / "source", study_instance_uid=uid, **PLANES[plane])
    wanted: dict[str, tuple[Head, SegForm]] = {name: (head, form) for name, form in FORMS.items()}
    wanted["ten slices too high"] = (shifted(head, 10), SegForm())
    wanted["mirrored"] = (mirrored(head), SegForm())
    files, series = {}, {}
    for name, (labelled, form) in wanted.items():
        seg = write_seg(labelled.volume, labelled.labels, card, JOB, form)
        files[name] = folder / f"{name}.dcm"
        files[name].write_bytes(encode(seg))
        series[name] = str(seg.SeriesInstanceUID)
    return Study(
        uid=uid,
        screen=screen_of(head.paths),
        source=head.paths,
        segmentations=files,
        series_uids=series,
    )
