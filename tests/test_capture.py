from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from pydicom import Dataset, dcmread

from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.capture import write_capture, write_pdf
from gpnet_node.results.header import encode
from gpnet_node.results.page.picture import Page, compose
from tests.pallida import JOB, Head, content_of, draw_head

NAME = "Σπυρου^Διονυσιος"


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    return draw_head(tmp_path_factory.mktemp("head"), PatientName=NAME, PatientID="PID-4711-XYZ")


@pytest.fixture(scope="module")
def page(head: Head, card: ModelCard) -> Page:
    return compose(content_of(head, card))


def read_back(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(encode(dataset)))


def test_the_capture_has_the_pages_pixels(head: Head, card: ModelCard, page: Page) -> None:
    image = read_back(write_capture(page, head.volume, head.labels, card, JOB))

    assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (image.Rows, image.Columns, image.PhotometricInterpretation) == (1131, 1600, "RGB")
    png = np.rint(np.asarray(imread(BytesIO(page.png())))[..., :3] * 255)
    assert np.array_equal(image.pixel_array, png)


def test_the_document_holds_the_page(head: Head, card: ModelCard, page: Page) -> None:
    document = read_back(write_pdf(page, head.volume, head.labels, card, JOB))

    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert document.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert document.EncapsulatedDocument[: document.EncapsulatedDocumentLength] == page.pdf()
    assert len(document.EncapsulatedDocument) % 2 == 0
    assert "RESEARCH" in document.DocumentTitle


@pytest.mark.parametrize("kind", ["capture", "pdf"])
def test_who_the_patient_is_stands_in_the_header_only(
    head: Head, card: ModelCard, page: Page, kind: str
) -> None:
    write = {"capture": write_capture, "pdf": write_pdf}[kind]
    source = dcmread(head.paths[0])

    found = read_back(write(page, head.volume, head.labels, card, JOB))

    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber"):
        assert found[keyword].value == source[keyword].value
    assert found.BurnedInAnnotation == "NO"


@pytest.mark.parametrize(("kind", "number"), [("capture", 506), ("pdf", 507)])
def test_each_says_what_it_is_made_of_and_that_it_is_research(
    head: Head, card: ModelCard, page: Page, kind: str, number: int
) -> None:
    write = {"capture": write_capture, "pdf": write_pdf}[kind]

    found = read_back(write(page, head.volume, head.labels, card, JOB))

    sources = found.SourceImageSequence if kind == "capture" else found.SourceInstanceSequence
    assert {item.ReferencedSOPInstanceUID for item in sources} == {
        frame.sop_instance_uid for frame in head.volume.frames
    }
    assert (found.SeriesNumber, found.Manufacturer) == (number, "gpnet_node")
    assert found.ContentQualification == "RESEARCH"
    assert "RESEARCH" in found.SeriesDescription
    assert (found.InstanceCreationDate, found.SeriesDate, found.ContentDate) == ("20260304",) * 3
    assert found.ConversionType == "SYN"


@pytest.mark.parametrize("kind", ["capture", "pdf"])
def test_two_writings_are_byte_identical_and_other_content_has_other_uids(
    head: Head, card: ModelCard, page: Page, kind: str
) -> None:
    write = {"capture": write_capture, "pdf": write_pdf}[kind]
    content = content_of(head, card)
    other = compose(replace(content, measurements=content.measurements[::-1]))

    first, again = (write(page, head.volume, head.labels, card, JOB) for _ in range(2))
    changed = write(other, head.volume, head.labels, card, JOB)

    assert encode(first) == encode(again)
    assert first.SOPInstanceUID != changed.SOPInstanceUID
    assert first.SeriesInstanceUID != changed.SeriesInstanceUID


def test_a_source_compressed_with_loss_is_said_so(tmp_path: Path, card: ModelCard, page: Page) -> None:
    lossy: dict[str, Any] = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 8.5,
        "LossyImageCompressionMethod": "ISO_15444_1",
    }
    head = draw_head(tmp_path, **lossy)

    image = read_back(write_capture(page, head.volume, head.labels, card, JOB))

    assert {keyword: image[keyword].value for keyword in lossy} == lossy
