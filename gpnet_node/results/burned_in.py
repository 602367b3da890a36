"""Writes the source series again with contours burned in, for stations that read classic MR images only."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from gpnet_node.errors import InputError
from gpnet_node.imaging.decoding import Codecs, read_frames
from gpnet_node.imaging.frames import Frame
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.results import codes
from gpnet_node.results.header import RESEARCH_STATEMENT, code_item, finish
from gpnet_node.results.identifiers import JobIdentity, content_digest, uid
from gpnet_node.results.lines import WORD, Lettering, border_lines, place_word
from gpnet_node.results.measure import refuse_unmapped
from gpnet_node.results.plane_header import read_planes
from gpnet_node.results.source import Source, read_source

Stored = NDArray[np.integer]


def write_burned_in(volume: Volume, labels: LabelMap, card: ModelCard, job: JobIdentity) -> Iterator[Dataset]:
    """Write one MR Image (PS3.3 A.4) per slice, in slice order within each source file, one at a time.

    Grid, frame of reference, window, rescale and photometric interpretation are the source's, and so is every
    pixel but those of the lines (``border_lines``) and of the word RESEARCH. The bright line has the largest
    stored value of the series, the dark one the smallest: they are seen on any window that shows something
    of the series, and a station that makes its window of the values finds the same one. Both passes over the
    source hold one slice.

    Classic images allocate 16 bits (PS3.3 C.8.3.1.1.4), whatever the source did. Burned In Annotation says
    whether the pixels tell who the patient is (C.7.6.1), to which nothing is added: it stays as it is.

    Raises before the first slice: SelfCheckError for a label that the card does not name, InputError for
    images that are not MR, hold more than 16 bits, mix signed and unsigned pixels, or leave the word no room.
    Raises UnreadableInstanceError or StorageError where a source file cannot be read again.
    """
    refuse_unmapped(labels, card)
    source = read_source(volume)
    _refuse_what_is_no_classic_mr(source)
    word = place_word(np.asarray(labels.labels.any(axis=0)))
    digest = content_digest(labels, card, job, "burned in")
    return _write(source, labels, word, card, job, digest)


def _write(
    source: Source, labels: LabelMap, word: Lettering, card: ModelCard, job: JobIdentity, digest: str
) -> Iterator[Dataset]:
    bits = max(frame.pixels.bits_stored for frame in source.frames)
    with Codecs() as codecs:
        low, high = _extremes(source, codecs)
        for path, indices in _by_file(source).items():
            frames = tuple(source.frames[index] for index in indices)
            planes, images = read_planes(path, frames), _stored(path, frames, codecs)
            for index, plane, stored in zip(indices, planes, images, strict=True):
                image = _image(index, source, card, job, digest)
                image.update(plane)
                burned = _burn(stored, labels.labels[index], word, card, (low, high))
                _set_pixels(image, burned, source.frames[index], bits)
                finish(image, source, card, job, "GP-net contours burned in")
                yield image


def _refuse_what_is_no_classic_mr(source: Source) -> None:
    series = f"series {source.series_instance_uid}"
    modality = source.frames[0].text("Modality") or "not stated"
    if modality != "MR":
        raise InputError(f"{series}: modality is {modality}; contours are burned into MR images only")
    bits = max(frame.pixels.bits_stored for frame in source.frames)
    if bits > 16:
        raise InputError(f"{series} stores {bits} bits a pixel; a classic MR image holds 16 (PS3.3 C.8.3.1)")
    if len({frame.pixels.signed for frame in source.frames}) > 1:
        raise InputError(f"{series} mixes signed and unsigned pixels")


def _by_file(source: Source) -> dict[Path, list[int]]:
    """Slices of each file, so that a multi-frame instance is opened once."""
    of_file: dict[Path, list[int]] = {}
    for index, frame in enumerate(source.frames):
        of_file.setdefault(frame.source.path, []).append(index)
    return of_file


def _stored(path: Path, frames: tuple[Frame, ...], codecs: Codecs) -> Iterator[Stored]:
    where = f"SOP instance {frames[0].source.sop_instance_uid}"
    return read_frames(path, [frame.pixels for frame in frames], where, codecs)


def _extremes(source: Source, codecs: Codecs) -> tuple[int, int]:
    """Smallest and largest stored value of the series."""
    found = [
        (int(stored.min()), int(stored.max()))
        for path, indices in _by_file(source).items()
        for stored in _stored(path, tuple(source.frames[index] for index in indices), codecs)
    ]
    return min(low for low, _ in found), max(high for _, high in found)


def _burn(
    stored: Stored, labels: NDArray[np.uint8], word: Lettering, card: ModelCard, extremes: tuple[int, int]
) -> Stored:
    low, high = extremes
    burned = stored.copy()
    if labels.any():
        bright, dark = border_lines(labels, card)
        burned[bright], burned[dark] = high, low
    burned[word.box] = np.where(word.letters, high, low)
    return burned


def _image(index: int, source: Source, card: ModelCard, job: JobIdentity, digest: str) -> SOPClass:
    """One slice without its plane and pixels."""
    image = SOPClass(
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=uid(job, "mr series", digest),
        series_number=source.result_series_number(5),
        sop_instance_uid=uid(job, f"mr {index}", digest),
        sop_class_uid=MRImageStorage,
        instance_number=index + 1,
        modality="MR",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.DerivationDescription = (
        f"Contours by {card.name} {card.version} burned in, outside the structures, and the word {WORD}"
    )
    image.ImageComments = RESEARCH_STATEMENT
    image.SourceImageSequence = [_reference(source.frames[index])]
    return image


def _reference(frame: Frame) -> Dataset:
    """The source image that lies where this one does (PS3.3 C.7.6.1)."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = frame.source.sop_class_uid
    reference.ReferencedSOPInstanceUID = frame.source.sop_instance_uid
    if frame.source.frame_number is not None:
        reference.ReferencedFrameNumber = frame.source.frame_number
    reference.SpatialLocationsPreserved = "YES"
    reference.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_IMAGE)]
    return reference


def _set_pixels(image: Dataset, pixels: Stored, frame: Frame, bits: int) -> None:
    """Image Pixel module (PS3.3 C.7.6.3)."""
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = frame.pixels.photometric
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, bits, bits - 1
    image.PixelRepresentation = int(frame.pixels.signed)
    image.PixelData = pixels.astype("<i2" if frame.pixels.signed else "<u2").tobytes()
    image["PixelData"].VR = "OW"
