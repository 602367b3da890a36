from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import JPEG2000

from gpnet_node.errors import NotAVolumeError, UnreadableInstanceError
from gpnet_node.imaging.decoding import Codecs, read_frames
from gpnet_node.imaging.pixels import Limits, PixelLayout, locate_pixels, read_layout
from gpnet_node.imaging.series import Frame, read_headers
from tests.factories import enhanced_mr, mr_series, uid_of

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}


def stored(frame: Frame) -> NDArray[Any]:
    with Codecs() as codecs:
        pixels: NDArray[Any] = next(read_frames(frame.source.path, [frame.pixels], str(frame.source), codecs))
    return pixels


def layout_of(path: Path) -> PixelLayout:
    """Layout of an image that is no plane of a volume, so below the reader of headers."""
    with path.open("rb") as file:
        header = dcmread(file, stop_before_pixels=True)
        return locate_pixels(file, header, read_layout(header, path.name, Limits()), path.name)


def head_like(kind: type[Any]) -> NDArray[Any]:
    """Smooth but busy voxels, 3 slices of 40 x 36 (a codec wants more than a few pixels)."""
    place = np.indices((3, 40, 36)).sum(axis=0)
    voxels: NDArray[Any] = ((place * 37) % 200 - (100 if np.dtype(kind).kind == "i" else 0)).astype(kind)
    return voxels


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_stored_values_are_the_same_in_every_transfer_syntax(
    tmp_path: Path, syntax: str, kind: type[Any]
) -> None:
    voxels = head_like(kind)
    form: dict[str, Any] = {"voxels": voxels, "transfer_syntax": SYNTAXES[syntax]}

    classic = [stored(frame) for frame in read_headers(mr_series(tmp_path, **form))]
    enhanced = [stored(frame) for frame in read_headers([enhanced_mr(tmp_path, **form)])]

    assert np.array_equal(classic, voxels)
    assert np.array_equal(enhanced, voxels)


def test_one_real_image_in_nine_transfer_syntaxes_decodes_to_equal_pixels(shared_data: Path) -> None:
    decoded: list[NDArray[Any]] = []
    for path in sorted((shared_data / "dicom" / "dcm_qa_ts" / "In").glob("*.dcm")):
        with Codecs() as codecs:
            decoded.extend(read_frames(path, [layout_of(path)], path.name, codecs))

    assert len(decoded) == 9
    assert decoded[0].max() > 1000
    assert all(np.array_equal(pixels, decoded[0]) for pixels in decoded)


@pytest.mark.parametrize(
    ("signed", "expected"), [(0, [0, 1, 2047, 2048, 4095]), (1, [0, 1, 2047, -2048, -1])]
)
def test_unused_high_bits_are_dropped_and_the_sign_is_taken_from_the_stored_bits(
    tmp_path: Path, signed: int, expected: list[int]
) -> None:
    # Twelve bits stored; the upper four hold an old overlay.
    raw = np.array([[[0, 1, 0x7FF, 0x800, 0xFFF]]], dtype=np.uint16) | 0xA000
    (path,) = mr_series(tmp_path, voxels=raw, BitsStored=12, HighBit=11, PixelRepresentation=signed)

    (frame,) = read_headers([path])

    assert stored(frame).tolist() == [expected]


def test_stored_bits_that_end_above_bit_zero_are_shifted_down(tmp_path: Path) -> None:
    (path,) = mr_series(
        tmp_path, voxels=np.array([[[0xABCD, 0x0010]]], dtype=np.uint16), BitsStored=12, HighBit=15
    )

    (frame,) = read_headers([path])

    assert stored(frame).tolist() == [[0xABC, 0x001]]


@pytest.mark.parametrize("syntax", ["RLE", "JPEG-LS", "JPEG 2000"])
def test_a_damaged_compressed_image_is_unreadable_with_its_uid(tmp_path: Path, syntax: str) -> None:
    (path,) = mr_series(tmp_path, voxels=head_like(np.uint16)[:1], transfer_syntax=SYNTAXES[syntax])
    content = path.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00OB") + 28  # into the first fragment
    path.write_bytes(content[:start] + b"\x55" * 64 + content[start + 64 :])

    with pytest.raises(UnreadableInstanceError, match="pixels cannot be decoded") as caught:
        stored(read_headers([path])[0])

    assert uid_of(path) in str(caught.value)


def test_a_jpeg_stream_that_ends_gdcm_ends_nothing_else(shared_data: Path, tmp_path: Path) -> None:
    content = bytearray((shared_data / "dicom" / "dcm_qa_ts" / "In" / "5.dcm").read_bytes())
    start = (
        content.index(b"\xe0\x7f\x10\x00OB") + 28
    )  # the stream, behind an empty offset table and an item head
    broken, whole = tmp_path / "broken.dcm", tmp_path / "whole.dcm"
    whole.write_bytes(content)
    content[start + 27 : start + 60] = b"\x70" * 33  # frame header and Huffman table
    broken.write_bytes(content)

    with Codecs() as codecs:
        with pytest.raises(UnreadableInstanceError, match="pixels cannot be decoded"):
            list(read_frames(broken, [layout_of(broken)], "broken", codecs))
        (pixels,) = read_frames(whole, [layout_of(whole)], "whole", codecs)

    assert pixels.shape == (384, 384)


def test_a_decoder_that_does_not_answer_is_ended_and_the_image_named(shared_data: Path) -> None:
    path = shared_data / "dicom" / "dcm_qa_ts" / "In" / "5.dcm"
    layout = layout_of(path)
    before = set(psutil.Process().children())
    with Codecs(answer_seconds=20) as codecs:
        list(read_frames(path, [layout], "image", codecs))
        (child,) = set(psutil.Process().children()) - before
        child.suspend()
        codecs.answer_seconds = 0.2
        with pytest.raises(UnreadableInstanceError, match=r"image: .* not decoded within 0\.2 s"):
            list(read_frames(path, [layout], "image", codecs))
        assert not child.is_running()

        codecs.answer_seconds = 20
        (pixels,) = read_frames(path, [layout], "image", codecs)

    assert pixels.shape == (384, 384)


def test_a_compressed_image_of_another_size_than_its_header_says_is_unreadable(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, voxels=head_like(np.uint16)[:1], transfer_syntax=SYNTAXES["JPEG-LS"])
    dataset = dcmread(path)
    dataset.Rows = 20
    dataset.save_as(path)

    with pytest.raises(UnreadableInstanceError, match="decoded"):
        stored(read_headers([path])[0])


@pytest.mark.parametrize(
    ("attributes", "syntax"),
    [({"LossyImageCompression": "01"}, "explicit"), ({}, "JPEG 2000 lossy")],
)
def test_a_lossy_image_is_marked(tmp_path: Path, attributes: dict[str, Any], syntax: str) -> None:
    paths = mr_series(
        tmp_path, voxels=head_like(np.uint16), transfer_syntax=SYNTAXES["JPEG 2000"], **attributes
    )
    if syntax == "JPEG 2000 lossy":
        for path in paths:
            dataset = dcmread(path)
            dataset.file_meta.TransferSyntaxUID = JPEG2000
            dataset.save_as(path)

    assert all(frame.pixels.lossy for frame in read_headers(paths))


def test_a_deflated_image_without_pixels_is_refused_when_it_is_decoded(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=1, PixelData=None, transfer_syntax=SYNTAXES["deflated"])

    with pytest.raises((NotAVolumeError, UnreadableInstanceError), match=uid_of(paths[0])):
        stored(read_headers(paths)[0])
