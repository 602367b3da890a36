from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import (
    JPEG2000Lossless,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)

from gpnet_node.config import RouteConfig
from gpnet_node.eligibility import EligibilityConfig
from gpnet_node.errors import InputError, SelfCheckError, StorageError
from gpnet_node.imaging.gate import decide
from gpnet_node.imaging.series import choose, read_headers, split
from gpnet_node.imaging.volume import LabelMap, Volume, assemble
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.burned_in import write_burned_in
from gpnet_node.results.header import encode
from tests.factories import mr_series
from tests.pallida import JOB, OBLIQUE, Head, draw_head

SMALL: dict[str, Any] = {"shape": (6, 60, 61), "spacing_mm": (2.0, 1.0, 1.0)}
WINDOW: dict[str, Any] = {"WindowCenter": lambda index: 500 + index, "WindowWidth": 1000.5}


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def written(head: Head, card: ModelCard) -> list[Dataset]:
    """The series as its bytes say, in slice order."""
    encoded = [encode(image) for image in write_burned_in(head.volume, head.labels, card, JOB)]
    images = [dcmread(BytesIO(data)) for data in encoded]
    return sorted(images, key=lambda image: int(image.InstanceNumber))


def head_of(paths: Sequence[Path]) -> Head:
    """A head of any pixels, with one block of each structure in its middle slices."""
    volume = assemble(choose(split(read_headers(paths))))
    labels = np.zeros(volume.voxels.shape, np.uint8)
    labels[1:-1, 20:30, 5:12], labels[1:-1, 20:30, 12:16] = 3, 4
    labels[1:-1, 20:30, 40:47], labels[1:-1, 20:30, 36:40] = 1, 2
    return Head(paths=tuple(paths), volume=volume, labels=LabelMap(labels=labels, geometry=volume.geometry))


def painted(images: Sequence[Dataset], volume: Volume) -> NDArray[np.bool_]:
    """Where a pixel is no longer the source's."""
    stored = np.array([image.pixel_array for image in images])
    return np.asarray(stored != volume.voxels)


@pytest.mark.parametrize("form", ["classic", "enhanced", "legacy converted"])
def test_the_series_lies_on_the_sources_grid_whatever_form_that_has(
    tmp_path: Path, card: ModelCard, form: str
) -> None:
    kind: dict[str, Any] = {"enhanced": form != "classic"}
    if form == "legacy converted":
        kind["sop_class"] = LegacyConvertedEnhancedMRImageStorage
    head = draw_head(tmp_path, **SMALL, orientation=OBLIQUE, **WINDOW, **kind)

    images = written(head, card)

    affine = np.asarray(head.volume.geometry.affine)
    assert len(images) == 6
    for index, (image, frame) in enumerate(zip(images, head.volume.frames, strict=True)):
        assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == MRImageStorage
        assert image.FrameOfReferenceUID == head.volume.geometry.frame_of_reference_uid
        assert list(image.ImagePositionPatient) == pytest.approx((affine @ [index, 0, 0, 1])[:3], abs=1e-5)
        assert list(image.ImageOrientationPatient) == pytest.approx(OBLIQUE)
        assert list(image.PixelSpacing) == [1, 1]
        assert (image.Rows, image.Columns, image.BitsAllocated) == (60, 61, 16)
        source = image.SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == frame.sop_instance_uid
        assert source.get("ReferencedFrameNumber") == frame.frame_number


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_the_sources_window_is_kept_slice_by_slice(tmp_path: Path, card: ModelCard, enhanced: bool) -> None:
    head = draw_head(tmp_path, **SMALL, **WINDOW, enhanced=enhanced)

    images = written(head, card)

    # Frames of the enhanced image run against the slices.
    centres = [505 - k if enhanced else 500 + k for k in range(6)]
    assert [image.WindowCenter for image in images] == centres
    assert {image.WindowWidth for image in images} == {1000.5}


def test_a_source_without_a_window_gets_none(tmp_path: Path, card: ModelCard) -> None:
    assert all("WindowCenter" not in image for image in written(draw_head(tmp_path, **SMALL), card))


