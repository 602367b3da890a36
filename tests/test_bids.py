from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from gpnet_node.errors import InputError
from gpnet_node.model.drawing.synthesise import GPE, GPI
from gpnet_node.model.training.bids import (
    Label,
    SideBox,
    digest,
    folds,
    meaning,
    read_cohort,
    register_rigidly,
)
from gpnet_node.model.training.loss import UNDIVIDED, UNKNOWN
from tests import cohorts
from tests.cohorts import write_subject

SHAPE = (24, 32, 24)


def boxes_of(folder: Path, *, second_channel: bool = False) -> list[SideBox]:
    return read_cohort(folder, spacing_mm=1.0, shape=SHAPE, second_channel=second_channel)


@pytest.mark.parametrize(
    ("name", "structure", "side"),
    [
        ("GPe", GPE, None),
        ("Left-GPi", GPI, "left"),
        ("rh_GPe", GPE, "right"),
        ("GPi_R", GPI, "right"),
        ("Globus pallidus externus left", GPE, "left"),
        ("left lateral globus pallidus", GPE, "left"),
        ("Right Globus Pallidus Internal Segment", GPI, "right"),
        ("medial globus pallidus", GPI, None),
        ("Left-Pallidum", UNDIVIDED, "left"),
        ("LeftGP", UNDIVIDED, "left"),
        ("GP", UNDIVIDED, None),
    ],
)
def test_the_fields_names_are_understood(name: str, structure: int, side: str | None) -> None:
    assert meaning(name) == Label(structure=structure, side=side)


@pytest.mark.parametrize("name", ["Left-Putamen", "lateral ventricle", "medial geniculate", "STN", "n/a"])
def test_other_structures_are_none_of_ours(name: str) -> None:
    assert meaning(name) is None


def test_each_side_is_one_box_with_its_classes_in_the_middle(tmp_path: Path) -> None:
    write_subject(tmp_path, "sub-01")

    left, right = boxes_of(tmp_path)

    for box in (left, right):
        assert box.image.shape == (1, *SHAPE)
        assert box.target.shape == (2, *SHAPE)
        assert np.abs(np.argwhere(box.target[0] > 0).mean(0) - (np.array(SHAPE) - 1) / 2).max() < 0.6
        assert box.image[0][box.target[0] > 0].mean() < 60 < box.image[0][box.target[0] == 0].mean()
        assert (box.target[1] == UNKNOWN).all()


def test_volumes_are_kept_on_another_grid(tmp_path: Path) -> None:
    write_subject(tmp_path, "sub-01")

    left = read_cohort(tmp_path, spacing_mm=0.6, shape=(36, 48, 36), second_channel=False)[0]

    for value, structure in ((1, GPE), (2, GPI)):
        own_mm3 = (cohorts.labels() == value).sum() * cohorts.SPACING_MM**3
        assert (left.target[0] == structure).sum() * 0.6**3 == pytest.approx(own_mm3, rel=0.06)


def test_the_right_side_is_mirrored_so_gpi_lies_towards_low_x_on_both(tmp_path: Path) -> None:
    write_subject(tmp_path, "sub-01")

    for box in boxes_of(tmp_path):
        gpi_x, gpe_x = (np.argwhere(box.target[0] == c)[:, 2].mean() for c in (GPI, GPE))
        assert gpi_x < gpe_x - 2


@pytest.mark.parametrize("flipped", [False, True])
def test_sides_that_are_not_named_are_told_apart_in_the_patient(tmp_path: Path, flipped: bool) -> None:
    merged = np.array([0, 1, 2, 1, 2], np.uint8)[cohorts.labels()]
    write_subject(tmp_path / "named", "sub-01", flipped=flipped)
    write_subject(tmp_path / "merged", "sub-01", values=merged, names={1: "GPe", 2: "GPi"}, flipped=flipped)

    named, told_apart = boxes_of(tmp_path / "named"), boxes_of(tmp_path / "merged")

    assert len(named) == len(told_apart) == 2
    for one, other in zip(named, told_apart, strict=True):
        assert np.array_equal(one.target, other.target)
        assert np.array_equal(one.image, other.image)
    assert told_apart[0].image.max() > 200 > told_apart[1].image.max()  # the marker behind the left one


def test_sides_that_touch_and_are_not_named_are_refused(tmp_path: Path) -> None:
    joined = (cohorts.labels() > 0).astype(np.uint8)
    joined[16, 18, 17:54] = 1
    write_subject(tmp_path, "sub-01", values=joined, names={1: "GP"})

    with pytest.raises(InputError, match=r"sub-01_desc-gp_dseg\.nii\.gz.*name the sides"):
        boxes_of(tmp_path)


def test_an_undivided_pallidum_is_kept_as_what_it_is(tmp_path: Path) -> None:
    whole = np.array([0, 1, 1, 2, 2], np.uint8)[cohorts.labels()]
    write_subject(tmp_path, "sub-01", values=whole, names={1: "Left-Pallidum", 2: "Right-Pallidum"})

    for box in boxes_of(tmp_path):
        assert set(np.unique(box.target[0])) == {0, UNDIVIDED}


def test_one_labelled_side_gives_one_box(tmp_path: Path) -> None:
    write_subject(tmp_path, "sub-01", values=cohorts.labels() * (cohorts.labels() < 3))

    assert len(boxes_of(tmp_path)) == 1


