"""Burned-in series, capture and document before programs of other people: dciodvfy, DCMTK, poppler."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from pydicom import dcmread

from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.segmentation import Quality
from gpnet_node.results.burned_in import write_burned_in
from gpnet_node.results.capture import write_capture, write_pdf
from gpnet_node.results.header import encode
from gpnet_node.results.page.picture import Page, compose
from tests.pallida import JOB, OBLIQUE, Head, content_of, draw_head
from tests.test_results_peers import REAL, boxes_in, first_volume, run

SMALL: dict[str, Any] = {"shape": (6, 60, 61), "spacing_mm": (2.0, 1.0, 1.0), "orientation": OBLIQUE}
DCIODVFY = ("dciodvfy of Debian", "dciodvfy of PyPI")
# Rescale is not in the MR Image IOD; it stays, since a window means what it did only with it.
EXTENDED = ("Rescale", "Standard Extended SOP Class")


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    identity: dict[str, Any] = {
        "PatientName": "Σπυρου^Διονυσιος",
        "PatientID": "PID-4711-XYZ",
        "AccessionNumber": "ACC99",
    }
    return draw_head(tmp_path_factory.mktemp("head"), **SMALL, **identity, StudyDate="19870615")


@pytest.fixture(scope="module")
def page(head: Head, card: ModelCard) -> Page:
    quality = Quality(reasons=("the left pallidum is doubtful",), predicted_dice={"GPe left": 0.87})
    return compose(content_of(head, card, quality=quality))


def complaints(data: bytes, folder: Path, kind: str) -> list[str]:
    """What either dciodvfy says of an object beside its kind."""
    path = folder / "object.dcm"
    path.write_bytes(data)
    lines = []
    for peer in DCIODVFY:
        said = run(peer, path)
        found = (said.stdout + said.stderr).splitlines()
        assert kind in found
        assert said.returncode == 0, found
        lines += [line for line in found if line != kind]
    return lines


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"WindowCenter": 500, "WindowWidth": 1000},
        {"BodyPartExamined": None, "SequenceVariant": None, "ScanningSequence": None},
        {"enhanced": True, "WindowCenter": 500, "WindowWidth": 1000},
        {"enhanced": True, "InversionRecovery": "YES", "InversionTimes": 1234.5},
        {"enhanced": True, "sop_class": "1.2.840.10008.5.1.4.1.1.4.4"},
        {"BurnedInAnnotation": "YES", "PatientName": "Σπυρου^Διονυσιος"},
    ],
)
def test_dciodvfy_finds_no_error_in_images_with_contours(
    tmp_path: Path, card: ModelCard, attributes: dict[str, Any]
) -> None:
    head = draw_head(tmp_path / "in", **SMALL, **attributes)

    image = list(write_burned_in(head.volume, head.labels, card, JOB))[3]

    said = complaints(encode(image), tmp_path, "MRImage")
    assert [line for line in said if not any(words in line for words in EXTENDED)] == []


@pytest.mark.parametrize("name", REAL)
def test_dciodvfy_finds_no_error_in_real_images_with_contours(
    shared_data: Path, tmp_path: Path, card: ModelCard, name: str
) -> None:
    head = boxes_in(first_volume(shared_data / "dicom" / name))

    image = next(write_burned_in(head.volume, head.labels, card, JOB))

    assert [line for line in complaints(encode(image), tmp_path, "MRImage") if "Error" in line] == []


def test_dciodvfy_finds_nothing_in_capture_and_document(
    tmp_path: Path, head: Head, card: ModelCard, page: Page
) -> None:
    capture = encode(write_capture(page, head.volume, head.labels, card, JOB))
    document = encode(write_pdf(page, head.volume, head.labels, card, JOB))

    assert complaints(capture, tmp_path, "SCImage") == []
    assert complaints(document, tmp_path, "EncapsulatedPDF") == []


def shown_by_dcmtk(path: Path, folder: Path, *options: str) -> NDArray[np.uint8]:
    said = run("dcm2pnm", "+on", *options, path, folder / "shown.png")
    assert said.returncode == 0, said.stderr
    return np.asarray(np.rint(imread(folder / "shown.png") * 255), dtype=np.uint8)


def test_dcmtk_shows_the_captures_pixels(tmp_path: Path, head: Head, card: ModelCard, page: Page) -> None:
    path = tmp_path / "capture.dcm"
    path.write_bytes(encode(write_capture(page, head.volume, head.labels, card, JOB)))

    assert np.array_equal(shown_by_dcmtk(path, tmp_path)[..., :3], page.pixels)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98], ids=["nearly all white", "plain", "nearly all black"])
def test_the_contour_is_seen_on_any_window_that_shows_something(
    tmp_path: Path, card: ModelCard, share: float
) -> None:
    head = draw_head(tmp_path / "in", **SMALL)
    image = list(write_burned_in(head.volume, head.labels, card, JOB))[3]
    path = tmp_path / "image.dcm"
    path.write_bytes(encode(image))
    stored = dcmread(path).pixel_array
    most, least = int(stored.max()), int(stored.min())

    shown = shown_by_dcmtk(path, tmp_path, "+Ww", str(least + share * (most - least)), "20")

    grey = shown if shown.ndim == 2 else shown[..., 0]
    assert (grey[stored == most].min(), grey[stored == least].max()) == (255, 0)


def test_a_documents_text_can_be_read_and_names_nobody(tmp_path: Path, head: Head, page: Page) -> None:
    path = tmp_path / "page.pdf"
    path.write_bytes(page.pdf())

    said = run("pdftotext", "-layout", path, "-")

    mm3 = (head.labels.labels == 1).sum() * 2.0
    for words in ("RESEARCH", "GPi left", f"{mm3:.0f} mm³", "0.87", "The left pallidum is doubtful"):
        assert words in said.stdout
    whole = said.stdout.encode() + path.read_bytes()
    for words in ("Σπυρου", "PID-4711", "ACC99", "1987", "Example"):
        assert words.encode() not in whole


def test_a_documents_fonts_are_embedded(tmp_path: Path, page: Page) -> None:
    path = tmp_path / "page.pdf"
    path.write_bytes(page.pdf())

    said = run("pdffonts", path)

    fonts = [line.split() for line in said.stdout.splitlines()[2:]]
    assert fonts
    assert all(font[-5] == "yes" for font in fonts)


def test_a_printed_page_looks_like_the_picture(tmp_path: Path, page: Page) -> None:
    path = tmp_path / "page.pdf"
    path.write_bytes(page.pdf())

    said = run(
        "pdftoppm",
        "-png",
        "-singlefile",
        "-scale-to-x",
        "1600",
        "-scale-to-y",
        "1131",
        path,
        tmp_path / "page",
    )

    assert said.returncode == 0, said.stderr
    printed = np.asarray(imread(tmp_path / "page.png"))[..., :3]
    drawn = page.pixels / 255
    blocks = [image[:1120, :1600].reshape(56, 20, 80, 20, 3).mean(axis=(1, 3)) for image in (printed, drawn)]
    assert np.abs(blocks[0] - blocks[1]).mean() < 0.02
    assert np.corrcoef(blocks[0].ravel(), blocks[1].ravel())[0, 1] > 0.98
