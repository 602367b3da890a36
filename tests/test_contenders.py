"""Atlases as contenders: their labels, the lamina convention, and that registration carries them home."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.model.drawing.synthesise import GPE, GPI
from gpnet_node.model.evaluation.contenders import (
    FUSION,
    Brain,
    Carried,
    ContenderSettings,
    contenders,
    load,
    save,
)
from gpnet_node.model.evaluation.mni_atlases import ATLASES, atlas_shares
from gpnet_node.model.evaluation.syn import SynSettings, carry, register
from gpnet_node.model.patient_grid import lps_grid, on_grid
from gpnet_node.model.segment import classes_on

QUICK = SynSettings(spacing_mm=2.0, metric="mattes", sampling=32, iterations=(20, 10))
QUICK_CORRELATION = SynSettings(spacing_mm=2.0, metric="CC", sampling=2, iterations=(20, 10))
MOVED_MM = np.array([4.0, -2.0, 2.0])  # whole voxels: between them the same ball is drawn elsewhere


@pytest.mark.parametrize("name", ATLASES)
def test_an_atlas_has_gpi_medial_to_gpe_on_both_sides_in_conventional_volumes(
    name: str, shared_data: Path
) -> None:
    shares = atlas_shares(shared_data / "atlases", ATLASES[name])

    for side, sign in (("left", 1), ("right", -1)):
        gpe, gpi = (_mask(shares[side], channel) for channel in (0, 1))
        assert 700 < gpe.sum() * _voxel_mm3(shares[side]) < 1600
        assert 400 < gpi.sum() * _voxel_mm3(shares[side]) < 800
        x_gpe, x_gpi = (_centre_mm(mask, shares[side])[0] * sign for mask in (gpe, gpi))
        assert 10 < x_gpi < x_gpe < 30


def test_all_atlases_lie_in_one_space(shared_data: Path) -> None:
    centres = []
    for numbers in ATLASES.values():
        shares = atlas_shares(shared_data / "atlases", numbers)["left"]
        centres.append(_centre_mm(_mask(shares, 0) | _mask(shares, 1), shares))

    assert np.ptp(centres, axis=0).max() < 2.0  # mm


def test_the_medial_lamina_that_an_atlas_leaves_free_goes_to_the_nearer_segment(shared_data: Path) -> None:
    shares = atlas_shares(shared_data / "atlases", ATLASES["Allen atlas"])["left"]
    gpe, gpi = (_mask(shares, channel) for channel in (0, 1))

    beside_gpe = sitk.GetArrayFromImage(
        sitk.BinaryDilate(sitk.GetImageFromArray(gpe.astype(np.uint8)), [1] * 3, sitk.sitkBox)
    )

    assert (gpi & (beside_gpe > 0)).sum() > 300  # voxels of GPi that touch GPe; none do in the file


@pytest.mark.parametrize("settings", [QUICK, QUICK_CORRELATION], ids=["mattes", "CC"])
def test_registration_carries_labels_home(settings: SynSettings) -> None:
    fixed, moving = _head(np.zeros(3)), _head(MOVED_MM)

    transforms = register(fixed.image, moving.image, settings, np.zeros(3))
    share = sitk.VectorIndexSelectionCast(moving.shares["left"], 0)
    found = carry(share, fixed.image, transforms) > 0.5
    for path in transforms:
        path.unlink()

    away = _centre_mm(found, fixed.image) - fixed.centres_mm["left"]
    assert np.linalg.norm(away) < 0.5  # of 4.9 mm


@pytest.fixture(scope="module")
def carried(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Carried]:
    """Of two people and the atlases, by registrations that are already there and do nothing."""
    folder = tmp_path_factory.mktemp("registrations")
    people = {"one": _head(MOVED_MM), "two": _head(np.zeros(3))}
    for name in ("template", *people):
        (folder / name).mkdir()
        sitk.WriteTransform(sitk.AffineTransform(3), str(folder / name / "0.mat"))
    settings = ContenderSettings(syn=QUICK)
    return contenders(people["two"], people, shared_data / "atlases", settings, folder)


def test_every_contender_labels_gpe_and_gpi_on_both_sides(carried: dict[str, Carried]) -> None:
    assert set(carried) == {*ATLASES, FUSION}
    for sides in carried.values():
        for part in sides.values():
            grid = on_grid(part.probability, part.spacing_mm, part.origin_mm)
            assert set(np.unique(classes_on(part, grid))) == {0, GPE, GPI}


def test_what_was_carried_is_kept_in_steps_of_a_255th(carried: dict[str, Carried], tmp_path: Path) -> None:
    save(tmp_path / "kept.npz", carried)
    kept = load(tmp_path / "kept.npz")

    for method, sides in carried.items():
        for side, part in sides.items():
            assert kept[method][side].origin_mm == part.origin_mm
            assert np.abs(kept[method][side].probability - part.probability).max() < 0.51 * 2 / 255


def _head(moved_mm: NDArray[np.float64]) -> Brain:
    """A brain of 120 mm with two dark balls, the medial part of each its GPi."""
    grid = lps_grid((0.0, 0.0, 0.0), 2.0, (64, 64, 64))
    z, y, x = np.meshgrid(*((np.arange(64) - 31.5) * 2.0 for _ in range(3)), indexing="ij")
    x, y, z = (axis - away for axis, away in zip((x, y, z), moved_mm, strict=True))
    image = (np.sqrt(x**2 + y**2 + z**2) < 58) * (100 + 15 * np.sin(x / 9) * np.cos(y / 11) * np.sin(z / 7))
    shares, centres = {}, {}
    for side, sign in (("left", 1), ("right", -1)):
        away = np.sqrt((x - 18 * sign) ** 2 + y**2 + z**2)
        image[away < 8] = 40
        gpi = x * sign < 18
        masks = np.stack([(away < 8) & ~gpi, (away < 8) & gpi], -1).astype(np.float32)
        shares[side] = sitk.GetImageFromArray(masks, isVector=True)
        shares[side].CopyInformation(grid)
        centres[side] = _centre_mm(masks[..., 0] > 0, grid)
    drawn = sitk.GetImageFromArray(image.astype(np.float32))
    drawn.CopyInformation(grid)
    return Brain(image=drawn, shares=shares, centres_mm=centres)


def _mask(shares: sitk.Image, channel: int) -> NDArray[np.bool_]:
    values = sitk.GetArrayFromImage(shares)[..., channel]
    return np.asarray(values > 0.5)


def _voxel_mm3(image: sitk.Image) -> float:
    return float(np.prod(image.GetSpacing()))


def _centre_mm(mask: NDArray[np.bool_], image: sitk.Image) -> NDArray[np.float64]:
    index = [float(v) for v in np.argwhere(mask).mean(0)[::-1]]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index))
