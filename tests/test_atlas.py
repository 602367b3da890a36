from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.errors import InputError
from gpnet_node.model.drawing import atlas
from gpnet_node.model.drawing.registration import BOX_SPACING_MM, Parts
from gpnet_node.model.drawing.tissue import HEAD_TISSUE_OFFSET, Tissue
from gpnet_node.model.patient_grid import lps_grid
from tests import anatomies

LEFT_PALLIDUM, LEFT_PUTAMEN, SKULL = 13, 12, 514  # FreeSurfer's numbers; 514 stands for what is no brain


def label_map(spheres: dict[int, tuple[tuple[float, float, float], float]], size: int = 45) -> sitk.Image:
    """1 mm labels of white matter with spheres in it: centre (x, y, z) and radius, mm from the middle."""
    grid = lps_grid((0.0, 0.0, 0.0), 1.0, (size, size, size))
    run = np.arange(size) - (size - 1) / 2
    z, y, x = np.meshgrid(run, run, run, indexing="ij")
    labels = np.full((size,) * 3, 2, np.uint16)
    for number, (centre, radius_mm) in spheres.items():
        labels[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius_mm**2] = number
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(grid)
    return image


def box(size: int = 48) -> sitk.Image:
    return lps_grid((0.0, 0.0, 0.0), BOX_SPACING_MM, (size, size, size))


