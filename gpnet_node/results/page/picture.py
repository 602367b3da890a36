"""Draws a segmentation for the eye: one page of cuts, surfaces, volumes, quality and provenance."""

from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from gpnet_node.errors import StorageError
from gpnet_node.results.content import Content
from gpnet_node.results.identifiers import MANUFACTURER
from gpnet_node.results.page.cuts import draw_cut, draw_fields, draw_surfaces, shades_of
from gpnet_node.results.page.legend import write_head, write_notes, write_table
from gpnet_node.results.page.panels import SURFACES_BOX, lay_out
from gpnet_node.results.page.sheet import BACKGROUND, DPI, HEIGHT_PX, WIDTH_PX

TITLE = "Globus pallidus, segmented by GP-net. RESEARCH, not for clinical use"


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """One page; the same page gives the same bytes. Nothing on it identifies the patient.

    ``pixels``: uint8, (1131, 1600, RGB).
    """

    figure: Figure
    pixels: NDArray[np.uint8]
    created_at: datetime

    def png(self) -> bytes:
        """The pixels as a PNG file."""
        buffer = BytesIO()
        imsave(buffer, self.pixels, format="png")
        return buffer.getvalue()

    def pdf(self) -> bytes:
        """One page of 297 x 210 mm: lines and text as such, with their fonts; dated by the job."""
        buffer = BytesIO()
        metadata = {
            "Title": TITLE,
            "Creator": MANUFACTURER,
            "Producer": None,
            "CreationDate": self.created_at,
        }
        with matplotlib.rc_context({"pdf.fonttype": 42}):
            self.figure.savefig(buffer, format="pdf", dpi=200, facecolor=BACKGROUND, metadata=metadata)
        return buffer.getvalue()


def compose(content: Content) -> Page:
    """Draw the page: axial, coronal and sagittal cuts through each pallidum, an axial one of both, the
    surfaces in three dimensions, the measurements beside their norms, quality, and what it was made of.

    The cuts follow the patient's axes, not the scan's, at equal scale in both directions. Radiological
    convention: patient left is on the right of the picture. The border of a structure is where linear
    interpolation of its voxels crosses one half.
    """
    volume, labels, card = content.volume, content.labels, content.card
    affine = np.asarray(volume.geometry.affine, dtype=float)
    panels = lay_out(labels, card, affine)
    shades = shades_of(volume, labels, panels[-1].plane)
    figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    write_head(figure)
    for panel in panels:
        axes = draw_cut(figure, panel, volume, labels, card, shades)
    draw_fields(axes, panels[-1], panels[:-1])
    draw_surfaces(figure, SURFACES_BOX, labels, card, affine)
    write_table(figure, content.measurements, content.quality)
    write_notes(figure, volume, card, content.job, content.quality)
    return Page(figure=figure, pixels=_pixels(figure), created_at=content.job.created_at)


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    buffer = BytesIO()
    figure.savefig(buffer, format="rgba", dpi=DPI, facecolor=BACKGROUND)
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(HEIGHT_PX, WIDTH_PX, 4)[..., :3]


def draw(content: Content, path: Path) -> None:
    """Write the page as a PNG of 1600 x 1131 pixels. Raises StorageError where it cannot be written."""
    try:
        path.write_bytes(compose(content).png())
    except OSError as exc:
        raise StorageError(f"the picture cannot be written to {path}: {exc.strerror}") from exc
