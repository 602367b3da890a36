"""The whole route with real peers: DCMTK as scanner, the node in its processes, Orthanc as PACS."""

import io
from pathlib import Path

import pydicom

from gpnet_node.store.states import JobState
from tests.nodes import configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import data_set_bytes, orthanc, storescu, wait_until

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"


def test_a_series_from_storescu_ends_as_segmentation_and_report_in_orthanc(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    with (
        orthanc(tmp_path / "orthanc") as pacs,
        running_node(configuration_of(tmp_path, pacs=pacs.dicom_port)) as node,
    ):
        sent = storescu(node.port, head.paths)
        job = node.job(JobState.DELIVERED)

        held = {tags["SOPClassUID"]: tags for tags in pacs.tags()}
        source = pydicom.dcmread(head.paths[0])
        assert sent.returncode == 0
        assert sorted(held) == sorted([SEG, SR])
        assert {tags["StudyInstanceUID"] for tags in held.values()} == {source.StudyInstanceUID}
        assert {tags["PatientName"] for tags in held.values()} == {str(source.PatientName)}
        for result in node.parts.jobs.results(job.uid):
            assert held[result.sop_class_uid]["SOPInstanceUID"] == result.sop_instance_uid


def test_orthanc_holds_the_very_bytes_that_were_archived(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    with (
        orthanc(tmp_path / "orthanc") as pacs,
        running_node(configuration_of(tmp_path, pacs=pacs.dicom_port)) as node,
    ):
        storescu(node.port, head.paths)
        job = node.job(JobState.DELIVERED)
        for result in node.parts.jobs.results(job.uid):
            archived = node.parts.archive.root / result.path
            (name,) = [
                name
                for name in pacs.get("/instances")
                if pacs.get(f"/instances/{name}/simplified-tags")["SOPInstanceUID"] == result.sop_instance_uid
            ]
            held = pydicom.dcmread(io.BytesIO(pacs.get_bytes(f"/instances/{name}/file")))
            assert held == pydicom.dcmread(archived)


def test_results_wait_for_a_pacs_that_is_away(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    with orthanc(tmp_path / "orthanc") as pacs:
        port = pacs.dicom_port
    with running_node(configuration_of(tmp_path, pacs=port)) as node:
        storescu(node.port, head.paths)
        job = node.job(JobState.WRITTEN)
        wait_until(
            lambda: all(debt.attempts > 0 for debt in node.parts.outbox.of_job(job.uid)),
            what="a first try",
        )
        with orthanc(tmp_path / "orthanc", port=port) as pacs:
            node.job(JobState.DELIVERED)
            assert pacs.sop_class_uids() == sorted([SEG, SR])


def test_a_mixed_exam_is_kept_and_only_the_eligible_series_comes_back_as_a_result(tmp_path: Path) -> None:
    eligible = draw_head(tmp_path / "t2")
    other = draw_head(tmp_path / "t1", series="2", EchoTime=3.0, RepetitionTime=2000.0)
    with (
        orthanc(tmp_path / "orthanc") as pacs,
        running_node(configuration_of(tmp_path, pacs=pacs.dicom_port)) as node,
    ):
        storescu(node.port, [*eligible.paths, *other.paths])
        node.job(JobState.DELIVERED)
        rejected = node.job(JobState.REJECTED)

        assert rejected.series_uid == pydicom.dcmread(other.paths[0]).SeriesInstanceUID
        assert rejected.reason
        assert pacs.sop_class_uids() == sorted([SEG, SR])


def test_results_that_the_pacs_routes_back_are_kept_and_start_no_job(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    configuration = configuration_of(tmp_path)
    with running_node(configuration) as node:
        storescu(node.port, head.paths)
        job = node.job(JobState.WRITTEN)
        results = [node.parts.archive.root / it.path for it in node.parts.jobs.results(job.uid)]

        back = storescu(node.port, results, "-R")

        assert back.returncode == 0
        wait_until(lambda: len(list(node.parts.archive.instances())) == len(head.paths) + 2, what="both kept")
        wait_until(
            lambda: all(it.state == "complete" for it in node.parts.index.newest_series()),
            what="every series being complete",
        )
        assert len(node.parts.jobs.newest()) == 1
        kept = {
            data_set_bytes(node.parts.archive.root / path) for _, _, path in node.parts.archive.instances()
        }
        assert {data_set_bytes(path) for path in results} <= kept
