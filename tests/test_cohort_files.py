"""A cohort on disk is one that ``train --cohort`` reads."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from gpnet_node.model.card import read_card
from gpnet_node.model.drawing.scene import Contrast
from gpnet_node.model.evaluation.cohort import draw, set_a
from gpnet_node.model.evaluation.cohort_files import write_cohort
from gpnet_node.model.training.bids import read_cohort
from tests.drawn import MODEL
from tests.made_people import keep_people

CASE = replace(
    set_a()[0],
    person="11",
    scene=replace(set_a()[0].scene, contrast=Contrast.T2),
    spacing_mm=(1.0, 1.0, 1.0),
    slices=40,
    field_mm=100.0,
    turned_degrees=(4.0, 0.0, 0.0),
    centre_mm=(0.0, 0.0, 0.0),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anatomies of a made person, and a cohort of one coarse, clean T2 image of that person."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "anatomies").mkdir()
    keep_people(folder / "anatomies", (CASE.person,))
    written = write_cohort((CASE,), folder / "anatomies", folder / "cohort", read_card(MODEL), "0")
    assert list(written) == [CASE]
    return folder


def test_images_labels_and_conditions_lie_where_bids_wants_them(folder: Path) -> None:
    anat = folder / "cohort" / f"sub-{CASE.person}" / "anat"
    stem = f"sub-{CASE.person}_acq-{CASE.name}"

    image, labels = (sitk.ReadImage(str(anat / f"{stem}_{suffix}.nii.gz")) for suffix in ("T2w", "dseg"))
    with (folder / "cohort" / "dseg.tsv").open(encoding="utf-8") as file:
        names = {int(row["index"]): row["name"] for row in csv.DictReader(file, delimiter="\t")}
    conditions = json.loads((anat / f"{stem}_dseg.json").read_text(encoding="utf-8"))

    assert image.GetSize() == labels.GetSize() == tuple(reversed(CASE.geometry.spatial_shape))
    assert names == {s.number: s.name for s in read_card(MODEL).structures}
    assert conditions["scene"]["visibility"] == CASE.scene.visibility
    assert (
        json.loads((folder / "cohort" / "dataset_description.json").read_text())["DatasetType"]
        == "derivative"
    )


def test_labels_lie_on_the_side_that_they_name(folder: Path) -> None:
    labels = sitk.ReadImage(str(next((folder / "cohort").rglob("*_dseg.nii.gz"))))
    values = sitk.GetArrayFromImage(labels)

    for structure in read_card(MODEL).structures:
        index = np.argwhere(values == structure.number).mean(0)[::-1]
        x_mm = labels.TransformContinuousIndexToPhysicalPoint([float(v) for v in index])[0]
        assert (x_mm > 0) == (structure.side == "left")  # LPS


def test_what_was_written_can_be_trained_on(folder: Path) -> None:
    card = read_card(MODEL)

    boxes = read_cohort(folder / "cohort", spacing_mm=0.6, shape=(56, 72, 56), second_channel=False)

    truth = draw(CASE, folder / "anatomies", card).truth
    assert len(boxes) == 2
    for box, side in zip(boxes, truth.values(), strict=True):
        found_mm3 = float((box.target[0] > 0).sum()) * 0.6**3
        assert abs(found_mm3 / (float((side.labels > 0).sum()) * 0.390625**3) - 1) < 0.1