def test_labels_on_another_grid_are_refused_with_both_affines(tmp_path: Path) -> None:
    anat = write_subject(tmp_path, "sub-01")
    path = anat / "sub-01_desc-gp_dseg.nii.gz"
    labels = sitk.ReadImage(str(path))
    labels.SetOrigin([-35.5, -18, -15])
    sitk.WriteImage(labels, str(path))

    with pytest.raises(InputError) as refused:
        boxes_of(tmp_path)

    assert str(path) in str(refused.value)
    assert "-16.0" in str(refused.value)
    assert "-15.0" in str(refused.value)


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    anat = write_subject(tmp_path, "sub-01")
    path = anat / "sub-01_desc-gp_dseg.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path))[:, :, :-1], str(path))

    with pytest.raises(InputError, match=r"\(72, 36, 31\)"):
        boxes_of(tmp_path)


def test_a_table_above_serves_all_subjects(tmp_path: Path) -> None:
    for name in ("sub-01", "sub-02"):
        anat = write_subject(tmp_path, name)
        table = anat / f"{name}_desc-gp_dseg.tsv"
        table.replace(tmp_path / "dseg.tsv")

    assert [box.subject for box in boxes_of(tmp_path)] == ["sub-01", "sub-01", "sub-02", "sub-02"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sub-\*/anat"):
        boxes_of(tmp_path)
    anat = write_subject(tmp_path, "sub-01")
    table = anat / "sub-01_desc-gp_dseg.tsv"

    table.write_text("index\tname\n1\tputamen\n", encoding="utf-8")
    with pytest.raises(InputError, match="no name is a globus pallidus: putamen"):
        boxes_of(tmp_path)
    table.write_text("value,label\n1,GPe\n", encoding="utf-8")
    with pytest.raises(InputError, match="columns index and name"):
        boxes_of(tmp_path)
    table.unlink()
    with pytest.raises(InputError, match=r"no dseg\.tsv in the folders above"):
        boxes_of(tmp_path)
    (anat / "sub-01_desc-gp_dseg.nii.gz").unlink()
    with pytest.raises(InputError, match="found none"):
        boxes_of(tmp_path)


def test_a_file_that_is_no_nifti_is_named(tmp_path: Path) -> None:
    anat = write_subject(tmp_path, "sub-01")
    (anat / "sub-01_T2w.nii.gz").write_bytes(b"nothing of the kind")

    with pytest.raises(InputError, match=r"sub-01_T2w\.nii\.gz: cannot be read"):
        boxes_of(tmp_path)


def test_a_file_that_tells_two_places_is_refused(tmp_path: Path) -> None:
    path = write_subject(tmp_path, "sub-01") / "sub-01_T2w.nii.gz"
    image = nibabel.Nifti1Image.from_filename(path)
    moved = image.get_sform()
    moved[0, 3] += 4
    image.set_sform(moved, code=1)
    nibabel.save(image, tmp_path / "moved.nii.gz")
    (tmp_path / "moved.nii.gz").rename(path)

    with pytest.raises(InputError, match=r"sub-01_T2w\.nii\.gz: its qform and sform lie 4\.0 mm apart"):
        boxes_of(tmp_path)


def test_a_second_channel_that_is_missing_is_zero(tmp_path: Path) -> None:
    write_subject(tmp_path, "sub-01")

    for box in boxes_of(tmp_path, second_channel=True):
        assert box.image.shape == (2, *SHAPE)
        assert not box.image[1].any()


def test_a_second_channel_is_brought_to_the_place_of_the_first(tmp_path: Path) -> None:
    anat = write_subject(tmp_path, "sub-01")
    first = sitk.ReadImage(str(anat / "sub-01_T2w.nii.gz"))
    moved = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.0, 0.0, 0.05, (2.0, -1.5, 1.0))
    second = sitk.Resample(300 - first, first, moved, sitk.sitkLinear, 200.0)
    sitk.WriteImage(second, str(anat / "sub-01_T1w.nii.gz"))

    for box in boxes_of(tmp_path, second_channel=True):
        pallidum = box.target[0] > 0
        assert box.image[1][pallidum].mean() > box.image[1][~pallidum].mean() + 40
    found = register_rigidly(first, second)
    apart = [
        np.linalg.norm(np.subtract(moved.TransformPoint(found.TransformPoint(place)), place))
        for place in [(-18.0, 0.0, 0.0), (18.0, 0.0, 0.0), (18.0, 5.0, 5.0)]
    ]
    assert max(apart) < 0.5


def a_box(subject: str) -> SideBox:
    nothing = np.zeros((1, 2, 2, 2), np.float32)
    return SideBox(subject=subject, image=nothing, target=nothing.astype(np.int64))


@given(st.integers(2, 30), st.integers(2, 6), st.randoms())
def test_folds_divide_subjects_not_images(subjects: int, count: int, random) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    boxes = [a_box(f"sub-{n}") for n in range(subjects) for _ in range(2)]
    random.shuffle(boxes)

    held_out = [{box.subject for box in folds(boxes, count, fold)[1]} for fold in range(count)]

    assert sum(map(len, held_out)) == len(set().union(*held_out)) == subjects
    for fold, theirs in enumerate(held_out):
        trained, validated = folds(boxes, count, fold)
        assert not {box.subject for box in trained} & theirs
        assert len(trained) + len(validated) == 2 * subjects
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1


def test_sessions_stay_with_their_person(tmp_path: Path) -> None:
    for session in ("ses-pre", "ses-post"):
        write_subject(tmp_path, "sub-01", session=session)
    write_subject(tmp_path, "sub-02")

    trained, held_out = folds(boxes_of(tmp_path), 2, 0)

    assert {len(trained), len(held_out)} == {4, 2}


def test_the_digest_follows_what_is_in_the_files(tmp_path: Path) -> None:
    anat = write_subject(tmp_path, "sub-01")
    before = digest(tmp_path)

    assert digest(tmp_path) == before
    (anat / "sub-01_desc-gp_dseg.tsv").write_text("index\tname\n1\tGPe\n", encoding="utf-8")
    assert digest(tmp_path) != before
