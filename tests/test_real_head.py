"""A real head against a registered atlas: the one image here that was neither drawn nor trained on.

It is a 1.5 T T1 of a patient with another disease, so it says that the result is in the right place and of
the right size, and no more.
"""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.imaging.series import choose, find_files, read_headers, split
from gpnet_node.imaging.volume import Volume, assemble
from gpnet_node.model.patient_grid import as_image, lps_grid
from gpnet_node.model.segment import GPNetSegmenter
from gpnet_node.results.measure import Measurement, measure

pytestmark = pytest.mark.timeout(900)
CIT168 = {"GPe left": 5, "GPi left": 6, "GPe right": 105, "GPi right": 106}  # numbers of its lut.csv
NEAR_MM = 2.5


@pytest.fixture(scope="module")
def volume(shared_data: Path) -> Volume:
    return assemble(choose(split(read_headers(find_files(shared_data / "dicom" / "niivue_t1_mpr_tra")))))


@pytest.fixture(scope="module")
def measurements(volume: Volume, model_folder: Path) -> tuple[Measurement, ...]:
    segmenter = GPNetSegmenter(model_folder)
    return measure(volume, segmenter.segment(volume).labels, segmenter.card)


def test_every_volume_lies_in_the_conventional_range(measurements: tuple[Measurement, ...]) -> None:
    found = {m.structure.name: round(m.volume_mm3) for m in measurements}

    assert all(m.within_conventional_range for m in measurements), found


def test_every_centre_lies_where_a_registered_atlas_puts_it(
    measurements: tuple[Measurement, ...], volume: Volume, shared_data: Path
) -> None:
    expected = _centres_by_registration(as_image(volume), shared_data / "atlases" / "cit168")

    apart = {
        m.structure.name: round(
            float(np.linalg.norm(np.array(m.centroid_mm) - expected[m.structure.name])), 2
        )
        for m in measurements
    }
    assert max(apart.values()) <= NEAR_MM, apart


def _centres_by_registration(image: sitk.Image, atlas: Path) -> dict[str, NDArray[np.float64]]:
    """Centres of CIT168's structures, LPS mm, after one SyN of its T1 template on the head."""
    import ants  # noqa: PLC0415  # heavy, and for this test alone

    head = _brain(_one_mm(image))
    fixed = ants.from_numpy(
        sitk.GetArrayFromImage(head).astype(np.float32).transpose(2, 1, 0), origin=head.GetOrigin()
    )
    moving = ants.image_read(str(atlas / "CIT168toMNI152-2009c_T1w_brain.nii.gz"))
    labels = ants.image_read(str(atlas / "CIT168_MNI152NLin2009cAsym.nii.gz"))
    found = ants.registration(fixed, moving, "SyN", random_seed=1)
    carried = ants.apply_transforms(
        fixed, labels, found["fwdtransforms"], interpolator="nearestNeighbor"
    ).numpy()
    return {
        name: np.argwhere(carried == number).mean(0) + np.array(head.GetOrigin())
        for name, number in CIT168.items()
    }


def _one_mm(image: sitk.Image) -> sitk.Image:
    ends = np.array(
        [
            image.TransformIndexToPhysicalPoint(index)
            for index in ((0, 0, 0), [n - 1 for n in image.GetSize()])
        ]
    )
    size = np.abs(ends[1] - ends[0]).astype(int) + 1
    return sitk.Resample(image, lps_grid(ends.mean(0), 1.0, size[::-1]), sitk.Transform(), sitk.sitkLinear)


def _brain(head: sitk.Image) -> sitk.Image:
    """The template has no skull: keep what hangs together after an erosion of the middle grey values."""
    values = sitk.GetArrayFromImage(head)
    low, high = np.percentile(values[values > 60], [35, 97])
    middle = sitk.BinaryThreshold(head, float(low), float(high))
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.BinaryErode(middle, [4] * 3, sitk.sitkBall)))
    grown = sitk.BinaryDilate(sitk.Cast(parts == 1, sitk.sitkUInt8), [5] * 3, sitk.sitkBall)
    return sitk.Mask(head, sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(grown, [4] * 3)))
