from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.burned_in import write_burned_in
from gpnet_node.results.check.burned_in import check_burned_in
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.header import encode
from tests.factories import mr_series
from tests.pallida import JOB, OBLIQUE, Head, draw_head
from tests.test_burned_in import head_of

SMALL: dict[str, Any] = {"shape": (6, 60, 61), "spacing_mm": (2.0, 1.0, 1.0)}


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture(scope="module", params=["classic", "enhanced"])
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Head:
    folder = tmp_path_factory.mktemp(request.param)
    window: dict[str, Any] = {"WindowCenter": lambda index: 500 + index, "WindowWidth": 1000}
    return draw_head(folder, **SMALL, orientation=OBLIQUE, enhanced=request.param == "enhanced", **window)


def images_of(head: Head, card: ModelCard) -> list[Dataset]:
    return [dcmread(BytesIO(encode(image))) for image in write_burned_in(head.volume, head.labels, card, JOB)]


def verdict(images: list[Dataset], head: Head, card: ModelCard) -> str:
    """What the check says of a series; empty if it lets it pass."""
    findings = Findings()
    check_burned_in((encode(image) for image in images), head.volume, head.labels, card, findings)
    return "; ".join(findings.sentences)


def paint(image: Dataset, row: int, column: int, value: int | None = None) -> None:
    """Change one pixel, by one if no value is given."""
    pixels = image.pixel_array.copy()
    pixels[row, column] = pixels[row, column] + 1 if value is None else value
    image.PixelData = pixels.tobytes()


def test_what_was_written_passes(head: Head, card: ModelCard) -> None:
    assert verdict(images_of(head, card), head, card) == ""


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint8, np.int8])
def test_any_kind_of_pixels_with_any_rescale_passes(
    tmp_path: Path, card: ModelCard, dtype: type[np.integer]
) -> None:
    limits = np.iinfo(dtype)
    voxels = np.random.default_rng(2).integers(limits.min, limits.max, (5, 60, 61), endpoint=True)
    scaled: dict[str, Any] = {"RescaleSlope": lambda k: f"{0.37 + k / 10:.2f}", "RescaleIntercept": "-1024"}
    head = head_of(mr_series(tmp_path, voxels=voxels.astype(dtype), **scaled))

    assert verdict(images_of(head, card), head, card) == ""


def test_the_order_of_the_images_does_not_matter(head: Head, card: ModelCard) -> None:
    assert verdict(images_of(head, card)[::-1], head, card) == ""


def move(image: Dataset, mm: float) -> None:
    image.ImagePositionPatient = [*image.ImagePositionPatient[:2], image.ImagePositionPatient[2] + mm]


MUTANTS: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "another frame of reference": (
        lambda it: setattr(it, "FrameOfReferenceUID", "1.2.3"),
        "is in another frame of reference",
    ),
    "another patient": (lambda it: setattr(it, "PatientID", "P2"), "PatientID is not the source's"),
    "another study": (lambda it: setattr(it, "StudyInstanceUID", "1.2.3"), "StudyInstanceUID is not"),
    "not said to be research": (
        lambda it: setattr(it, "ContentQualification", "PRODUCT"),
        "does not say that it is RESEARCH",
    ),
    "not said to be derived": (
        lambda it: setattr(it, "ImageType", ["ORIGINAL", "PRIMARY", "M"]),
        "not marked DERIVED",
    ),
    "moved": (lambda it: move(it, 0.5), "lies on no slice"),
    "turned": (
        lambda it: setattr(it, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]),
        "has another orientation",
    ),
    "other spacing": (lambda it: setattr(it, "PixelSpacing", [1.01, 1]), "has another spacing"),
    "other window": (lambda it: setattr(it, "WindowCenter", 777), "has another window"),
    "window left out": (lambda it: delattr(it, "WindowWidth"), "has another window"),
    "another series": (lambda it: setattr(it, "SeriesInstanceUID", "1.2.3"), "in several series"),
    "another source": (
        lambda it: setattr(it.SourceImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "does not refer to the source image",
    ),
    "other rescale": (lambda it: setattr(it, "RescaleSlope", 2), "neither the source's"),
    "pixel of a structure": (lambda it: paint(it, 30, 50), "neither the source's"),
    "pixel of the background": (lambda it: paint(it, 59, 60), "neither the source's"),
    "upside down": (
        lambda it: setattr(it, "PixelData", it.pixel_array[::-1].tobytes()),
        "not where the label map's border is",
    ),
    "cut short": (lambda it: setattr(it, "PixelData", it.PixelData[:-2]), "cannot be read back"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_image_that_differs_is_told_with_the_difference(head: Head, card: ModelCard, mutant: str) -> None:
    change, words = MUTANTS[mutant]
    images = images_of(head, card)
    change(images[3])

    try:
        said = verdict(images, head, card)
    except SelfCheckError as error:
        said = str(error)

    assert words in said


def test_a_missing_image_and_one_sent_twice_are_told(head: Head, card: ModelCard) -> None:
    images = images_of(head, card)

    said = verdict([*images[:2], images[1], *images[3:]], head, card)

    assert "two images with contours lie on slice 2" in said
    assert "1 of 6 slices have no image" in said


def test_contours_of_another_label_map_are_told(head: Head, card: ModelCard) -> None:
    moved = head.relabelled(np.roll(head.labels.labels, 1, axis=2))

    assert "not where the label map's border is" in verdict(images_of(moved, card), head, card)


def test_contours_that_are_exchanged_between_slices_are_told(head: Head, card: ModelCard) -> None:
    images = images_of(head, card)
    images[2].PixelData, images[3].PixelData = images[3].PixelData, images[2].PixelData

    assert "border is" in verdict(images, head, card)


def test_a_line_in_another_value_is_told(head: Head, card: ModelCard) -> None:
    images = images_of(head, card)
    most = max(int(image.pixel_array.max()) for image in images)
    for image in images[:5]:
        pixels = image.pixel_array.copy()
        pixels[pixels == most] -= 1
        image.PixelData = pixels.tobytes()

    assert "bright line" in verdict(images, head, card)


def test_a_series_without_the_word_is_told(head: Head, card: ModelCard) -> None:
    images = images_of(head, card)
    slices = {frame.sop_instance_uid: k for k, frame in enumerate(head.volume.frames)}
    for image in images:
        source = image.SourceImageSequence[0]
        number = source.get("ReferencedFrameNumber")
        index = slices[source.ReferencedSOPInstanceUID] if number is None else 6 - int(number)
        pixels = image.pixel_array.copy()
        pixels[:9, :49] = head.volume.voxels[index, :9, :49]
        image.PixelData = pixels.tobytes()

    assert "do not say RESEARCH" in verdict(images, head, card)


def test_a_word_over_a_structure_is_told(head: Head, card: ModelCard) -> None:
    images = images_of(head, card)
    middle = np.argwhere(head.labels.labels[3] == 1).mean(axis=0).astype(int)
    for image in images:
        paint(image, int(middle[0]), int(middle[1]), int(image.pixel_array[0, 0]))

    assert "over a structure" in verdict(images, head, card)
