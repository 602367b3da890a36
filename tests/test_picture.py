import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from gpnet_node.errors import StorageError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.segmentation import Quality
from gpnet_node.results.page.picture import compose, draw
from gpnet_node.results.page.planes import LEFT, POSTERIOR, Plane, cut, cut_structure
from gpnet_node.results.page.sheet import DPI, WIDTH_PX
from tests.pallida import OBLIQUE, Head, content_of, draw_head
from tests.segmenters import MODEL

# Where the axial cut of both sides stands on the sheet, 113.3 mm wide.
BOTH = (1066, 404, 518, 320)
PIXEL_MM = 113.3 / 518


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


UNKNOWN = Quality()


def drawn(head: Head, card: ModelCard, path: Path, quality: Quality = UNKNOWN) -> NDArray[np.float64]:
    """The picture's pixels, (row, column, RGB), 0 to 1."""
    draw(content_of(head, card, quality=quality), path)
    return np.asarray(imread(path), dtype=float)[..., :3]


def coloured(
    picture: NDArray[np.float64], colour: tuple[int, int, int], box: tuple[int, int, int, int] = BOTH
) -> NDArray[np.intp]:
    """Rows and columns of a panel's pixels that have a colour, (n, 2)."""
    left, top, width, height = box
    panel = picture[top : top + height, left : left + width]
    return np.argwhere(np.abs(panel - np.array(colour) / 255).max(axis=-1) < 0.1)


@pytest.mark.parametrize("orientation", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), OBLIQUE], ids=["axial", "oblique"])
def test_a_structure_is_outlined_in_its_colour_where_it_lies_in_the_patient(
    tmp_path: Path, card: ModelCard, orientation: tuple[float, ...]
) -> None:
    head = draw_head(
        tmp_path / "in", shape=(30, 100, 120), spacing_mm=(1.0, 0.7, 0.7), orientation=orientation
    )
    points = {s.number: np.argwhere(head.labels.labels == s.number) for s in card.structures}

    picture = drawn(head, card, tmp_path / "out.png")

    affine = head.volume.geometry.affine
    middle = np.mean([affine[:3, :3] @ p.mean(axis=0) + affine[:3, 3] for p in points.values()], axis=0)
    for structure in card.structures:
        lps = points[structure.number] @ affine[:3, :3].T + affine[:3, 3]
        cut_through = lps[np.abs(lps[:, 2] - middle[2]) < 0.6]
        found = coloured(picture, structure.colour)
        row, column = (found.min(axis=0) + found.max(axis=0)) / 2
        x = middle[0] + (column - BOTH[2] / 2) * PIXEL_MM
        y = middle[1] + (row - BOTH[3] / 2) * PIXEL_MM
        outline = (cut_through[:, :2].min(axis=0) + cut_through[:, :2].max(axis=0)) / 2
        assert (x, y) == pytest.approx(outline, abs=0.8)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, card: ModelCard) -> NDArray[np.float64]:
    folder = tmp_path_factory.mktemp("picture")
    return drawn(draw_head(folder / "in"), card, folder / "out.png")


def test_patient_left_is_on_the_right(picture: NDArray[np.float64], card: ModelCard) -> None:
    for structure in card.structures:
        columns = coloured(picture, structure.colour)[:, 1]
        assert (columns > BOTH[2] / 2).all() == (structure.side == "left")


def test_each_side_is_cut_apart_in_three_directions_the_right_one_above(
    picture: NDArray[np.float64], card: ModelCard
) -> None:
    for number in range(3):
        for structure in card.structures:
            above, below = ((16 + 348 * number, top, 340, 320) for top in (76, 404))
            shown = [bool(len(coloured(picture, structure.colour, box))) for box in (above, below)]
            assert shown == [structure.side == "right", structure.side == "left"]


def test_a_page_is_the_same_in_another_process_at_another_time(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path / "in")
    page = compose(content_of(head, card))
    script = """
import sys
from pathlib import Path

from gpnet_node.model.card import read_card
from gpnet_node.results.page.picture import compose
from tests.pallida import content_of, draw_head

head, card, out = draw_head(Path(sys.argv[1])), read_card(Path(sys.argv[2])), Path(sys.argv[3])
page = compose(content_of(head, card))
(out / "page.png").write_bytes(page.png())
(out / "page.pdf").write_bytes(page.pdf())
"""
    repository = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", script, tmp_path / "in", MODEL, tmp_path]
    environment = {**os.environ, "PYTHONHASHSEED": "99", "TZ": "Asia/Tokyo", "PYTHONPATH": str(repository)}

    subprocess.run([str(part) for part in command], env=environment, check=True, timeout=240)

    assert (tmp_path / "page.png").read_bytes() == page.png()
    assert (tmp_path / "page.pdf").read_bytes() == page.pdf()


