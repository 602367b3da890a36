"""A node whose sources are rejected or corrected, with DCMTK as its senders and Orthanc as its PACS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from gpnet_node.config import PeerConfig
from gpnet_node.result_profile import ResultProfile
from gpnet_node.store.states import Job, JobState, Series, SeriesState
from tests.factories import rejection_note, rewrite
from tests.nodes import RunningNode, configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import Orthanc, orthanc, storescu, wait_until

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
WITH_NOTES = ResultProfile(objects=("seg", "sr", "rejection"))
RIS = PeerConfig(name="ris", ae_title="RIS", may_store=True)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A node between its senders and a PACS that wants rejection notes."""

    node: RunningNode
    pacs: Orthanc

    def series(self, state: SeriesState, paths: tuple[Path, ...]) -> Series:
        """Wait until the series of these images is in that state."""
        uid = pydicom.dcmread(paths[0]).SeriesInstanceUID

        def found() -> Series | None:
            self.node.supervisor.tend()
            newest = self.node.parts.index.newest_series()
            return next((it for it in newest if it.uid == uid and it.state is state), None)

        series = wait_until(found, what=f"a series that is {state}")
        assert series is not None
        return series

    def wait_for_job(self, state: JobState, *, number: int) -> Job:
        """Wait until the newest of so many jobs is in that state."""

        def found() -> Job | None:
            self.node.supervisor.tend()
            jobs = self.node.parts.jobs.newest()
            return jobs[0] if len(jobs) == number and jobs[0].state is state else None

        job = wait_until(found, seconds=90, what=f"job {number} that is {state}")
        assert job is not None
        return job

    def of_class(self, sop_class_uid: str) -> list[dict[str, Any]]:
        return [tags for tags in self.pacs.tags() if tags["SOPClassUID"] == sop_class_uid]


@contextmanager
def bench(tmp_path: Path) -> Iterator[Bench]:
    with orthanc(tmp_path / "orthanc", OverwriteInstances=True) as pacs:
        configuration = configuration_of(tmp_path, pacs=pacs.dicom_port, profile=WITH_NOTES)
        peers = (*configuration.peers, RIS)
        with running_node(configuration.model_copy(update={"peers": peers})) as node:
            yield Bench(node=node, pacs=pacs)


def rejected_by(note: dict[str, Any]) -> set[str]:
    (study,) = note["CurrentRequestedProcedureEvidenceSequence"]
    return {
        reference["ReferencedSOPInstanceUID"]
        for series in study["ReferencedSeriesSequence"]
        for reference in series["ReferencedSOPSequence"]
    }


def results_of(at: Bench, job: Job) -> set[str]:
    return {it.sop_instance_uid for it in at.node.parts.jobs.results(job.uid) if it.kind in ("seg", "sr")}


def test_a_note_of_another_sender_has_the_series_segmented_without_what_it_rejects(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    with bench(tmp_path) as at:
        storescu(at.node.port, head.paths)
        first = at.wait_for_job(JobState.DELIVERED, number=1)

        note = rejection_note(tmp_path / "note.dcm", head.paths[-1:])
        sent = storescu(at.node.port, [note], "-R", calling="RIS")
        second = at.wait_for_job(JobState.DELIVERED, number=2)

        assert sent.returncode == 0
        assert (second.revision, at.node.parts.jobs.get(first.uid).state) == (2, JobState.SUPERSEDED)
        assert not results_of(at, first) & results_of(at, second)
        newer = [tags for tags in at.of_class(SEG) if tags["SOPInstanceUID"] in results_of(at, second)]
        assert pydicom.dcmread(head.paths[-1]).SOPInstanceUID not in str(newer)
        (withdrawal,) = at.of_class(KEY_OBJECTS)
        assert rejected_by(withdrawal) == results_of(at, first)


def test_where_every_image_is_rejected_the_delivered_result_is_and_nothing_is_segmented(
    tmp_path: Path,
) -> None:
    head = draw_head(tmp_path / "series")
    with bench(tmp_path) as at:
        storescu(at.node.port, head.paths)
        first = at.wait_for_job(JobState.DELIVERED, number=1)

        storescu(at.node.port, [rejection_note(tmp_path / "note.dcm", head.paths)], "-R")
        second = at.wait_for_job(JobState.REJECTED, number=2)
        wait_until(lambda: at.of_class(KEY_OBJECTS), what="the note at the PACS")

        assert len(at.of_class(SEG)) == 1
        assert rejected_by(at.of_class(KEY_OBJECTS)[0]) == results_of(at, first)
        assert "20 of its 20 images are rejected" in second.reason
        assert "20 of its 20 images are rejected" in at.series(SeriesState.COMPLETE, head.paths).reason


def test_images_that_were_rejected_before_they_came_make_no_job(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    with bench(tmp_path) as at:
        storescu(at.node.port, [rejection_note(tmp_path / "note.dcm", head.paths)], "-R", calling="RIS")
        storescu(at.node.port, head.paths)

        assert "20 of its 20 images are rejected" in at.series(SeriesState.COMPLETE, head.paths).reason
        assert at.node.parts.jobs.newest() == ()


def correct(paths: tuple[Path, ...]) -> None:
    for path in paths:
        rewrite(path, PatientName="Right^Person", PatientID="P2", StudyInstanceUID="1.2.99")


def test_a_corrected_patient_gets_the_result_and_it_is_withdrawn_from_the_wrong_one(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    with bench(tmp_path) as at:
        storescu(at.node.port, head.paths)
        first = at.wait_for_job(JobState.DELIVERED, number=1)
        correct(head.paths)

        storescu(at.node.port, head.paths)
        second = at.wait_for_job(JobState.DELIVERED, number=2)

        held = at.pacs.tags()
        whose = {it["SOPInstanceUID"]: (it["PatientID"], it["StudyInstanceUID"]) for it in held}
        assert {whose[uid] for uid in results_of(at, second)} == {("P2", "1.2.99")}
        (withdrawal,) = at.of_class(KEY_OBJECTS)
        assert withdrawal["PatientID"] == "P1"
        assert withdrawal["StudyInstanceUID"] == whose[next(iter(results_of(at, first)))][1]
        assert rejected_by(withdrawal) == results_of(at, first)


def test_a_series_of_which_some_slices_were_corrected_is_incomplete_until_the_others_are(
    tmp_path: Path,
) -> None:
    head = draw_head(tmp_path / "series")
    with bench(tmp_path) as at:
        storescu(at.node.port, head.paths)
        at.wait_for_job(JobState.DELIVERED, number=1)
        correct(head.paths)

        storescu(at.node.port, head.paths[:3])
        reason = at.series(SeriesState.INCOMPLETE, head.paths).reason
        storescu(at.node.port, head.paths[3:])
        last = at.wait_for_job(JobState.DELIVERED, number=3)

        assert "2 patients or studies: 3 of 20 differ" in reason
        assert "Right" not in reason
        assert results_of(at, last)
        assert len(at.of_class(KEY_OBJECTS)) == 1
