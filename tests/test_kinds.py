from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from gpnet_node.imaging.kinds import component, distortion_correction, scanning_sequences
from gpnet_node.imaging.series import Frame, find_files, read_headers
from tests.factories import enhanced_mr, mr_series

TERRA = "dcm_qa_xa60_7T_TerraX/XA60/DICOM/24100413/39280000"


def classic(folder: Path, **attributes: Any) -> Frame:  # noqa: ANN401
    return read_headers(mr_series(folder, slices=1, **attributes))[0]


def multi_frame(folder: Path, **attributes: Any) -> Frame:  # noqa: ANN401
    return read_headers([enhanced_mr(folder, slices=1, **attributes)])[0]


@pytest.mark.parametrize(
    ("image_type", "expected"),
    [
        (["ORIGINAL", "PRIMARY", "M", "ND"], "MAGNITUDE"),
        (["ORIGINAL", "PRIMARY", "P", "ND"], "PHASE"),
        (["ORIGINAL", "PRIMARY", "R", "ND"], "REAL"),
        (["ORIGINAL", "PRIMARY", "I", "ND"], "IMAGINARY"),
        (["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"], "MAGNITUDE"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "PHASE"),
        (["ORIGINAL", "PRIMARY", "B0 MAP"], "OTHER"),
        (["ORIGINAL", "PRIMARY", "OTHER"], "MAGNITUDE"),
        (["ORIGINAL", "PRIMARY"], "MAGNITUDE"),
    ],
)
def test_the_component_of_a_classic_image_is_told_by_its_image_type(
    tmp_path: Path, image_type: list[str], expected: str
) -> None:
    assert component(classic(tmp_path, ImageType=image_type)) == expected


def test_the_standard_component_counts_before_the_image_type(tmp_path: Path) -> None:
    frame = multi_frame(
        tmp_path, ComplexImageComponent="PHASE", FrameType=["ORIGINAL", "PRIMARY", "M", "NONE"]
    )

    assert component(frame) == "PHASE"


def test_a_mixed_component_is_told_by_the_frame_type(tmp_path: Path) -> None:
    frame = multi_frame(
        tmp_path, ComplexImageComponent="MIXED", FrameType=["ORIGINAL", "PRIMARY", "P", "NONE"]
    )

    assert component(frame) == "PHASE"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"EchoPulseSequence": "SPIN"}, ("SE",)),
        ({"EchoPulseSequence": "GRADIENT", "EchoPlanarPulseSequence": "YES"}, ("GR", "EP")),
        ({"EchoPulseSequence": "BOTH"}, ("SE", "GR")),
        ({"EchoPulseSequence": "SPIN", "InversionRecovery": "YES"}, ("SE", "IR")),
        ({"EchoPulseSequence": None}, ()),
    ],
)
def test_enhanced_pulse_sequences_are_told_in_the_classic_terms(
    tmp_path: Path, attributes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert scanning_sequences(multi_frame(tmp_path, **attributes)) == expected


@pytest.mark.parametrize(
    ("image_type", "expected"),
    [
        (["ORIGINAL", "PRIMARY", "M", "ND"], "ND"),
        (["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"], "DIS2D"),
        (["ORIGINAL", "PRIMARY", "M", "DIS3D", "NORM"], "DIS3D"),
        (["ORIGINAL", "PRIMARY", "M", "NORM"], None),
    ],
)
def test_distortion_correction_is_told_by_the_image_type(
    tmp_path: Path, image_type: list[str], expected: str | None
) -> None:
    assert distortion_correction(classic(tmp_path, ImageType=image_type)) == expected


def test_an_enhanced_image_that_is_only_called_distorted_is_uncorrected(tmp_path: Path) -> None:
    assert (
        distortion_correction(multi_frame(tmp_path, ImageType=None, VolumetricProperties="DISTORTED")) == "ND"
    )


def test_distortion_correction_of_a_real_7t_enhanced_series_is_found_in_its_private_values(
    shared_data: Path,
) -> None:
    found: dict[str, set[str | None]] = {}
    for path in find_files(shared_data / "dicom" / TERRA):
        header = dcmread(path, stop_before_pixels=True, specific_tags=["Modality", "ImageType"])
        if header.Modality == "MR":
            frame = read_headers([path])[0]
            found.setdefault(str(header.ImageType[2]), set()).add(distortion_correction(frame))

    assert found == {"FMRI": {"DIS2D"}, "DIFFUSION": {"ND"}}
