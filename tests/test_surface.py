from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom import Dataset

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.header import encode
from gpnet_node.results.measure import measure
from gpnet_node.results.surface import write_surfaces
from tests.awkward import awkward, without
from tests.pallida import JOB, OBLIQUE, Head, draw_head
from tests.test_results_peers import on_disk, run


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def written(head: Head, card: ModelCard) -> tuple[Dataset, ...]:
    return write_surfaces(head.volume, head.labels, card, JOB)


def triangles_mm(dataset: Dataset) -> NDArray[np.float64]:
    """Corners of each triangle of the binary STL, (n, 3, 3)."""
    stl = dataset.EncapsulatedDocument
    count = int.from_bytes(stl[80:84], "little")
    assert len(stl) == dataset.EncapsulatedDocumentLength == 84 + 50 * count
    floats = [np.frombuffer(stl, "<f4", 9, 84 + 50 * number + 12) for number in range(count)]
    return np.array(floats, dtype=float).reshape(-1, 3, 3)


@pytest.mark.parametrize("kind", ["axial", "oblique", "enhanced", "odd matrix", "awkward"])
def test_each_surface_has_the_volume_and_centre_of_its_voxels(
    tmp_path: Path, card: ModelCard, kind: str
) -> None:
    shape = (11, 33, 61) if kind == "odd matrix" else (20, 48, 60)
    orientation = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) if kind == "axial" else OBLIQUE
    head = draw_head(
        tmp_path,
        shape=shape,
        spacing_mm=(1.5, 1.2, 0.9),
        orientation=orientation,
        enhanced=kind == "enhanced",
    )
    head = awkward(head) if kind == "awkward" else head

    surfaces = written(head, card)

    for measured, surface in zip(measure(head.volume, head.labels, card), surfaces, strict=True):
        triangles = triangles_mm(surface)
        origin = triangles[0, 0]
        tetrahedra = np.linalg.det(triangles - origin) / 6
        volume_mm3 = tetrahedra.sum()
        centre = (
            origin + (tetrahedra[:, None] * (triangles - origin).sum(axis=1)).sum(axis=0) / 4 / volume_mm3
        )
        assert volume_mm3 == pytest.approx(measured.volume_mm3, rel=1e-3)
        assert centre == pytest.approx(measured.centroid_mm, abs=0.005)


@pytest.mark.parametrize("kind", ["drawn", "awkward"])
def test_trimesh_reads_a_closed_surface_with_the_volume_and_centre_of_the_voxels(
    tmp_path: Path, card: ModelCard, kind: str
) -> None:
    head = draw_head(tmp_path, orientation=OBLIQUE)
    head = awkward(head) if kind == "awkward" else head

    surfaces = written(head, card)

    for measured, surface in zip(measure(head.volume, head.labels, card), surfaces, strict=True):
        mesh = trimesh.load_mesh(BytesIO(surface.EncapsulatedDocument), file_type="stl")
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        assert mesh.volume == pytest.approx(measured.volume_mm3, rel=1e-3)
        assert mesh.center_mass == pytest.approx(measured.centroid_mm, abs=0.005)


def test_a_surface_says_what_it_is_and_what_it_was_made_of(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path)

    surfaces = written(head, card)

    assert len({surface.SeriesInstanceUID for surface in surfaces}) == 1
    assert len({surface.ModelGroupUID for surface in surfaces}) == 1
    assert [surface.InstanceNumber for surface in surfaces] == [1, 2, 3, 4]
    for structure, surface in zip(card.structures, surfaces, strict=True):
        assert surface.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.3"
        assert (surface.Modality, surface.MIMETypeOfEncapsulatedDocument) == ("M3D", "model/stl")
        assert surface.SeriesNumber == 504
        assert surface.FrameOfReferenceUID == head.volume.geometry.frame_of_reference_uid
        assert surface.MeasurementUnitsCodeSequence[0].CodeValue == "mm"
        assert surface.DocumentTitle.startswith(f"{structure.name}. RESEARCH")
        assert surface.ContentQualification == "RESEARCH"
        assert surface.ConceptNameCodeSequence[0].CodeMeaning == "MR 3D CAM model"
        colour = CIELabColor.from_rgb(*structure.colour)
        assert tuple(surface.RecommendedDisplayCIELabValue) == tuple(colour.value)
        images = [item.ReferencedSOPInstanceUID for item in surface.SourceInstanceSequence]
        assert images == [frame.sop_instance_uid for frame in head.volume.frames]


def test_the_stl_says_research_and_names_no_patient(tmp_path: Path, card: ModelCard) -> None:
    for surface in written(draw_head(tmp_path), card):
        header = surface.EncapsulatedDocument[:80]
        assert b"RESEARCH" in header
        assert b"Example" not in header
        assert not header.startswith(b"solid")


def test_an_empty_structure_has_no_surface(tmp_path: Path, card: ModelCard) -> None:
    surfaces = written(without(draw_head(tmp_path), 2), card)

    assert [surface.InstanceNumber for surface in surfaces] == [1, 3, 4]


def test_a_ct_source_makes_a_ct_model(tmp_path: Path, card: ModelCard) -> None:
    (surface, *_) = written(draw_head(tmp_path, Modality="CT"), card)

    assert surface.ConceptNameCodeSequence[0].CodeMeaning == "CT 3D CAM model"


def test_the_same_job_gives_the_same_bytes_and_other_labels_another_uid(
    tmp_path: Path, card: ModelCard
) -> None:
    head = draw_head(tmp_path)

    first, again, other = (written(one, card) for one in (head, head, without(head, 2)))

    assert list(map(encode, first)) == list(map(encode, again))
    assert not {one.SOPInstanceUID for one in first} & {one.SOPInstanceUID for one in other}


def test_a_label_map_on_another_grid_is_not_written(tmp_path: Path, card: ModelCard) -> None:
    head, other = draw_head(tmp_path / "a"), draw_head(tmp_path / "b", spacing_mm=(1.5, 1.0, 1.01))
    moved = LabelMap(labels=head.labels.labels, geometry=other.volume.geometry)

    with pytest.raises(SelfCheckError, match="not on the grid"):
        write_surfaces(head.volume, moved, card, JOB)


# What the standard has added since Debian's dciodvfy was made.
NEWER = ("Recommended Display CIELab Value", "Model Group UID", "Standard Extended SOP Class")


@pytest.mark.parametrize("peer", ["dciodvfy of Debian", "dciodvfy of PyPI"])
@pytest.mark.parametrize("kind", ["axial", "enhanced", "greek"])
def test_dciodvfy_finds_no_error(tmp_path: Path, card: ModelCard, peer: str, kind: str) -> None:
    name = "Σπυρου^Διονυσιος" if kind == "greek" else "Example^Person"
    head = draw_head(tmp_path / "source", enhanced=kind == "enhanced", PatientName=name)

    for surface in written(head, card):
        said = run(peer, on_disk(encode(surface), tmp_path, "stl.dcm"))

        lines = [line for line in (said.stdout + said.stderr).splitlines() if line]
        assert lines[0] == "EncapsulatedSTL"
        assert [line for line in lines[1:] if not any(word in line for word in NEWER)] == []
        assert not [line for line in lines if "Error" in line]
        assert said.returncode == 0
