"""All real DICOM of the shared data through assembly, with dcm2niix as the judge of geometry and voxels."""

import shutil
import subprocess
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from gpnet_node.errors import NotAVolumeError
from gpnet_node.imaging.series import Stack, choose, find_files, read_headers, split
from gpnet_node.imaging.volume import Volume, assemble

# Corners of the volume may differ by so much, mm.
AFFINE_MM = 1e-3
# The judge scales in single precision.
VALUE_SHARE = 1e-6

TERRA = "dcm_qa_xa60_7T_TerraX/XA60/DICOM/24100413/39280000"

# Every series: folder, end of its UID, volumes that it holds (0: refused by its headers), and words of
# the stack chosen without the gate, or of the refusal.
OUTCOMES = (
    ("dcm_qa_decubitus/HFDL_2_t1_fl2d_sag", "22.0.0.0", 1, "35 images"),
    ("dcm_qa_fmap/2_gre_field_magph", "23.0.0.0", 2, "TE/ms 7.65"),
    ("dcm_qa_fmap/3_gre_field_magph", "24.0.0.0", 1, "PHASE"),
    ("dcm_qa_fmap/GE_7T_2_3db0maps", "3042.933", 2, "2 volumes of equal rank"),
    ("dcm_qa_fmap/fmap", "50908935", 2, "T1\\M"),
    ("dcm_qa_ts/In", "57.0.0.0", 0, "mosaic"),
    ("dcm_qa_xa30/14_DWI_dir80_PA", "15.0.0.0", 0, "Enhanced MR Color Image Storage"),
    ("dcm_qa_xa30/5_anat-T1w_acq-tfl", "01.0.0.0", 1, "96 images"),
    ("dcm_qa_xa30/6_anat-T1w_acq-tfl", "84.0.0.0", 1, "96 images"),
    ("dcm_qa_xa30/8_gre_field_mapping", "37.0.0.0", 2, "TE/ms 12.46"),
    ("dcm_qa_xa30/99_Phoenix_Document", "60034352", 0, "Enhanced SR Storage"),
    ("dcm_qa_xa30/9_gre_field_mapping", "38.0.0.0", 1, "PHASE"),
    (TERRA, "55600009", 0, "Enhanced SR Storage"),
    (TERRA, "18.0.0.0", 3, "temporal position 1"),
    (TERRA, "88.0.0.0", 3, "temporal position 1"),
    (TERRA, "58.0.0.0", 3, "temporal position 1"),
    (TERRA, "28.0.0.0", 3, "temporal position 1"),
    (TERRA, "05.0.0.0", 3, "temporal position 1"),
    (TERRA, "92.0.0.0", 3, "temporal position 1"),
    (TERRA, "73.0.0.0", 7, "b-value 0"),
    (TERRA, "16.0.0.0", 7, "b-value 0"),
    (TERRA, "93.0.0.0", 7, "b-value 0"),
    (TERRA, "39.0.0.0", 7, "b-value 0"),
    ("dcmqi/segmentations/23x38x3/image", "50794718", 1, "3 images"),
    ("dcmqi/segmentations/23x38x3/multiframe", "456.3456", 1, "3 images"),
    ("dcmqi/segmentations/23x38x3/seg", "8.764873", 0, "Segmentation Storage"),
    ("dcmqi/segmentations/24x38x3/image", "00569139", 1, "3 images"),
    ("dcmqi/segmentations/24x38x3/multiframe", "456.3456", 1, "3 images"),
    ("dcmqi/segmentations/24x38x3/seg", "5.238878", 0, "Segmentation Storage"),
    ("dcmqi/segmentations/ct-3slice", ".23430.1", 1, "3 images"),
    ("dcmqi/segmentations", "1.665795", 0, "Segmentation Storage"),
    ("dcmqi/segmentations", "2.128469", 0, "Segmentation Storage"),
    ("dcmqi/segmentations", "2.413279", 0, "1.1.66.7"),
    ("dcmqi/sr-example", "7.928456", 0, "Real World Value Mapping Storage"),
    ("dcmqi/sr-example", "2.777032", 0, "Segmentation Storage"),
    ("dcmqi/sr-example", "13.22161", 0, "Comprehensive SR Storage"),
    ("highdicom", "30.12322", 0, "Comprehensive 3D SR Storage"),
    ("highdicom", "41349930", 0, "Segmentation Storage"),
    ("highdicom", "76933075", 0, "Segmentation Storage"),
    ("highdicom", "59888851", 0, "Segmentation Storage"),
    ("highdicom", "44505032", 0, "Segmentation Storage"),
    ("highdicom", "86839409", 0, "Segmentation Storage"),
    ("highdicom", "96151353", 0, "1.1.66.7"),
    ("highdicom", "83663297", 0, "1.1.66.7"),
    ("highdicom", "14614630", 0, "Comprehensive 3D SR Storage"),
    ("niivue_t1_mpr_tra/dicom", "43470751", 1, "120 images"),
)
VOLUMETRIC = tuple((folder, uid) for folder, uid, volumes, _ in OUTCOMES if volumes)


Series = dict[tuple[str, str], list[Path]]


