"""An instance decoded for a peer that does not take it as it is stored."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.imaging.decoding import Codecs
from gpnet_node.intake.conversion import converted
from tests.factories import enhanced_mr, mr_series
from tests.peers import program

PLENTY = 1 << 30


def as_plain(path: Path, *, to: str = ExplicitVRLittleEndian, max_bytes: int = PLENTY) -> Path:
    """Convert a file and write what comes of it, as it would be sent."""
    with Codecs() as codecs:
        data_set = converted(path, to=UID(to), codecs=codecs, max_bytes=max_bytes)
    plain = path.with_suffix(".plain")
    dcmwrite(plain, data_set, enforce_file_format=True)
    return plain


@pytest.mark.parametrize("stored", [RLELossless, JPEGLSLossless, ExplicitVRBigEndian])
@pytest.mark.parametrize("to", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_every_frame_and_value_is_as_it_was(tmp_path: Path, stored: str, to: str) -> None:
    path = enhanced_mr(tmp_path / "stored", slices=3, transfer_syntax=stored, PatientName="Müller^Zoë")
    original = dcmread(enhanced_mr(tmp_path / "original", slices=3, PatientName="Müller^Zoë"))

    plain = dcmread(as_plain(path, to=to))

    assert plain.file_meta.TransferSyntaxUID == to
    assert np.array_equal(plain.pixel_array, original.pixel_array)
    differing = {it.keyword for it in original if plain.get(it.keyword) != it.value} - {"SOPInstanceUID"}
    assert differing == set()


def test_lossless_jpeg_which_only_gdcm_decodes_is_decoded_in_a_process_of_its_own(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "sent", slices=1, rows=32, columns=32)
    jpeg = tmp_path / "jpeg.dcm"
    subprocess.run([program("/usr/bin/dcmcjpeg"), "+e1", str(path), str(jpeg)], check=True)
    assert dcmread(jpeg).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"

    plain = dcmread(as_plain(jpeg))

    assert np.array_equal(plain.pixel_array, dcmread(path).pixel_array)


def test_pixels_beyond_the_limit_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = enhanced_mr(tmp_path, slices=3, transfer_syntax=RLELossless)

    with pytest.raises(UnreadableInstanceError, match="cannot be converted"):
        as_plain(path, max_bytes=3 * 16 * 12 * 2 - 1)


def test_a_damaged_stream_is_the_instances_fault(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path, slices=1, transfer_syntax=RLELossless)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\xe0\x7f\x10\x00") + 40] + b"\xff" * 60)

    with pytest.raises(UnreadableInstanceError, match=r"ends too early|cannot be parsed|cannot be converted"):
        as_plain(path)
