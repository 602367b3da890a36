"""Writes a cohort to disk in the layout of BIDS derivatives, to be looked at or trained on."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import SimpleITK as sitk

from gpnet_node.imaging.volume import Volume
from gpnet_node.model.card import ModelCard
from gpnet_node.model.drawing.scene import Contrast
from gpnet_node.model.evaluation.cohort import Case, as_volume, draw
from gpnet_node.model.patient_grid import as_image

_SUFFIX = {Contrast.T2: "T2w", Contrast.T2STAR: "T2starw", Contrast.T1: "T1w", Contrast.RANDOM: "MRw"}


def write_cohort(
    cases: Sequence[Case], anatomies: Path, out: Path, card: ModelCard, version: str
) -> Iterator[Case]:
    """Write ``sub-PERSON/anat/sub-PERSON_acq-CASE_T2w.nii.gz`` with its ``_dseg.nii.gz`` and conditions.

    Yields each case when its files are whole. ``dseg.tsv`` names the labels: the numbers of the card.
    """
    out.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "Drawn images of the globus pallidus",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "gpnet_node", "Version": version}],
    }
    (out / "dataset_description.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    with (out / "dseg.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("index", "name"))
        writer.writerows((structure.number, structure.name) for structure in card.structures)
    for case in cases:
        _write(case, anatomies, out, card)
        yield case


def _write(case: Case, anatomies: Path, out: Path, card: ModelCard) -> None:
    drawn = draw(case, anatomies, card)
    folder = out / f"sub-{case.person}" / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"sub-{case.person}_acq-{case.name}"
    image = as_image(as_volume(drawn))
    labels = as_image(
        Volume(voxels=drawn.labels.astype("f4"), geometry=drawn.geometry, frames=as_volume(drawn).frames)
    )
    sitk.WriteImage(image, str(folder / f"{stem}_{_SUFFIX[case.scene.contrast]}.nii.gz"), useCompression=True)
    sitk.WriteImage(
        sitk.Cast(labels, sitk.sitkUInt8), str(folder / f"{stem}_dseg.nii.gz"), useCompression=True
    )
    conditions = asdict(case)
    (folder / f"{stem}_dseg.json").write_text(json.dumps(conditions, indent=1), encoding="utf-8")
