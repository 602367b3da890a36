"""How long a folder of 80 images of 512 x 512 takes to become a volume."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from gpnet_node.imaging.series import choose, find_files, read_headers, split
from gpnet_node.imaging.volume import Volume, assemble
from tests.benchmarks.conftest import Scale
from tests.benchmarks.figures import Figures, compared, take_turns
from tests.factories import mr_series
from tests.peers import program

pytestmark = pytest.mark.speed
SHAPE = (80, 512, 512)
OURS, ITK, DCM2NIIX = "gpnet_node", "SimpleITK ImageSeriesReader", "dcm2niix"


@pytest.fixture(scope="module")
def series(scratch: Path) -> Path:
    """A series of noise, so that nothing about it is easy to guess."""
    folder = scratch / "series"
    mr_series(folder, voxels=np.random.default_rng(2).integers(0, 4096, SHAPE, np.uint16))
    return folder


def ours(folder: Path) -> Volume:
    """As the pipeline does it: headers of all files, split, chosen, checked for gaps, loaded."""
    return assemble(choose(split(read_headers(find_files(folder)))))


def by_itk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def by_dcm2niix(folder: Path, out: Path) -> Path:
    """A program of its own, which also writes what it made, uncompressed."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    options = ["-z", "n", "-b", "n", "-f", "volume", "-o", str(out)]
    subprocess.run([program("/usr/bin/dcm2niix"), *options, str(folder)], check=True, capture_output=True)
    return out / "volume.nii"


def test_seconds_from_a_folder_to_a_volume(
    series: Path, scale: Scale, figures: Figures, scratch: Path
) -> None:
    nifti = scratch / "nifti"
    contenders = {
        OURS: lambda: timed(lambda: ours(series)),
        ITK: lambda: timed(lambda: by_itk(series)),
        DCM2NIIX: lambda: timed(lambda: by_dcm2niix(series, nifti)),
    }
    seconds = take_turns(contenders, repeats=scale.repeats)

    what = f"folder to volume, {' x '.join(map(str, reversed(SHAPE)))}"
    figures.add(compared(what, "s", seconds[OURS], ITK, seconds[ITK], better="less"))
    written = f"{DCM2NIIX}, writing included"
    figures.add(compared(what, "s", seconds[OURS], written, seconds[DCM2NIIX], better="less"))
    voxels = ours(series).voxels
    assert np.array_equal(voxels, sitk.GetArrayFromImage(by_itk(series)))
    judged = sitk.GetArrayFromImage(sitk.ReadImage(str(by_dcm2niix(series, nifti))))
    assert np.array_equal(voxels, judged[:, ::-1])  # NIfTI's rows run the other way


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