@pytest.fixture(scope="module")
def every_series(shared_data: Path) -> Series:
    """Files of each series, by folder and end of its SeriesInstanceUID."""
    root = shared_data / "dicom"
    series: Series = {}
    for path in find_files(root):
        header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        key = (str(path.parent.relative_to(root)), str(header.SeriesInstanceUID)[-8:])
        series.setdefault(key, []).append(path)
    return series


def judged(paths: list[Path], folder: Path) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """What dcm2niix makes of a series: values and affine (i, j, k) -> RAS mm, one entry a 3D volume."""
    source, out = folder / "in", folder / "out"
    source.mkdir()
    out.mkdir()
    for number, path in enumerate(paths):
        shutil.copy(path, source / f"{number:04d}.dcm")
    command = [
        "dcm2niix",
        "-z",
        "n",
        "-b",
        "n",
        "-x",
        "i",
        "-p",
        "n",
        "-f",
        "%s_%p",
        "-o",
        str(out),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    volumes = []
    for path in sorted(out.glob("*.nii")):
        values, affine = read_nifti(path)
        volumes += [(values[..., time], affine) for time in range(values.shape[3])]
    return volumes


def read_nifti(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scaled values (i, j, k, time) and the sform of a little-endian NIfTI-1 file."""
    data = path.read_bytes()
    shape = np.frombuffer(data, "<i2", 8, 40)
    kind = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 512: "<u2"}[int(np.frombuffer(data, "<i2", 1, 70)[0])]
    start, slope, intercept = (float(x) for x in np.frombuffer(data, "<f4", 3, 108))
    size = (*(int(n) for n in shape[1:4]), int(shape[4]) if shape[0] > 3 else 1)
    values = (
        np.frombuffer(data, kind, int(np.prod(size)), int(start)).reshape(size, order="F").astype(np.float64)
    )
    affine = np.vstack([np.frombuffer(data, "<f4", 12, 280).reshape(3, 4).astype(np.float64), [0, 0, 0, 1]])
    return (values if slope == 0 else values * slope + intercept), affine


def on_grid_of(
    volume: Volume, values: NDArray[np.float64], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float] | None:
    """The judge's values on our axes, and the largest distance between corresponding corners, mm."""
    ours = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.affine  # LPS -> RAS
    for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        shape = tuple(values.shape[axis] for axis in axes)
        theirs = affine[:, [*axes, 3]] @ _flip(shape, signs)
        if shape == volume.voxels.shape and np.allclose(theirs[:3, :3], ours[:3, :3], atol=0.05):
            corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))]).T
            distance = np.linalg.norm((theirs - ours)[:3] @ corners, axis=0).max()
            turned = values.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
            return turned, float(distance)
    return None


def _flip(shape: tuple[int, ...], signs: tuple[int, ...]) -> NDArray[np.float64]:
    flip = np.diag([*signs, 1]).astype(float)
    flip[:3, 3] = [0 if sign == 1 else size - 1 for size, sign in zip(shape, signs, strict=True)]
    return flip


def agreeing(volume: Volume, judge: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> list[int]:
    """Numbers of the judge's volumes that lie at the same place and hold the same values."""
    found = []
    for number, (values, affine) in enumerate(judge):
        compared = on_grid_of(volume, values, affine)
        if compared is not None and compared[1] <= AFFINE_MM:
            tolerance = VALUE_SHARE * float(np.abs(values).max())
            if np.abs(compared[0] - volume.voxels).max() <= tolerance:
                found.append(number)
    return found


def test_the_table_names_every_series_of_the_shared_data(every_series: Series) -> None:
    assert set(every_series) == {(folder, uid) for folder, uid, _, _ in OUTCOMES}


@pytest.mark.parametrize(("folder", "uid", "volumes", "words"), OUTCOMES)
def test_a_real_series_ends_as_the_table_says(
    every_series: Series, folder: str, uid: str, volumes: int, words: str
) -> None:
    stacks: tuple[Stack, ...] = ()

    try:
        stacks = split(read_headers(every_series[folder, uid]))
        outcome = choose(stacks).describe()
    except NotAVolumeError as refusal:
        outcome = str(refusal)

    assert len(stacks) == volumes
    assert words in outcome


@pytest.mark.parametrize(("folder", "uid"), VOLUMETRIC)
def test_every_volume_of_a_real_series_lies_where_dcm2niix_puts_it_with_its_values(
    every_series: Series, tmp_path: Path, folder: str, uid: str
) -> None:
    files = every_series[folder, uid]
    judge = judged(files, tmp_path)

    matches = [agreeing(assemble(stack), judge) for stack in split(read_headers(files[::-1]))]

    assert sorted(matches) == [[number] for number in range(len(judge))]


def test_the_judge_sees_a_flip_a_shift_of_one_slice_and_a_wrong_value(
    every_series: Series, tmp_path: Path
) -> None:
    files = every_series[VOLUMETRIC[0]]
    (values, affine), *_ = judged(files, tmp_path)
    volume = assemble(choose(split(read_headers(files))))
    shifted, wrong = affine.copy(), values.copy()
    shifted[:3, 3] += affine[:3, 2]
    wrong[10, 20, 5] += 1

    assert agreeing(volume, [(values, affine)]) == [0]
    assert agreeing(volume, [(values[::-1], affine), (values, shifted), (wrong, affine)]) == []
