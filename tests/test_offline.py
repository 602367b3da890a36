"""Segmenting a folder without a network."""

from pathlib import Path

import pytest
from pydicom import dcmread

from gpnet_node.errors import ConfigurationError, NotEligibleError
from gpnet_node.offline import segment
from tests.nodes import configuration_of
from tests.pallida import draw_head
from tests.segmenters import doubtful_segmenters, threshold_segmenters


def test_a_folder_becomes_segmentation_report_and_picture(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "in")
    (tmp_path / "in" / "README.txt").write_text("not an image")

    written = segment(
        tmp_path / "in",
        tmp_path / "out",
        configuration_of(tmp_path),
        gate=True,
        segmenters=threshold_segmenters,
    )

    seg, sr, picture = written.paths
    source = dcmread(head.paths[0])
    assert [path.name for path in written.paths] == ["seg.dcm", "sr.dcm", "segmentation.png"]
    assert {dcmread(seg).StudyInstanceUID, dcmread(sr).StudyInstanceUID} == {source.StudyInstanceUID}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [it.structure.name for it in written.measurements] == [
        "GPe left",
        "GPi left",
        "GPe right",
        "GPi right",
    ]


def test_a_doubtful_result_is_written_with_its_reason(tmp_path: Path) -> None:
    draw_head(tmp_path / "in")
    folders = (tmp_path / "in", tmp_path / "out")

    written = segment(*folders, configuration_of(tmp_path), gate=True, segmenters=doubtful_segmenters)

    assert all(path.is_file() for path in written.paths)
    assert written.reasons == ("the left pallidum is doubtful",)


def test_the_gate_is_asked_unless_it_is_left_out(tmp_path: Path) -> None:
    draw_head(tmp_path / "in", MagneticFieldStrength=3.0)
    configuration = configuration_of(tmp_path)
    folders = (tmp_path / "in", tmp_path / "out")

    with pytest.raises(NotEligibleError, match="3"):
        segment(*folders, configuration, gate=True, segmenters=threshold_segmenters)
    written = segment(*folders, configuration, gate=False, segmenters=threshold_segmenters)

    assert all(path.is_file() for path in written.paths)


def test_what_a_reader_must_know_is_noted_without_the_gate_too(tmp_path: Path) -> None:
    draw_head(tmp_path / "in", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    folders = (tmp_path / "in", tmp_path / "out")

    written = segment(*folders, configuration_of(tmp_path), gate=False, segmenters=threshold_segmenters)

    assert "not corrected for gradient distortion" in " ".join(written.notes)
    assert b"not corrected for gradient distortion" in (tmp_path / "out" / "sr.dcm").read_bytes()


def test_what_an_earlier_run_left_inside_the_folder_is_not_read(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "in")
    folders = (tmp_path / "in", tmp_path / "in" / "deep" / "out")
    configuration = configuration_of(tmp_path)
    segment(*folders, configuration, gate=True, segmenters=threshold_segmenters)

    again = segment(*folders, configuration, gate=True, segmenters=threshold_segmenters)

    references = dcmread(again.paths[0]).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(references) == len(head.paths)


def test_the_results_may_lie_around_the_folder(tmp_path: Path) -> None:
    draw_head(tmp_path / "in")

    written = segment(
        tmp_path / "in", tmp_path, configuration_of(tmp_path), gate=True, segmenters=threshold_segmenters
    )

    assert all(path.parent == tmp_path for path in written.paths)


@pytest.mark.parametrize("out", ["in", "in/../in", "link"])
def test_the_folder_itself_is_no_place_for_the_results(tmp_path: Path, out: str) -> None:
    head = draw_head(tmp_path / "in")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    configuration = configuration_of(tmp_path)

    with pytest.raises(ConfigurationError, match="another folder"):
        segment(tmp_path / "in", tmp_path / out, configuration, gate=True, segmenters=threshold_segmenters)

    assert sorted((tmp_path / "in").iterdir()) == sorted(head.paths)


def test_dates_are_told_in_the_configured_time_zone(tmp_path: Path) -> None:
    draw_head(tmp_path / "in")
    configuration = configuration_of(tmp_path, time_zone="Asia/Kathmandu")

    segment(tmp_path / "in", tmp_path / "out", configuration, gate=True, segmenters=threshold_segmenters)

    equipment = dcmread(tmp_path / "out" / "seg.dcm").ContributingEquipmentSequence[-1]
    assert equipment.ContributionDateTime.endswith("+0545")


def test_nothing_is_archived(tmp_path: Path) -> None:
    draw_head(tmp_path / "in")
    configuration = configuration_of(tmp_path)
    segment(tmp_path / "in", tmp_path / "out", configuration, gate=True, segmenters=threshold_segmenters)

    assert not configuration.node.archive.exists()