def radii_mm(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far the surface voxels of a mask lie from the box's middle."""
    surface = mask & ~sitk.GetArrayFromImage(
        sitk.BinaryErode(sitk.GetImageFromArray(mask.astype(np.uint8)), [1] * 3, sitk.sitkCross)
    ).astype(bool)
    away: NDArray[np.float64] = (
        np.linalg.norm(np.argwhere(surface) - (np.array(mask.shape) - 1) / 2, axis=1) * BOX_SPACING_MM
    )
    return away


# --- labels on the finer grid


@pytest.mark.parametrize("radius_mm", [7.0, 8.5])  # 1440 and 2570 mm3
def test_finer_labels_keep_the_volume(radius_mm: float) -> None:
    labels = label_map({LEFT_PALLIDUM: ((-2.0, 0.0, 1.0), radius_mm), LEFT_PUTAMEN: ((9.0, 0.0, 0.0), 4.0)})
    own_mm3 = float((sitk.GetArrayFromImage(labels) == LEFT_PALLIDUM).sum())

    tissue = atlas._smooth_tissue(labels, box())

    assert (tissue == Tissue.GPE).sum() * BOX_SPACING_MM**3 == pytest.approx(own_mm3, rel=0.05)
    assert set(np.unique(tissue)) == {Tissue.WHITE_MATTER, Tissue.PUTAMEN, Tissue.GPE}


def test_finer_labels_have_no_steps_of_1_mm() -> None:
    labels = label_map({LEFT_PALLIDUM: ((0.0, 0.0, 0.0), 8.0)})
    stepped = sitk.GetArrayFromImage(sitk.Resample(labels, box(), sitk.Transform(), sitk.sitkNearestNeighbor))

    smooth, rough = (
        radii_mm(mask)
        for mask in (atlas._smooth_tissue(labels, box()) == Tissue.GPE, stepped == LEFT_PALLIDUM)
    )

    assert float(smooth.std()) < 0.8 * float(rough.std())  # the rest is the finer voxels' own steps


@pytest.mark.parametrize(
    ("size", "within_mm"), [(45, 0.1), (44, 0.55)], ids=["same voxels", "half a voxel off"]
)
def test_finer_labels_stay_where_they_were_up_to_half_a_voxel(size: int, within_mm: float) -> None:
    labels = label_map({LEFT_PALLIDUM: ((3.0, -5.0, 1.0), 6.0)}, size)

    mask = atlas._smooth_tissue(labels, box()) == Tissue.GPE

    z, y, x = (np.argwhere(mask).mean(0) - 23.5) * BOX_SPACING_MM
    assert (x, y, z) == pytest.approx((3.0, -5.0, 1.0), abs=within_mm)


# --- borders


def halves(shift: tuple[int, int, int] = (0, 0, 0), medial: int = 9) -> tuple[Parts, NDArray[np.bool_]]:
    """A carried pallidum, its first ``medial`` columns of 24 GPi, and a person's own, shifted from it."""
    own = np.zeros((32, 40, 40), bool)
    own[8:24, 8:32, 8:32] = True
    gpe, gpi = (np.zeros(own.shape, np.float32) for _ in range(2))
    gpi[8:24, 8:32, 8 : 8 + medial], gpe[8:24, 8:32, 8 + medial : 32] = 1, 1
    moved = {kind: np.roll(part, shift, (0, 1, 2)) for kind, part in ((Tissue.GPE, gpe), (Tissue.GPI, gpi))}
    return moved, own


def test_a_border_is_zero_at_the_interface_and_positive_in_the_gpi() -> None:
    parts, own = halves()

    border = atlas._border(parts, own, "made")

    row = border[16, 20].astype(float)
    assert border.dtype == np.float16
    assert (row[8:17] > 0).all()
    assert (row[17:32] < 0).all()
    assert np.diff(row[13:21]) == pytest.approx([-BOX_SPACING_MM] * 7, abs=0.01)  # mm for mm


def test_a_lamina_that_an_atlas_leaves_free_goes_to_the_nearer_segment() -> None:
    parts, own = halves()
    for part in parts.values():
        part[:, :, 16:19] = 0  # two columns of GPe, one of GPi

    border = atlas._border(parts, own, "made")

    row = border[16, 20].astype(float)
    assert (row[15:17] > 0.1).all()
    assert row[17] == pytest.approx(0, abs=0.01)
    assert (row[18:20] < -0.1).all()


@pytest.mark.parametrize(
    ("shift", "medial"),
    [((0, 12, 0), 9), ((10, 0, 0), 9), ((0, 0, 0), 2), ((0, 0, 0), 16)],
    ids=["beside", "above", "hardly any GPi", "hardly any GPe"],
)
def test_a_registration_that_missed_divides_nothing(shift: tuple[int, int, int], medial: int) -> None:
    parts, own = halves(shift, medial)

    with pytest.raises(InputError, match=r"allen on 07 left: registration missed \(Dice 0\.\d\d, GPi share"):
        atlas._border(parts, own, "allen on 07 left")


# --- the rest of a box


def test_only_the_largest_pallidum_of_a_box_is_the_side_s_own() -> None:
    tissue = np.full((20, 20, 30), Tissue.WHITE_MATTER, np.uint8)
    tissue[5:15, 5:15, 15:25] = Tissue.GPE
    tissue[8:12, 8:12, 0:2] = Tissue.GPE

    other = atlas._other_side(tissue)

    assert other.sum() == 32
    assert other[8:12, 8:12, 0:2].all()


def test_white_matter_between_lentiform_nucleus_and_thalamus_is_internal_capsule() -> None:
    tissue = np.full((10, 20, 60), Tissue.WHITE_MATTER, np.uint8)
    tissue[:, :, 30:45] = Tissue.PUTAMEN
    tissue[:, :, 10:20] = Tissue.THALAMUS  # 6 mm of white matter between

    capsule = atlas._internal_capsule(tissue)

    assert capsule[:, :, 20:30].all()
    assert not capsule[:, :, :10].any()
    assert not capsule[:, :, 50:].any()
    assert not capsule[tissue != Tissue.WHITE_MATTER].any()


def test_a_head_s_labels_become_tissues_and_its_other_labels_classes_beyond_them() -> None:
    labels = label_map(
        {LEFT_PALLIDUM: ((6.0, 1.0, 0.0), 4.0), 52: ((-6.0, 1.0, 0.0), 4.0), SKULL: ((0.0, -15.0, 0.0), 3.0)}
    )

    head = atlas._head(labels)

    tissue, centres = head["head_tissue"], head["head_centres"]
    assert set(np.unique(tissue)) == {Tissue.WHITE_MATTER, Tissue.GPE, HEAD_TISSUE_OFFSET + SKULL % 16}
    assert centres == pytest.approx(np.array([[22.0, 23.0, 28.0], [22.0, 23.0, 16.0]]), abs=0.1)


# --- the cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    made = anatomies.head()
    arrays: dict[str, NDArray[np.generic]] = {"head_tissue": made.tissue, "head_centres": made.centres}
    for side, anatomy in made.sides.items():
        arrays[f"{side}_tissue"] = anatomy.tissue
        for name in atlas.BORDERS:
            arrays[f"{side}_border_{name}"] = anatomy.border[name]
    np.savez(tmp_path / "01.npz", allow_pickle=False, **arrays)
    np.savez(
        tmp_path / "11.npz",
        allow_pickle=False,
        **arrays,
        left_border_cit168=made.sides["left"].border["cit168"],
        right_border_cit168=made.sides["right"].border["cit168"],
    )
    return tmp_path


def test_a_person_s_sides_are_read_as_they_were_kept(cache: Path) -> None:
    made = anatomies.head()

    left, right = atlas.load(cache, "01")

    assert (left.side, right.side, left.person) == ("left", "right", "01")
    assert np.array_equal(left.tissue, made.sides["left"].tissue)
    assert np.array_equal(right.border["allen"], made.sides["right"].border["allen"])


def test_only_who_is_judged_has_the_border_of_the_judge(cache: Path) -> None:
    trained, judged = (atlas.load(cache, person)[0] for person in ("01", "11"))

    assert set(trained.border) == set(atlas.BORDERS)
    assert set(judged.border) == {*atlas.BORDERS, atlas.JUDGE}
    assert atlas.JUDGE not in atlas.BORDERS  # what judges is never trained on


def test_a_head_is_read_with_the_places_of_its_pallida(cache: Path) -> None:
    tissue, centres = atlas.load_head(cache, "01")

    for centre in centres.round().astype(int):
        assert tissue[tuple(centre)] == Tissue.GPE


def test_people_who_are_there_are_not_built_again(cache: Path, tmp_path: Path) -> None:
    told: list[str] = []

    atlas.build(tmp_path / "no atlases", ["01", "11"], cache, told.append)

    assert told == ["01", "11"]
