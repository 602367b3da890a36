"""MPPS with pynetdicom as the scanner, and what it does for the completeness of a series."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import MRImageStorage, generate_uid
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]
from sqlalchemy import select

from gpnet_node.config import PeerConfig
from gpnet_node.store.database import performed_steps, reading
from gpnet_node.store.states import SeriesState
from gpnet_node.store.steps import StepStatus
from tests.factories import mr_series
from tests.nodes import RunningNode, configuration_of, running_node
from tests.peers import storescu, wait_until
from tests.performing import SCANNER, listing, report, scanner, step


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """One that waits five minutes for everything: what it decides at once it decides by evidence."""
    configuration = configuration_of(
        tmp_path_factory.mktemp("node"),
        quiet_seconds_counted=300,
        quiet_seconds_uncounted=300,
        gap_wait_seconds=300,
    )
    mute = PeerConfig(name="mute", ae_title="MUTE", may_store=True)
    with running_node(configuration.model_copy(update={"peers": (SCANNER, mute)})) as node:
        yield node


def new_series(folder: Path) -> list[Path]:
    return mr_series(folder, slices=12, SeriesInstanceUID=generate_uid())


def decided(node: RunningNode, uid: str) -> tuple[SeriesState, str]:
    def found() -> tuple[SeriesState, str] | None:
        node.supervisor.tend()
        known = [it for it in node.parts.index.newest_series() if it.uid == uid]
        return (known[0].state, known[0].reason) if known and known[0].decided_at else None

    seen = wait_until(found, what="a decision")
    assert seen is not None
    return seen


def test_a_series_whose_listed_images_are_all_here_is_complete_at_once(
    node: RunningNode, tmp_path: Path
) -> None:
    paths = new_series(tmp_path)
    storescu(node.port, paths)

    assert report(node.port, "COMPLETED", listing(paths)) == [0, 0]

    state, sentence = decided(node, *listing(paths))
    assert state is SeriesState.COMPLETE
    assert "every one of the 12 images that SCANNER lists in its performed procedure step" in sentence


def test_images_that_come_after_the_list_complete_the_series(node: RunningNode, tmp_path: Path) -> None:
    paths = new_series(tmp_path)
    ((uid, images),) = listing(paths).items()
    storescu(node.port, paths[:7])
    report(node.port, "COMPLETED", listing(paths))
    wait_until(lambda: node.parts.index.versions(images[6]), what="the seventh image indexed")
    assert node.parts.index.series(uid).state is SeriesState.RECEIVING

    storescu(node.port, paths[7:])

    assert decided(node, uid)[0] is SeriesState.COMPLETE


def test_a_gap_in_what_the_scanner_calls_complete_is_told_at_once(node: RunningNode, tmp_path: Path) -> None:
    paths = new_series(tmp_path)
    kept = [*paths[:5], *paths[6:]]
    storescu(node.port, kept)

    report(node.port, "COMPLETED", listing(kept))

    state, sentence = decided(node, *listing(kept))
    assert state is SeriesState.INCOMPLETE
    assert "misses 1 of 12 slices" in sentence


def test_images_that_nobody_listed_are_waited_for_as_without_a_list(
    node: RunningNode, tmp_path: Path
) -> None:
    """The scanner goes on after its step: each image more would otherwise be a decision and a job more."""
    paths = new_series(tmp_path)
    (uid,) = listing(paths)
    report(node.port, "COMPLETED", listing(paths[:8]))
    storescu(node.port, paths)
    wait_until(lambda: node.parts.index.versions(listing(paths)[uid][-1]), what="the last image indexed")
    time.sleep(2)  # four looks

    series = node.parts.index.series(uid)
    decisions = [it for it in node.parts.index.history(uid) if it.state is not SeriesState.RECEIVING]
    assert series.state is SeriesState.RECEIVING
    assert len(decisions) <= 1  # one may have come between the eighth image and the ninth


def test_a_discontinued_step_is_said_so(node: RunningNode, tmp_path: Path) -> None:
    paths = new_series(tmp_path)
    storescu(node.port, paths)

    report(node.port, "DISCONTINUED", listing(paths))

    state, sentence = decided(node, *listing(paths))
    assert state is SeriesState.COMPLETE
    assert "SCANNER says that the step was DISCONTINUED" in sentence


def test_a_list_that_comes_late_and_names_more_takes_the_decision_back(
    node: RunningNode, tmp_path: Path
) -> None:
    paths = new_series(tmp_path)
    (uid,) = listing(paths)
    storescu(node.port, paths[:8])
    report(node.port, "COMPLETED", listing(paths[:8]))
    assert decided(node, uid)[0] is SeriesState.COMPLETE

    report(node.port, "COMPLETED", listing(paths))

    series = node.parts.index.series(uid)
    assert (series.state, series.revision) == (SeriesState.RECEIVING, 2)
    assert "4 of the images that an ended step lists are missing" in series.reason


def test_an_ended_step_is_no_longer_changed(node: RunningNode) -> None:
    association, uid = scanner(node.port), generate_uid()
    mpps = ModalityPerformedProcedureStep
    association.send_n_create(step("IN PROGRESS"), mpps, uid)
    association.send_n_set(step("COMPLETED", {}), mpps, uid)

    answer, _ = association.send_n_set(step("DISCONTINUED", {}), mpps, uid)
    association.release()

    assert (answer.Status, answer.ErrorID) == (0x0110, 0xA710)


@pytest.mark.parametrize(
    ("attributes", "uid", "status"),
    [
        (step("COMPLETED"), None, 0x0106),
        (step("IN PROGRESS"), "1.2.840.99999.1", 0x0000),
        (step("IN PROGRESS"), "1.2.840.99999.1", 0x0111),
        (step("IN PROGRESS"), "", 0x0000),
    ],
    ids=["ended from the start", "new", "the same again", "the node chooses the UID"],
)
def test_a_step_begins_in_progress_and_once(
    node: RunningNode, attributes: Dataset, uid: str | None, status: int
) -> None:
    association = scanner(node.port)
    named = generate_uid() if uid is None else uid or None

    answer, _ = association.send_n_create(attributes, ModalityPerformedProcedureStep, named)
    association.release()

    assert answer.Status == status


def test_a_step_that_nobody_began_cannot_be_changed(node: RunningNode) -> None:
    association = scanner(node.port)

    answer, _ = association.send_n_set(step("COMPLETED", {}), ModalityPerformedProcedureStep, generate_uid())
    association.release()

    assert answer.Status == 0x0112


def test_who_may_not_report_is_not_offered_the_class(node: RunningNode) -> None:
    association = scanner(node.port, "MUTE")

    classes = {context.abstract_syntax for context in association.accepted_contexts}
    association.release()

    assert classes == {MRImageStorage}


def test_a_list_that_is_not_understood_is_refused_whole(node: RunningNode) -> None:
    association, uid = scanner(node.port), generate_uid()
    mpps = ModalityPerformedProcedureStep
    association.send_n_create(step("IN PROGRESS"), mpps, uid)

    answer, _ = association.send_n_set(step("WHATEVER"), mpps, uid)
    again, _ = association.send_n_set(step(StepStatus.COMPLETED, {"../../etc": ["x"]}), mpps, uid)
    association.release()

    assert (answer.Status, again.Status) == (0x0106, 0x0106)
    with reading(node.parts.engine) as connection:
        kept = select(performed_steps.c.status).where(performed_steps.c.uid == uid)
        assert connection.scalar(kept) == StepStatus.IN_PROGRESS  # a list that is not understood ends nothing


def test_a_status_that_is_written_as_another_kind_of_text_is_understood(node: RunningNode) -> None:
    association, uid = scanner(node.port), generate_uid()
    mpps = ModalityPerformedProcedureStep
    association.send_n_create(step("IN PROGRESS"), mpps, uid)
    ended = Dataset()
    ended.add_new(0x00400252, "PN", "COMPLETED")

    answer, _ = association.send_n_set(ended, mpps, uid)
    association.release()

    assert answer.Status == 0x0000
