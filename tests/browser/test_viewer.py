"""OHIF shows each structure in its colour where it lies: in Chromium, by the picture alone.

What a wrong segmentation could get past the check with, and why it cannot:

- The point is projected by the source's headers and the canvas's size (``tests.browser.screen``), not by the
  viewer, and the slice is chosen by its UID. OHIF's own projection is only compared with it.
- The point is the centre of an ellipsoid known in millimetres, not a voxel of the label map.
- The colour is the difference of two pictures, with and without the segmentation, at that point; six points
  around each structure must show no difference at all.
- The anatomy is dark at the same points in the picture without: so image and projection agree too.
- Left and right differ in the head: the mirror image of a structure is not where its fellow is.
"""

import contextlib
import http.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext
from pydicom import dcmread

from gpnet_node.model.card import ModelCard
from tests.browser.archives import node_archive, orthanc_archive
from tests.browser.heads import STRUCTURES
from tests.browser.ohif import Ohif, app_config, open_study
from tests.browser.place_and_colour import Picture, faults, probes
from tests.browser.site import site
from tests.browser.studies import PLANES, Study, write_study
from tests.peers import free_port


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewer:
    """Chromium before an archive that holds the studies."""

    chromium: BrowserContext
    origin: str
    studies: dict[str, Study]

    def show(self, plane: str) -> Ohif:
        """Open a study."""
        return open_study(self.chromium, self.origin, self.studies[plane].uid)

    def open(self, plane: str, segmentation: str) -> Ohif:
        """Open a study and load one of its segmentations."""
        ohif = self.show(plane)
        ohif.load_segmentation(self.studies[plane].series_uids[segmentation])
        return ohif


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, card: ModelCard) -> dict[str, Study]:
    folder = tmp_path_factory.mktemp("studies")
    return {plane: write_study(folder / plane, card, plane) for plane in PLANES}


@contextlib.contextmanager
def behind_one_address(folder: Path, dist: Path, studies: Sequence[Study]) -> Iterator[str]:
    """Orthanc, which knows nothing of other origins: a proxy puts it at OHIF's own address."""
    with (
        orthanc_archive(folder, studies) as archive,
        site(dist, app_config("/dicom-web"), archive=archive) as origin,
    ):
        yield origin


@contextlib.contextmanager
def pointed_straight_at_the_node(folder: Path, dist: Path, studies: Sequence[Study]) -> Iterator[str]:
    """The node, asked by OHIF's page from another origin without anything between."""
    port = free_port()
    with (
        node_archive(folder, studies, viewer=f"http://127.0.0.1:{port}") as archive,
        site(dist, app_config(f"{archive}/dicom-web"), port=port) as origin,
    ):
        yield origin


ARCHIVES = {"Orthanc": behind_one_address, "node": pointed_straight_at_the_node}


@pytest.fixture(scope="module", params=ARCHIVES)
def viewer(
    request: pytest.FixtureRequest,
    chromium: BrowserContext,
    dist: Path,
    studies: dict[str, Study],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("archive")
    with ARCHIVES[request.param](folder, dist, list(studies.values())) as origin:
        yield Viewer(chromium=chromium, origin=origin, studies=studies)


def faults_seen(ohif: Ohif, study: Study, card: ModelCard, album: dict[str, Picture]) -> list[str]:
    """Photograph each slice on which a point is looked for, with and without segmentation, and compare."""
    wanted = probes(card, study.screen)
    slices = sorted({study.screen.place(probe.point_mm).sop_instance_uid for probe in wanted})
    with_seg = {uid: ohif.picture(uid) for uid in slices}
    ohif.hide_segmentation()
    without_seg = {uid: ohif.picture(uid) for uid in slices}
    for number, uid in enumerate(slices):
        album[f"{number}-with"], album[f"{number}-without"] = with_seg[uid], without_seg[uid]
    return faults(wanted, study.screen, with_seg, without_seg)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("form", ["BINARY", "LABELMAP"])
def test_each_structure_shows_its_colour_where_it_lies_and_none_beside_it(
    viewer: Viewer, card: ModelCard, album: dict[str, Picture], plane: str, form: str
) -> None:
    screen = viewer.studies[plane].screen
    ohif = viewer.open(plane, form)

    seen = faults_seen(ohif, viewer.studies[plane], card, album)

    assert seen == []
    lines = ohif.legend()
    assert [line.name for line in lines] == [structure.name for structure in card.structures]
    for line, structure in zip(lines, card.structures, strict=True):
        assert line.colour == pytest.approx(structure.colour, abs=2)
    assert ohif.left_edge()[0] == screen.edge_letter()
    for ellipsoid in STRUCTURES:
        pixel = screen.pixel(screen.place(ellipsoid.centre_mm), *ohif.canvas_size())
        assert ohif.believes(ellipsoid.centre_mm) == pytest.approx(pixel, abs=1)


@pytest.mark.parametrize("viewer", ["Orthanc"], indirect=True)
@pytest.mark.parametrize("wrong", ["ten slices too high", "mirrored"])
def test_the_check_finds_every_structure_of_a_segmentation_in_the_wrong_place(
    viewer: Viewer, card: ModelCard, album: dict[str, Picture], wrong: str
) -> None:
    ohif = viewer.open("axial", wrong)

    seen = faults_seen(ohif, viewer.studies["axial"], card, album)

    names = {card.structures[structure.number - 1].name for structure in STRUCTURES}
    assert {fault.split(":")[0] for fault in seen} >= names


@pytest.mark.usefixtures("album")
@pytest.mark.parametrize("viewer", ["Orthanc"], indirect=True)
def test_padded_columns_are_another_grid_to_ohif_which_then_shows_no_segmentation(viewer: Viewer) -> None:
    plane = "oblique, 70 columns"
    ohif = viewer.show(plane)

    refusal = ohif.refusal_of(viewer.studies[plane].series_uids["padded BINARY"])

    assert "different geometry dimensions (Rows and Columns)" in refusal


@pytest.mark.parametrize("viewer", ["Orthanc"], indirect=True)
@pytest.mark.parametrize(("form", "status"), [("BINARY", 400), ("padded BINARY", 200), ("LABELMAP", 200)])
def test_orthanc_refuses_single_frames_whose_rows_do_not_fill_whole_bytes(
    viewer: Viewer, form: str, status: int
) -> None:
    """OHIF asks for the whole instance, so it shows BINARY all the same; what asks for frames does not."""
    study = viewer.studies["oblique, 70 columns"]
    instance = dcmread(study.segmentations[form], stop_before_pixels=True).SOPInstanceUID
    address = urlsplit(viewer.origin)
    path = f"/dicom-web/studies/{study.uid}/series/{study.series_uids[form]}/instances/{instance}/frames/1"

    with contextlib.closing(http.client.HTTPConnection(address.netloc, timeout=60)) as connection:
        connection.request(
            "GET", path, headers={"Accept": "multipart/related; type=application/octet-stream"}
        )
        answer = connection.getresponse()
        answer.read()

    assert answer.status == status
