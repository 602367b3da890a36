"""Frames out of files: bit for bit what pydicom finds there, in each transfer syntax."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.model.card import read_card
from gpnet_node.web.pixel_data import as_stored, decoded, locate
from tests.factories import enhanced_mr, mr_series, rewrite
from tests.pallida import draw_head, write_results

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}


def bits_of(frame: bytes, size: int) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(frame, np.uint8), count=size, bitorder="little")


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
def test_any_frame_is_decoded_to_its_values_in_little_endian(tmp_path: Path, syntax: str) -> None:
    path = enhanced_mr(tmp_path, slices=5, rows=40, columns=45, transfer_syntax=syntax)
    values = dcmread(path).pixel_array.astype("<u2")

    found = list(decoded(locate(path), [4, 0, 2, 2]))

    assert found == [values[index].tobytes() for index in (4, 0, 2, 2)]


def test_real_images_of_nine_transfer_syntaxes_are_the_same_frame(shared_data: Path) -> None:
    paths = sorted((shared_data / "dicom" / "dcm_qa_ts").rglob("*.dcm"))

    frames = {next(decoded(locate(path), [0])) for path in paths}

    assert len(paths) == 9
    assert len(frames) == 1


@pytest.mark.parametrize("columns", [48, 45, 50, 60])
def test_frames_of_single_bits_are_right_though_they_begin_within_a_byte(
    tmp_path: Path, model_folder: Path, columns: int
) -> None:
    head = draw_head(tmp_path / "head", shape=(11, 45, columns), spacing_mm=(3.0, 1.0, 1.0))
    path = tmp_path / "seg.dcm"
    path.write_bytes(write_results(head, read_card(model_folder)).seg.content)
    frames = dcmread(path).pixel_array
    pixels = locate(path)
    assert pixels.bits_allocated == 1
    filled = [index for index, frame in enumerate(frames) if frame.any()]

    for index in (0, 1, *filled[:6], *filled[-2:], len(frames) - 1):
        (found,) = decoded(pixels, [index])
        assert len(found) == -(-45 * columns // 8)
        assert np.array_equal(bits_of(found, 45 * columns), frames[index].ravel())


def test_others_segmentations_are_read_frame_by_frame_as_pydicom_reads_them(shared_data: Path) -> None:
    read = 0
    folders = [shared_data / "dicom" / name for name in ("highdicom", "dcmqi")]
    for path in (path for folder in folders for path in sorted(folder.rglob("*.dcm"))):
        data_set = dcmread(path)
        if data_set.SOPClassUID.name != "Segmentation Storage" or data_set.BitsAllocated != 1:
            continue
        values = data_set.pixel_array.reshape(-1, data_set.Rows * data_set.Columns)
        for frame, found in zip(values, decoded(locate(path), range(len(values))), strict=True):
            assert np.array_equal(bits_of(found, frame.size), frame)
            read += 1
    assert read > 20


@pytest.mark.parametrize("name", ["RLE", "JPEG-LS", "JPEG 2000"])
def test_a_compressed_frame_comes_as_it_lies_in_the_file(tmp_path: Path, name: str) -> None:
    path = enhanced_mr(tmp_path, slices=4, rows=40, columns=45, transfer_syntax=SYNTAXES[name])
    streams = list(generate_frames(dcmread(path).PixelData, number_of_frames=4))

    assert list(as_stored(locate(path), [3, 1])) == [streams[3], streams[1]]


@pytest.mark.parametrize(
    "change",
    [{"PixelData": b"\0" * 100}, {"Rows": 60000, "Columns": 60000}, {"NumberOfFrames": 400}, {"Rows": 0}],
)
def test_a_header_that_the_pixels_contradict_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = rewrite(enhanced_mr(tmp_path, slices=4), **change)

    with pytest.raises(UnreadableInstanceError):
        locate(path)


def test_what_has_no_pixels_is_said_to_have_none(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1, PixelData=None)

    with pytest.raises(UnreadableInstanceError, match="no pixel data"):
        locate(path)


def test_a_damaged_stream_is_an_error_of_the_instance(tmp_path: Path) -> None:
    path = enhanced_mr(tmp_path, slices=2, rows=40, columns=45, transfer_syntax=SYNTAXES["JPEG 2000"])
    content = bytearray(path.read_bytes())
    content[-400:-40] = b"\xaa" * 360
    path.write_bytes(content)

    with pytest.raises(UnreadableInstanceError, match=UID(SYNTAXES["JPEG 2000"])):
        list(decoded(locate(path), [0, 1]))
