"""Retention in a running node, and what was promised to peers, with Orthanc and DCMTK."""

import json
import threading
import time
from pathlib import Path

import pytest

from gpnet_node.audit_config import AuditConfig
from gpnet_node.config import Configuration
from gpnet_node.parts import Role
from gpnet_node.retention import Remover
from gpnet_node.retention_config import RetentionConfig
from gpnet_node.store.catalogue import Catalogue
from gpnet_node.store.states import JobState
from tests.audits import told_in
from tests.nodes import configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import dcmtk_storescp, free_port, orthanc, queryscu, storescu, wait_until
from tests.retained import BEFORE, LONG_AGO, NOW, Store
from tests.stores import silent_trail
from tests.test_retention import uids

TWO_SECONDS = 2 / 86_400  # in days


def go_round(store: Store, port: int, *, found_at: tuple[str, ...] = ("pacs",)) -> bool:
    """Let the courier remove what is old, with a PACS on ``port``; whether the series is gone."""
    retention = RetentionConfig(keep_days=30, found_at=found_at)
    remover(store, configuration_of(store.folder, pacs=port, retention=retention)).go_round(threading.Event())
    return store.files() == []


def remover(store: Store, configuration: Configuration) -> Remover:
    return Remover(
        configuration=configuration,
        retention=store.retention,
        catalogue=Catalogue(store.engine),
        trail=silent_trail(),
        clock=lambda: NOW,
    )


def test_what_was_promised_goes_once_orthanc_is_found_to_hold_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(JobState.DELIVERED)
    store.promise(*uids(store))
    known = {"node": ["GPNET", "127.0.0.1", 104]}
    with orthanc(tmp_path / "orthanc", DicomModalities=known) as pacs:
        assert not go_round(store, pacs.dicom_port)

        storescu(pacs.dicom_port, store.sent[:1], called="PACS")
        assert not go_round(store, pacs.dicom_port)

        storescu(pacs.dicom_port, store.sent[1:], called="PACS")
        assert not go_round(store, pacs.dicom_port, found_at=())
        assert go_round(store, pacs.dicom_port)


def test_what_was_promised_stays_while_nobody_can_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    other = store.another(at=LONG_AGO)
    store.settle(series=other)
    store.promise(
        *(it.sop_instance_uid for uid in (store.series, other) for it in store.index.instances(uid))
    )

    assert not go_round(store, free_port())

    assert store.retention.due(BEFORE).promised == 2
    assert capsys.readouterr().out.count("a peer cannot be asked") == 1  # it is not called once a series


def test_without_keep_days_nothing_is_ever_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(JobState.DELIVERED)

    remover(store, configuration_of(store.folder)).go_round(threading.Event())

    assert len(store.listed()) == len(store.sent) + 2


def test_a_node_removes_what_it_delivered_and_segments_it_anew_when_it_is_sent_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    head = draw_head(tmp_path / "series")
    with dcmtk_storescp(tmp_path / "pacs", "+B") as pacs:
        plain = configuration_of(tmp_path, pacs=pacs.port)
        with running_node(plain) as node:
            storescu(node.port, head.paths)
            job = node.job(JobState.DELIVERED)
        time.sleep(max(0.0, 2.1 - (time.time() - job.updated_at.timestamp())))  # it must be old
        with running_node(_keeping(plain, TWO_SECONDS)) as node:
            wait_until(lambda: not node.parts.jobs.newest(), what="the removal")
            wait_until(lambda: not list((node.parts.archive.root / "removals").iterdir()), what="its end")
            assert list(node.parts.archive.instances()) == []
            assert list((node.parts.archive.root / "results").iterdir()) == []

            storescu(node.port, head.paths)

            again = node.job(JobState.DELIVERED)
            assert (again.series_uid, again.uid != job.uid, again.revision) == (job.series_uid, True, 1)
    (line,) = [it for it in capfd.readouterr().err.splitlines() if "a series was removed" in it]
    told = json.loads(line)
    assert (told["series"], told["instances"], told["jobs"]) == (job.series_uid, len(head.paths), 1)
    assert told["bytes"] > 0
    assert "left_out" not in told


def test_a_removed_series_is_not_found_by_a_query_and_its_end_is_told_to_the_audit_trail(
    tmp_path: Path,
) -> None:
    head = draw_head(tmp_path / "series")
    configuration = configuration_of(tmp_path, audit=AuditConfig(file=tmp_path / "audit.log"))
    station = configuration.peers[0].model_copy(update={"may_query": True})
    asking = configuration.model_copy(update={"peers": (station,)})
    keys = ["QueryRetrieveLevel=STUDY", "StudyInstanceUID"]
    with running_node(asking, Role.RECEIVER) as node:
        storescu(node.port, head.paths)
        job = node.job(JobState.QUEUED)
        node.parts.jobs.cancel(job.uid, now=job.created_at)
        asked = queryscu("findscu", node.port, "-S", keys=keys, calling="SCANNER")
        study_uid = node.parts.index.series(job.series_uid).study_uid
        assert study_uid in asked.stdout
    time.sleep(2.1)  # it must be old
    with running_node(_keeping(asking, TWO_SECONDS), Role.RECEIVER, Role.COURIER) as node:
        wait_until(lambda: not node.parts.jobs.newest(), what="the removal")

        asked = queryscu("findscu", node.port, "-S", keys=keys, calling="SCANNER")

        assert asked.returncode == 0, asked.stdout
        assert study_uid not in asked.stdout
    (deleted,) = told_in(tmp_path / "audit.log", "DICOM Instances Accessed")
    assert (deleted.action, sum(deleted.counts().values())) == ("D", len(head.paths))


def _keeping(configuration: Configuration, days: float) -> Configuration:
    retention = RetentionConfig(keep_days=days)
    node = configuration.node.model_copy(update={"retention": retention})
    return configuration.model_copy(update={"node": node})
