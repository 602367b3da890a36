"""Writes the page for viewers: as a picture (Secondary Capture) and as a document (Encapsulated PDF)."""

import hashlib

from highdicom.base import SOPClass
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.results import codes
from gpnet_node.results.header import RESEARCH_STATEMENT, code_item, finish
from gpnet_node.results.identifiers import JobIdentity, content_digest, uid
from gpnet_node.results.page.picture import TITLE, Page
from gpnet_node.results.source import LOSSY, Source, read_source

# Made by a program from data, not photographed or copied from a screen (PS3.3 C.8.6.1).
CONVERSION_TYPE = "SYN"


def write_capture(page: Page, volume: Volume, labels: LabelMap, card: ModelCard, job: JobIdentity) -> Dataset:
    """Write the page's pixels as an RGB Secondary Capture (PS3.3 A.8.1), without compression.

    Who the patient is stands in the header and nowhere in the pixels: Burned In Annotation is NO. The same
    page gives the same bytes. Raises as ``read_source``.
    """
    pixels, source = page.pixels, read_source(volume)
    digest = content_digest(labels, card, job, "capture", hashlib.sha256(pixels.tobytes()).hexdigest())
    image = SOPClass(
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=uid(job, "capture series", digest),
        series_number=source.result_series_number(6),
        sop_instance_uid=uid(job, "capture", digest),
        sop_class_uid=SecondaryCaptureImageStorage,
        instance_number=1,
        modality="OT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    image.ConversionType = CONVERSION_TYPE
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.PatientOrientation = None  # cuts in three directions
    image.BodyPartExamined = "BRAIN"  # of which both sides are shown, so no laterality (PS3.3 C.7.3.1)
    image.DerivationDescription = TITLE
    image.ImageComments = RESEARCH_STATEMENT
    image.SourceImageSequence = _references(source)
    image.BurnedInAnnotation = image.RecognizableVisualFeatures = "NO"
    for keyword in LOSSY:
        if source.header.get(keyword):
            image.add(source.header[keyword])
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.Rows, image.Columns = pixels.shape[:2]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = _even(pixels.tobytes())
    image["PixelData"].VR = "OB"
    finish(image, source, card, job, "GP-net picture")
    image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture = image.ContentDate, image.ContentTime
    return image


def write_pdf(page: Page, volume: Volume, labels: LabelMap, card: ModelCard, job: JobIdentity) -> Dataset:
    """Write the page as an Encapsulated PDF (PS3.3 A.45.1) that names the images it was made of.

    Nothing in the document identifies the patient. The same page gives the same bytes. Raises as
    ``read_source``.
    """
    pdf, source = page.pdf(), read_source(volume)
    digest = content_digest(labels, card, job, "pdf", hashlib.sha256(pdf).hexdigest())
    document = SOPClass(
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=uid(job, "pdf series", digest),
        series_number=source.result_series_number(7),
        sop_instance_uid=uid(job, "pdf", digest),
        sop_class_uid=EncapsulatedPDFStorage,
        instance_number=1,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    document.ConversionType = CONVERSION_TYPE
    document.AcquisitionDateTime = None
    document.BurnedInAnnotation = document.RecognizableVisualFeatures = "NO"
    document.SourceInstanceSequence = _references(source)
    document.DocumentTitle = TITLE
    document.ConceptNameCodeSequence = [code_item(codes.MEASUREMENT_REPORT)]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocumentLength = len(pdf)
    document.EncapsulatedDocument = _even(pdf)
    finish(document, source, card, job, "GP-net page")
    return document


def _references(source: Source) -> list[Dataset]:
    items = []
    for frame in source.instances:
        item = Dataset()
        item.ReferencedSOPClassUID = frame.sop_class_uid
        item.ReferencedSOPInstanceUID = frame.sop_instance_uid
        item.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_IMAGE)]
        items.append(item)
    return items


def _even(data: bytes) -> bytes:
    """Padded to an even length (PS3.5 7.1.1)."""
    return data + b"\0" * (len(data) % 2)
