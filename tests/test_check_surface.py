from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.surface import check_surfaces
from gpnet_node.results.check.truth import measure_again
from gpnet_node.results.header import encode
from gpnet_node.results.surface import write_surfaces
from tests.pallida import JOB, Head
from tests.test_check_rtstruct import KINDS
from tests.test_results_peers import boxes_in, first_volume, on_disk, run

FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    head: Head
    contents: tuple[bytes, ...]


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, card: ModelCard) -> Written:
    head = KINDS["oblique"](tmp_path_factory.mktemp("oblique"))
    surfaces = write_surfaces(head.volume, head.labels, card, JOB)
    return Written(head=head, contents=tuple(map(encode, surfaces)))


def said_of(contents: Sequence[bytes], head: Head, card: ModelCard) -> str:
    """What the check says of these surfaces; empty if it lets them pass."""
    findings = Findings()
    truth = measure_again(head.volume, head.labels, card)
    try:
        check_surfaces(contents, head.volume, head.labels, truth, card, findings)
        findings.raise_any()
    except SelfCheckError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_passes(tmp_path: Path, card: ModelCard, kind: str) -> None:
    head = KINDS[kind](tmp_path)

    contents = [encode(one) for one in write_surfaces(head.volume, head.labels, card, JOB)]

    assert said_of(contents, head, card) == ""


@pytest.mark.parametrize("name", ["dcm_qa_decubitus", "dcm_qa_xa60_7T_TerraX"])
def test_surfaces_on_real_series_pass_and_are_valid(
    shared_data: Path, tmp_path: Path, card: ModelCard, name: str
) -> None:
    head = boxes_in(first_volume(shared_data / "dicom" / name))

    contents = [encode(one) for one in write_surfaces(head.volume, head.labels, card, JOB)]

    assert said_of(contents, head, card) == ""
    for data in contents:
        said = run("dciodvfy of PyPI", on_disk(data, tmp_path, "surface.dcm"))
        assert "Error" not in said.stdout + said.stderr


# Mutants, and what must be said of each.


def remeshed(dataset: Dataset, change: Callable[[NDArray[np.void]], NDArray[np.void]]) -> None:
    facets = change(np.frombuffer(dataset.EncapsulatedDocument, FACET, offset=84).copy())
    stl = dataset.EncapsulatedDocument[:80] + len(facets).to_bytes(4, "little") + facets.tobytes()
    dataset.EncapsulatedDocument, dataset.EncapsulatedDocumentLength = stl, len(stl)