def test_only_the_lines_and_one_word_are_painted_and_no_structure_is(tmp_path: Path, card: ModelCard) -> None:
    head = head_of(mr_series(tmp_path, slices=5, rows=60, columns=61))

    images = written(head, card)

    changed = painted(images, head.volume)
    assert not (changed & (head.labels.labels > 0))[:, :, [*range(5, 10), *range(12, 16)]].any()
    # Right GPe: columns 5 to 11, the two next to the GPi hold the line between them.
    assert changed[2, 25].nonzero()[0].tolist() == [3, 4, 10, 11, 16, 17, 34, 35, 40, 41, 47, 48]
    rows, columns = changed[0].nonzero()  # no structure is there: the word alone
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 8, 0, 48)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint8, np.int8])
def test_the_lines_have_the_extremes_of_the_series_beside_each_other(
    tmp_path: Path, card: ModelCard, dtype: type[np.integer]
) -> None:
    limits = np.iinfo(dtype)
    voxels = (
        np.random.default_rng(1).integers(limits.min // 2 + 5, limits.max // 2, (5, 60, 61)).astype(dtype)
    )
    voxels[0, 30, 30], voxels[4, 31, 31] = limits.max - 3, limits.min + 2

    images = written(head_of(mr_series(tmp_path, voxels=voxels)), card)

    row = images[2].pixel_array[25].tolist()
    bright, dark = limits.max - 3, limits.min + 2
    assert row[3:5] == [dark, bright]
    assert row[16:18] == row[47:49] == [bright, dark]
    assert row[10:12] == [dark, bright]
    assert row[5:10] == voxels[2, 25, 5:10].tolist()
    assert images[2].PixelRepresentation == int(limits.min < 0)
    assert (images[2].BitsStored, images[2].HighBit) == (limits.bits, limits.bits - 1)


def test_pixels_that_are_at_the_maximum_already_do_not_hide_the_contour(
    tmp_path: Path, card: ModelCard
) -> None:
    voxels = np.full((5, 60, 61), 4095, np.uint16)
    voxels[0, 0, 0] = 7

    images = written(head_of(mr_series(tmp_path, voxels=voxels, BitsStored=12, HighBit=11)), card)

    assert images[2].pixel_array[25, 2:6].tolist() == [4095, 7, 4095, 4095]
    assert (images[2].BitsAllocated, images[2].BitsStored, images[2].HighBit) == (16, 12, 11)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_sources_give_the_same_pixels(tmp_path: Path, card: ModelCard, syntax: str) -> None:
    plain = head_of(mr_series(tmp_path / "plain", slices=5, rows=60, columns=61))
    small = head_of(mr_series(tmp_path / "small", slices=5, rows=60, columns=61, transfer_syntax=syntax))

    pairs = zip(written(plain, card), written(small, card), strict=True)

    assert all(np.array_equal(one.pixel_array, other.pixel_array) for one, other in pairs)


def test_rescale_is_the_sources_own(tmp_path: Path, card: ModelCard) -> None:
    scaled: dict[str, Any] = {"RescaleSlope": lambda k: f"{1.5 + k / 4}", "RescaleIntercept": "-12.25"}
    images = written(draw_head(tmp_path, **SMALL, **scaled), card)

    assert [image.RescaleSlope for image in images] == [1.5, 1.75, 2.0, 2.25, 2.5, 2.75]
    assert {float(image.RescaleIntercept) for image in images} == {-12.25}


def test_monochrome1_stays_monochrome1(tmp_path: Path, card: ModelCard) -> None:
    images = written(draw_head(tmp_path, **SMALL, PhotometricInterpretation="MONOCHROME1"), card)

    assert {image.PhotometricInterpretation for image in images} == {"MONOCHROME1"}


@pytest.mark.parametrize("stated", ["YES", "NO", None])
def test_whether_the_pixels_tell_who_the_patient_is_stays_as_it_is(
    tmp_path: Path, card: ModelCard, stated: str | None
) -> None:
    images = written(draw_head(tmp_path, **SMALL, BurnedInAnnotation=stated), card)

    assert {image.get("BurnedInAnnotation") for image in images} == {stated}


def test_an_enhanced_source_tells_its_sequence_in_the_classic_words(tmp_path: Path, card: ModelCard) -> None:
    attributes: dict[str, Any] = {"InversionRecovery": "YES", "InversionTimes": 1234.5}

    image = written(draw_head(tmp_path, **SMALL, enhanced=True, **attributes), card)[0]

    assert list(image.ScanningSequence) == ["SE", "IR"]
    assert (image.EchoTime, image.RepetitionTime, image.InversionTime) == (60, 6000, 1234.5)
    assert (image.SequenceVariant, image.MRAcquisitionType) == ("NONE", "2D")


def test_every_image_says_what_it_is_and_when_it_was_made(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, **SMALL, PatientName="Σπυρου^Διονυσιος")
    source = dcmread(head.paths[0])

    for number, image in enumerate(written(head, card), start=1):
        assert list(image.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
        assert image.ContentQualification == "RESEARCH"
        assert "RESEARCH" in image.SeriesDescription
        assert "RESEARCH" in image.ImageComments
        assert card.name in image.DerivationDescription
        assert (image.SeriesNumber, image.InstanceNumber) == (505, number)
        assert (image.InstanceCreationDate, image.SeriesDate, image.ContentDate) == ("20260304",) * 3
        assert (image.PatientName, image.StudyInstanceUID) == (source.PatientName, source.StudyInstanceUID)
        assert image.SeriesInstanceUID != source.SeriesInstanceUID


def test_a_pacs_that_routes_the_series_back_is_refused_by_the_gate(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path / "in", shape=(6, 240, 240), spacing_mm=(6.0, 0.5, 0.5))
    paths = [tmp_path / f"{index}.dcm" for index in range(6)]
    for path, image in zip(paths, write_burned_in(head.volume, head.labels, card, JOB), strict=True):
        path.write_bytes(encode(image))

    decision = decide(split(read_headers(paths)), ())
    again = decide(split(read_headers(paths)), (accepting(),))

    assert not decision.eligible
    assert again.reasons == (
        "It was written by gpnet_node itself.",
        "Image Type is DERIVED\\SECONDARY; only acquired images are segmented.",
    )
    assert decide(split(read_headers(head.paths)), (accepting(),)).eligible


def accepting() -> RouteConfig:
    eligible = EligibilityConfig(min_slices=2, slice_spacing_mm=10.0, coverage_mm=(10.0, 10.0))
    return RouteConfig(name="gpnet", model="gpnet-1", eligible=eligible)


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_two_writings_are_byte_identical(tmp_path: Path, card: ModelCard, enhanced: bool) -> None:
    head = draw_head(tmp_path, **SMALL, enhanced=enhanced, **WINDOW)

    once, again = (
        [encode(image) for image in write_burned_in(head.volume, head.labels, card, JOB)] for _ in range(2)
    )

    assert once == again
    assert len({dcmread(BytesIO(data)).SOPInstanceUID for data in once}) == 6


def test_other_labels_make_another_series(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, **SMALL)
    moved = head.labels.labels.copy()
    moved[1, 30, 30] = 1

    first, second = written(head, card)[0], written(head.relabelled(moved), card)[0]

    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_images_are_made_one_at_a_time(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, **SMALL)
    images = write_burned_in(head.volume, head.labels, card, JOB)

    assert next(images).InstanceNumber == 1
    head.paths[3].unlink()

    assert [next(images).InstanceNumber, next(images).InstanceNumber] == [2, 3]
    with pytest.raises(StorageError):
        next(images)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Modality": "CT"}, "modality is CT"),
        ({"voxels": np.zeros((6, 60, 61), np.uint32)}, "stores 32 bits a pixel"),
        ({"PixelRepresentation": lambda index: index % 2}, "mixes signed and unsigned"),
        ({"voxels": np.zeros((6, 30, 40), np.uint16)}, "no room for RESEARCH"),
    ],
)
def test_what_a_classic_mr_series_cannot_hold_is_refused_before_the_first_image(
    tmp_path: Path, card: ModelCard, attributes: dict[str, Any], words: str
) -> None:
    head = head_of(mr_series(tmp_path, **{"slices": 6, "rows": 60, "columns": 61, **attributes}))

    with pytest.raises(InputError, match=words):
        write_burned_in(head.volume, head.labels, card, JOB)


def test_a_label_that_the_card_does_not_name_is_an_error(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, **SMALL)
    labels = replace(head.labels, labels=np.where(head.labels.labels == 2, 9, head.labels.labels))

    with pytest.raises(SelfCheckError, match="holds 9"):
        write_burned_in(head.volume, labels, card, JOB)
