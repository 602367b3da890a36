from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.model.drawing import registration
from gpnet_node.model.drawing.registration import BIGBRAIN, BOX_SHAPE, CARRIED, CIT168, AtlasLabels, Parts
from gpnet_node.model.drawing.tissue import Tissue
from gpnet_node.model.patient_grid import lps_grid

MOVED_MM = (3.0, -2.0, 1.0)  # (z, y, x)


def centre_mm(part: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of an indicator at 1 mm, from the middle of its box, (z, y, x)."""
    index = np.indices(part.shape).reshape(3, -1)
    centre: NDArray[np.float64] = (index * part.ravel()).sum(1) / part.sum() - (np.array(part.shape) - 1) / 2
    return centre


def ball(middle: tuple[float, ...], radius: float, size: int = 36) -> NDArray[np.float32]:
    z, y, x = np.indices((size,) * 3) - (size - 1) / 2
    away = np.sqrt((z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2)
    indicator: NDArray[np.float32] = np.clip(radius - away + 0.5, 0, 1).astype(np.float32)
    return indicator


@pytest.fixture(scope="module")
def allen(shared_data: Path) -> Parts:
    return registration.read_guide(shared_data / "atlases", {}).parts


def test_allen_s_left_pallidum_has_its_volume_and_lies_in_the_middle(allen: Parts) -> None:
    assert float(allen[Tissue.GPE].sum()) == pytest.approx(919, rel=0.01)  # mm3
    assert float(allen[Tissue.GPI].sum()) == pytest.approx(557, rel=0.01)
    both = allen[Tissue.GPE] + allen[Tissue.GPI]
    assert np.abs(centre_mm(both)).max() < 0.6


def test_allen_s_neighbours_lie_where_a_left_side_has_them(allen: Parts) -> None:
    x = {kind: centre_mm(part)[2] for kind, part in allen.items()}

    assert x[Tissue.THALAMUS] < x[Tissue.GPI] < x[Tissue.GPE] < x[Tissue.PUTAMEN]  # LPS: x grows to the left
    z = {kind: centre_mm(part)[0] for kind, part in allen.items()}
    assert z[Tissue.SUBSTANTIA_NIGRA] < z[Tissue.STN] < z[Tissue.THALAMUS]


def test_everything_that_is_carried_is_in_the_guide(allen: Parts) -> None:
    for kind in (*CARRIED, Tissue.GPE, Tissue.GPI):
        assert float(allen[kind].sum()) > 10
        assert -0.01 <= float(allen[kind].min()) <= float(allen[kind].max()) <= 1.01


@pytest.mark.parametrize(
    ("atlas", "gpe_mm3", "gpi_mm3"), [(BIGBRAIN, 1340, 551), (CIT168, 1200, 621)], ids=["BigBrain", "CIT168"]
)
def test_the_other_atlases_left_pallida_have_their_volumes(
    shared_data: Path, atlas: AtlasLabels, gpe_mm3: float, gpi_mm3: float
) -> None:
    parts = registration._read_parts(shared_data / "atlases", atlas)

    assert float(parts[Tissue.GPE].sum()) == pytest.approx(gpe_mm3, rel=0.02)
    assert float(parts[Tissue.GPI].sum()) == pytest.approx(gpi_mm3, rel=0.02)
    assert (
        centre_mm(parts[Tissue.GPI])[2]
        < centre_mm(parts[Tissue.GPE])[2]
        < centre_mm(parts[Tissue.PUTAMEN])[2]
    )


def test_registration_carries_an_atlas_onto_the_person() -> None:
    here, there = (0.0, 0.0, 0.0), MOVED_MM
    aside = tuple(m + 8.0 for m in MOVED_MM)
    moving = 5 * ball(here, 7) + 2 * ball((8.0, 8.0, 8.0), 4)
    fixed = 5 * ball(there, 7) + 2 * ball(aside, 4)

    carried = registration._carry(
        {("made", Tissue.GPE): ball(here, 7)}, moving=moving, fixed=fixed, spacing_mm=1.0
    )

    part = carried["made", Tissue.GPE]
    assert part.shape == fixed.shape
    assert centre_mm(part) == pytest.approx(MOVED_MM, abs=0.3)
    assert float(part.sum()) == pytest.approx(float(ball(there, 7).sum()), rel=0.1)


def test_the_coarse_box_covers_the_fine_one_around_the_same_middle() -> None:
    fine = lps_grid((12.0, -7.0, 3.0), 0.6, BOX_SHAPE)

    coarse = registration.coarse(fine)

    middles = [
        grid.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in grid.GetSize()])
        for grid in (fine, coarse)
    ]
    assert middles[0] == pytest.approx(middles[1])
    assert coarse.GetSpacing() == (1.0, 1.0, 1.0)
    assert all(c >= f * 0.6 for c, f in zip(coarse.GetSize(), fine.GetSize(), strict=True))


def test_a_label_map_is_read_with_its_axes_along_the_patient_s(tmp_path: Path) -> None:
    labels = np.zeros((4, 6, 8), np.uint16)
    labels[1, 2, 1] = 13
    image = sitk.GetImageFromArray(labels)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # columns run to the right, rows to the front
    image.SetOrigin((10.0, 20.0, 30.0))
    sitk.WriteImage(image, str(tmp_path / "labels.nii.gz"))

    turned = registration.read(tmp_path / "labels.nii.gz")

    assert turned.GetDirection() == pytest.approx(np.eye(3).ravel())
    mask = sitk.GetArrayFromImage(turned) == 13
    assert mask.sum() == 1
    assert registration.centre_of(mask, turned) == pytest.approx((9.0, 18.0, 31.0))
    assert np.argwhere(mask)[0].tolist() == [1, 3, 6]
