from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.model.card import read_card
from gpnet_node.results.capture import write_capture, write_pdf
from gpnet_node.results.check.capture import check_capture, check_pdf
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.header import encode
from gpnet_node.results.page.picture import compose
from tests.pallida import JOB, Head, content_of, draw_head


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    head: Head
    png: bytes
    capture: bytes
    pdf: bytes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Written:
    card = read_card(model_folder)
    head = draw_head(tmp_path_factory.mktemp("head"), PatientName="Äneas^Rüdiger")
    page = compose(content_of(head, card))
    return Written(
        head=head,
        png=page.png(),
        capture=encode(write_capture(page, head.volume, head.labels, card, JOB)),
        pdf=encode(write_pdf(page, head.volume, head.labels, card, JOB)),
    )


def verdict(written: Written, kind: str, change: Callable[[Dataset], None] | None = None) -> str:
    """What the check says of an object, changed or not; empty if it lets it pass."""
    data = {"capture": written.capture, "pdf": written.pdf}[kind]
    if change is not None:
        dataset = dcmread(BytesIO(data))
        change(dataset)
        data = encode(dataset)
    findings = Findings()
    try:
        if kind == "capture":
            check_capture(data, written.png, written.head.volume, findings)
        else:
            check_pdf(data, written.head.volume, findings)
    except SelfCheckError as error:
        return str(error)
    return "; ".join(findings.sentences)


@pytest.mark.parametrize("kind", ["capture", "pdf"])
def test_what_was_written_passes(written: Written, kind: str) -> None:
    assert verdict(written, kind) == ""


@pytest.mark.parametrize("kind", ["capture", "pdf"])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Somebody^Else"),
        ("PatientID", "P2"),
        ("PatientBirthDate", "19990101"),
        ("StudyInstanceUID", "1.2.3"),
    ],
)
def test_another_patient_or_study_is_told_without_its_value(
    written: Written, kind: str, keyword: str, value: str
) -> None:
    said = verdict(written, kind, lambda it: setattr(it, keyword, value))

    assert f"{keyword} is not the source's" in said
    assert value not in said


@pytest.mark.parametrize("kind", ["capture", "pdf"])
def test_an_object_that_does_not_say_what_it_is_is_told(written: Written, kind: str) -> None:
    sources = {"capture": "SourceImageSequence", "pdf": "SourceInstanceSequence"}[kind]

    assert "RESEARCH" in verdict(written, kind, lambda it: delattr(it, "ContentQualification"))
    assert "nobody" in verdict(written, kind, lambda it: setattr(it, "BurnedInAnnotation", "YES"))
    assert "names 19 of 20 source" in verdict(written, kind, lambda it: it[sources].value.pop())
    assert "names 0 of 20 source" in verdict(written, kind, lambda it: delattr(it, sources))


def replaced(pixels: bytes, at: int) -> bytes:
    return pixels[:at] + bytes([pixels[at] ^ 1]) + pixels[at + 1 :]


def test_one_pixel_that_is_not_the_pages_is_told(written: Written) -> None:
    said = verdict(written, "capture", lambda it: setattr(it, "PixelData", replaced(it.PixelData, 3_000_001)))

    assert said == "the picture's pixels are not the page's"


def test_other_colours_and_cut_pixels_are_told(written: Written) -> None:
    swapped = verdict(written, "capture", lambda it: setattr(it, "PhotometricInterpretation", "YBR_FULL"))
    short = verdict(written, "capture", lambda it: setattr(it, "PixelData", it.PixelData[:1000]))

    assert "not the page's" in swapped
    assert "cannot be read back" in short


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda pdf: pdf[:-200],
    "no PDF": lambda pdf: b"x" + pdf[1:],
    "a byte lost": lambda pdf: pdf[:5000] + pdf[5001:],
    "empty": lambda pdf: b"",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_document_that_a_reader_could_not_open_is_told(written: Written, how: str) -> None:
    def change(document: Dataset) -> None:
        pdf = BROKEN[how](document.EncapsulatedDocument[: document.EncapsulatedDocumentLength])
        document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
        document.EncapsulatedDocumentLength = len(pdf)

    assert verdict(written, "pdf", change) == "the document is no PDF that a reader could open"


def test_a_document_of_two_pages_and_one_of_another_type_are_told(written: Written) -> None:
    def two_pages(document: Dataset) -> None:
        assert b"/Count 1" in document.EncapsulatedDocument
        document.EncapsulatedDocument = document.EncapsulatedDocument.replace(b"/Count 1", b"/Count 2")

    def a_picture(document: Dataset) -> None:
        document.MIMETypeOfEncapsulatedDocument = "image/png"

    assert verdict(written, "pdf", two_pages) == "the document has 2 pages, not 1"
    assert verdict(written, "pdf", a_picture) == "the document does not say that it is a PDF"


def test_what_is_no_dicom_is_told(written: Written) -> None:
    volume = written.head.volume

    with pytest.raises(SelfCheckError, match="the picture cannot be read back"):
        check_capture(b"nothing", written.png, volume, Findings())
    with pytest.raises(SelfCheckError, match="the document cannot be read back"):
        check_pdf(b"nothing", volume, Findings())
