"""What the self-check asks of the page's two objects: whose they are, and that they show the page.

Read back with plain pydicom and numpy; shares no code with the writer.
"""

import re
from io import BytesIO

import numpy as np
from matplotlib.image import imread
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.elements import PARSE_FAILURES
from gpnet_node.imaging.volume import Volume
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.identity import check_identity, read_identity

_HEADER = re.compile(rb"%PDF-1\.[0-7]\n")
_TRAILER = re.compile(rb"startxref\s+(\d+)\s+%%EOF\s*\Z")
_ENTRY = re.compile(rb"(\d{10}) \d{5} n")
_PAGES = re.compile(rb"/Type\s*/Pages\b[^>]*/Count\s+(\d+)|/Count\s+(\d+)[^>]*/Type\s*/Pages\b")


def check_capture(data: bytes, png: bytes | None, volume: Volume, findings: Findings) -> None:
    """Compare a Secondary Capture with the page's PNG, pixel by pixel, and with its source.

    Raises SelfCheckError where it cannot be read back, StorageError where the source cannot.
    """
    image = _read(data, "picture")
    check_identity("picture", image, read_identity(volume), findings)
    _check_sources("picture", image.get("SourceImageSequence", []), volume, findings)
    not_named = image.get("BurnedInAnnotation") == "NO"
    findings.expect(not_named, "the picture does not say that its pixels name nobody")
    try:
        pixels = np.asarray(image.pixel_array)
    except (*PARSE_FAILURES, RuntimeError) as exc:
        raise SelfCheckError(f"the picture's pixels cannot be read back ({type(exc).__name__})") from exc
    if png is None:
        findings.expect(False, "the picture has no PNG beside it")
        return
    expected = np.rint(np.asarray(imread(BytesIO(png)))[..., :3] * 255).astype(np.uint8)
    same = image.PhotometricInterpretation == "RGB" and np.array_equal(pixels, expected)
    findings.expect(same, "the picture's pixels are not the page's")


def check_pdf(data: bytes, volume: Volume, findings: Findings) -> None:
    """Check an Encapsulated PDF: a document of one page that a reader finds its way in, of this source.

    Raises SelfCheckError where it cannot be read back, StorageError where the source cannot.
    """
    document = _read(data, "document")
    check_identity("document", document, read_identity(volume), findings)
    _check_sources("document", document.get("SourceInstanceSequence", []), volume, findings)
    not_named = document.get("BurnedInAnnotation") == "NO"
    findings.expect(not_named, "the document does not say that its page names nobody")
    findings.expect(
        document.get("MIMETypeOfEncapsulatedDocument") == "application/pdf",
        "the document does not say that it is a PDF",
    )
    length = int(document.get("EncapsulatedDocumentLength") or 0)
    pdf = bytes(document.get("EncapsulatedDocument") or b"")[:length]
    pages = _pages(pdf)
    findings.expect(pages is not None, "the document is no PDF that a reader could open")
    findings.expect(pages in (None, 1), f"the document has {pages} pages, not 1")


def _read(data: bytes, name: str) -> Dataset:
    try:
        dataset = dcmread(BytesIO(data))
        dataset.decode()
    except PARSE_FAILURES as exc:
        raise SelfCheckError(f"the {name} cannot be read back ({type(exc).__name__})") from exc
    return dataset


def _check_sources(name: str, items: list[Dataset], volume: Volume, findings: Findings) -> None:
    wanted = {frame.sop_instance_uid for frame in volume.frames}
    named = {str(item.get("ReferencedSOPInstanceUID")) for item in items}
    findings.expect(
        named == wanted, f"the {name} names {len(named & wanted)} of {len(wanted)} source instances"
    )


def _pages(pdf: bytes) -> int | None:
    """Pages of a PDF (ISO 32000-1, 7.5): None unless its cross-references lead to its objects."""
    trailer = _TRAILER.search(pdf)
    if not _HEADER.match(pdf) or trailer is None:
        return None
    table = pdf[int(trailer[1]) :]
    starts = [int(entry[1]) for entry in _ENTRY.finditer(table)]
    whole = table.startswith(b"xref") and starts
    if not whole or not all(re.match(rb"\d+ 0 obj", pdf[start : start + 24]) for start in starts):
        return None
    counts = _PAGES.search(pdf)
    return None if counts is None else int(counts[1] or counts[2])