def test_the_picture_has_the_promised_size_and_a_dark_ground(picture: NDArray[np.float64]) -> None:
    assert picture.shape[:2] == (1131, 1600)
    assert picture[2, 2].max() < 0.12


def test_nothing_in_the_picture_depends_on_the_patients_identity(tmp_path: Path, card: ModelCard) -> None:
    one = draw_head(tmp_path / "one")
    other = draw_head(tmp_path / "other", PatientName="Somebody^Else", PatientID="4711", StudyDate="19990101")

    drawn(one, card, tmp_path / "one.png")
    drawn(other, card, tmp_path / "other.png")

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@pytest.mark.parametrize("keep", [(), (1, 2), (1, 3, 4)], ids=["nothing", "one side", "no GPi left"])
def test_what_was_not_found_is_drawn_as_not_found(
    tmp_path: Path, card: ModelCard, keep: tuple[int, ...]
) -> None:
    head = draw_head(tmp_path / "in")
    labels = np.where(np.isin(head.labels.labels, keep), head.labels.labels, 0).astype(np.uint8)

    picture = drawn(head.relabelled(labels), card, tmp_path / "out.png")

    for structure in card.structures:
        assert bool(len(coloured(picture, structure.colour))) == (structure.number in keep)


def test_what_stands_in_the_panels_is_legible_at_1024_pixels(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)
    page = compose(content_of(head, card))

    texts = [text for axes in page.figure.axes for text in axes.texts]

    said = {text.get_text() for text in texts}
    assert {"RIGHT", "LEFT", "R", "L", "A", "P", "S", "I", "GPe", "GPi", "10 mm", "20 mm"} <= said
    assert min(float(text.get_fontsize()) for text in texts) * DPI / 72 * 1024 / WIDTH_PX >= 10


def test_a_constant_volume_can_be_drawn(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path / "in")
    flat = replace(head, volume=replace(head.volume, voxels=np.full_like(head.volume.voxels, 3)))

    assert drawn(flat, card, tmp_path / "out.png").shape == (1131, 1600, 3)


def test_a_folder_that_is_not_there_is_the_operators_matter(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path / "in")

    with pytest.raises(StorageError, match="cannot be written"):
        drawn(head, card, tmp_path / "missing" / "out.png")


def test_a_cut_gives_the_voxels_at_their_centres_and_nothing_outside(tmp_path: Path) -> None:
    volume = draw_head(tmp_path, shape=(6, 20, 24), orientation=OBLIQUE).volume
    index = np.array([[0, 0, 0], [5, 19, 23], [2, 7, 11], [2, 7, 24.6], [-0.6, 3, 3]])
    points = index @ volume.geometry.affine[:3, :3].T + volume.geometry.affine[:3, 3]

    values = cut(volume.voxels, volume.geometry.affine, points)

    assert values[:3] == pytest.approx(
        [volume.voxels[0, 0, 0], volume.voxels[5, 19, 23], volume.voxels[2, 7, 11]]
    )
    assert np.isnan(values[3:]).all()


def test_a_cut_between_voxels_is_linear(tmp_path: Path) -> None:
    volume = draw_head(tmp_path, shape=(6, 20, 24), orientation=OBLIQUE).volume
    affine = volume.geometry.affine
    z, y, x = np.meshgrid(np.arange(6), np.arange(20), np.arange(24), indexing="ij")
    ramp = (3 * z + 5 * y - 2 * x).astype(np.float32)
    index = np.random.default_rng(3).uniform((0, 0, 0), (5, 19, 23), (50, 3))

    values = cut(ramp, affine, index @ affine[:3, :3].T + affine[:3, 3])

    assert values == pytest.approx(index @ np.array([3, 5, -2]), abs=1e-4)


def test_a_structures_border_lies_half_way_between_its_voxels_and_the_next(tmp_path: Path) -> None:
    volume = draw_head(tmp_path, shape=(6, 20, 24)).volume
    labels = np.zeros((6, 20, 24), np.uint8)
    labels[:, :, 10:] = 3
    points = (np.array([2, 5, 0]) + np.outer([9, 9.25, 9.5, 9.75, 10], [0, 0, 1])) @ volume.geometry.affine[
        :3, :3
    ].T + volume.geometry.affine[:3, 3]

    assert cut_structure(labels, 3, volume.geometry.affine, points) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert not cut_structure(labels, 1, volume.geometry.affine, points).any()


def test_a_plane_places_its_own_points() -> None:
    plane = Plane(centre_mm=np.array([1.0, 2, 3]), right=LEFT, down=POSTERIOR, width_mm=10, height_mm=4)

    points = plane.points(1.0)

    assert points.shape == (5, 11, 3)
    assert plane.place(points[0, 0]) == (-5, -2)
    assert plane.place(points[4, 10]) == (5, 2)