def moved(dataset: Dataset, move: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
    """Move the corners, and make the normals theirs again."""

    def change(facets: NDArray[np.void]) -> NDArray[np.void]:
        facets["corners"] = move(facets["corners"].astype(float))
        a, b, c = np.moveaxis(facets["corners"].astype(float), 1, 0)
        normals = np.cross(b - a, c - a)
        facets["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        return facets

    remeshed(dataset, change)


def scaled(dataset: Dataset) -> None:
    moved(dataset, lambda points: points.mean((0, 1)) + 1.05 * (points - points.mean((0, 1))))


def scaled_in_volume(dataset: Dataset) -> None:
    """By 5 % of its volume, 1.6 % of its length."""
    moved(dataset, lambda points: points.mean((0, 1)) + 1.0164 * (points - points.mean((0, 1))))


def shifted(dataset: Dataset) -> None:
    moved(dataset, lambda points: points + np.array([0.0, 0.15, 0.0]))


def mirrored(dataset: Dataset) -> None:
    moved(dataset, lambda points: points * [-1, 1, 1])


def turned_about_itself(dataset: Dataset) -> None:
    """A quarter turn about its own centre: same volume, same centre of mass, another shape."""

    def turn(points: NDArray[np.float64]) -> NDArray[np.float64]:
        tetrahedra = np.linalg.det(points - points[0, 0])
        sums = (tetrahedra[:, None] * (points - points[0, 0]).sum(axis=1)).sum(axis=0)
        centre = points[0, 0] + sums / 4 / tetrahedra.sum()
        return np.asarray((points - centre)[..., [1, 0, 2]] * [-1, 1, 1] + centre)

    moved(dataset, turn)


def opened(dataset: Dataset) -> None:
    remeshed(dataset, lambda facets: facets[1:])


def one_triangle_twice(dataset: Dataset) -> None:
    remeshed(dataset, lambda facets: facets[[0, *range(len(facets))]])


def one_triangle_turned(dataset: Dataset) -> None:
    def change(facets: NDArray[np.void]) -> NDArray[np.void]:
        facets["corners"][0] = facets["corners"][0, ::-1].copy()
        return facets

    remeshed(dataset, change)


def inside_out(dataset: Dataset) -> None:
    def change(facets: NDArray[np.void]) -> NDArray[np.void]:
        facets["corners"] = facets["corners"][:, ::-1].copy()
        facets["normal"] *= -1
        return facets

    remeshed(dataset, change)


def normals_inwards(dataset: Dataset) -> None:
    def change(facets: NDArray[np.void]) -> NDArray[np.void]:
        facets["normal"] *= -1
        return facets

    remeshed(dataset, change)


def flattened_triangle(dataset: Dataset) -> None:
    def change(facets: NDArray[np.void]) -> NDArray[np.void]:
        facets["corners"][0, 1] = facets["corners"][0, 0]
        return facets

    remeshed(dataset, change)


def not_a_number(dataset: Dataset) -> None:
    def change(facets: NDArray[np.void]) -> NDArray[np.void]:
        facets["corners"][0, 0, 0] = np.nan
        return facets

    remeshed(dataset, change)


def truncated(dataset: Dataset) -> None:
    dataset.EncapsulatedDocument = dataset.EncapsulatedDocument[:-50]


def as_text(dataset: Dataset) -> None:
    dataset.EncapsulatedDocument = b"solid" + dataset.EncapsulatedDocument[5:]


def in_metres(dataset: Dataset) -> None:
    dataset.MeasurementUnitsCodeSequence[0].CodeValue = "m"


def another_frame_of_reference(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.2.3"


def another_title(dataset: Dataset) -> None:
    dataset.DocumentTitle = "GPe right. RESEARCH"


def another_description(dataset: Dataset) -> None:
    dataset.ContentDescription = "lateral globus pallidus, right"


def another_number(dataset: Dataset) -> None:
    dataset.InstanceNumber = 3


def fewer_sources(dataset: Dataset) -> None:
    series = dataset.ReferencedSeriesSequence[0]
    series.ReferencedInstanceSequence = series.ReferencedInstanceSequence[1:]


def another_patient(dataset: Dataset) -> None:
    dataset.PatientID = "SECRET"


def not_research(dataset: Dataset) -> None:
    del dataset.ContentQualification


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (scaled, "surface of GPe left has a volume of 1168.6 mm3, the label map 1009.5 mm3"),
        (scaled_in_volume, "surface of GPe left has a volume of 1060.0 mm3, the label map 1009.5 mm3"),
        (shifted, "surface of GPe left has its centre of mass 0.15 mm off the label map's"),
        (mirrored, "surface of GPe left is turned inside out"),
        (turned_about_itself, "surface of GPe left strays from the label map's border"),
        (opened, "surface of GPe left is not closed: 3 edges have one triangle only"),
        (one_triangle_twice, "surface of GPe left is no manifold: 3 edges have more than two triangles"),
        (one_triangle_turned, "surface of GPe left is not closed"),
        (inside_out, "surface of GPe left is turned inside out"),
        (normals_inwards, "normals that are not its triangles'"),
        (flattened_triangle, "surface of GPe left has 1 triangles without an area"),
        (not_a_number, "holds numbers that are not finite"),
        (truncated, "no binary STL"),
        (as_text, "no binary STL"),
        (in_metres, "surface of GPe left is in m, not in mm"),
        (another_frame_of_reference, "surface of GPe left's frame of reference is 1.2.3, the source's is"),
        (another_title, "surface of GPe left has another title"),
        (another_description, "surface of GPe left is not described as lateral globus pallidus, left"),
        (another_number, "there are surfaces of structures [3, 2, 3, 4], not of [1, 2, 3, 4]"),
        (fewer_sources, "surface of GPe left lists 19 of 20 source instances"),
        (another_patient, "surface of GPe left's PatientID is not the source's"),
        (not_research, "surface of GPe left does not say that it is RESEARCH"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_surface_that_differs_is_stopped_and_the_difference_named(
    written: Written, card: ModelCard, mutant: Callable[[Dataset], None], sentence: str
) -> None:
    dataset = dcmread(BytesIO(written.contents[0]))
    mutant(dataset)

    said = said_of([encode(dataset), *written.contents[1:]], written.head, card)

    assert sentence in said
    assert "SECRET" not in said


def test_surfaces_of_the_other_side_are_stopped(written: Written, card: ModelCard) -> None:
    datasets = [dcmread(BytesIO(content)) for content in written.contents]
    for dataset, other in zip(datasets, written.contents[2:] + written.contents[:2], strict=True):
        found = dcmread(BytesIO(other))
        dataset.EncapsulatedDocument = found.EncapsulatedDocument
        dataset.EncapsulatedDocumentLength = found.EncapsulatedDocumentLength

    said = said_of(list(map(encode, datasets)), written.head, card)

    assert "surface of GPe left has its centre of mass 42" in said


def test_a_part_that_is_missing_is_found_though_it_weighs_little(written: Written, card: ModelCard) -> None:
    labels = written.head.labels.labels.copy()
    labels[1, 2, 3] = 1
    head = written.head.relabelled(labels)

    assert "surface of GPe left misses 1 voxels of the label map's border" in said_of(
        written.contents, head, card
    )


def test_one_surface_too_few_and_one_too_many_are_found(written: Written, card: ModelCard) -> None:
    empty = np.where(written.head.labels.labels == 2, 0, written.head.labels.labels).astype(np.uint8)

    too_few = said_of(written.contents[1:], written.head, card)
    too_many = said_of(written.contents, written.head.relabelled(empty), card)

    assert "there are surfaces of structures [2, 3, 4], not of [1, 2, 3, 4]" in too_few
    assert "there are surfaces of structures [1, 2, 3, 4], not of [1, 3, 4]" in too_many


def test_bytes_that_are_no_surface_are_stopped(written: Written, card: ModelCard) -> None:
    source = written.head.paths[0].read_bytes()

    assert "cannot be read back" in said_of([b"", *written.contents[1:]], written.head, card)
    assert "cannot be read back" in said_of([source, *written.contents[1:]], written.head, card)
