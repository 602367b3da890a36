"""The node's processes: killed at any moment, drained, locked, started again."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, _config
from pynetdicom.association import Association

from gpnet_node import pipeline
from gpnet_node.config import SHIPPED_MODEL
from gpnet_node.errors import ConfigurationError
from gpnet_node.node import BACKUP, gpnet_segmenters
from gpnet_node.parts import Role
from gpnet_node.results.content import Background
from gpnet_node.results.identifiers import JobIdentity
from gpnet_node.store.states import JobState
from tests.benchmarks.memory import peak_mb
from tests.factories import enhanced_mr, mr_series, with_undefined_lengths
from tests.nodes import RunningNode, configuration_of, running_node
from tests.pallida import draw_head
from tests.peers import echoscu, listens, storescu, wait_until
from tests.receiving import store
from tests.segmenters import HOLD, ThresholdSegmenter, held_segmenters

REPOSITORY = Path(__file__).resolve().parents[1]


def associate(port: int) -> Association:
    _config.STORE_SEND_CHUNKED_DATASET = True
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="GPNET")
    assert association.is_established
    return association


def kill(node: RunningNode, role: Role) -> None:
    """Kill a role's process outright, and wait until the supervisor has started another."""
    killed = node.supervisor.process_id(role)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    def another() -> bool:
        node.supervisor.tend()
        return node.supervisor.process_id(role) not in (None, killed)

    wait_until(another, what=f"another {role}")
    node.supervisor.wait_until_ready(seconds=60)


def uids(paths: Sequence[Path]) -> set[str]:
    return {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths}


# -- killed --------------------------------------------------------------------------------------------------


def test_what_was_acknowledged_survives_the_receivers_death_at_once(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "sent", slices=12)
    with running_node(configuration_of(tmp_path), Role.RECEIVER) as node:
        association = associate(node.port)
        for path in paths:
            assert association.send_c_store(path).Status == 0x0000
        kill(node, Role.RECEIVER)  # before it could tell the index everything, or see a release

        series = dcmread(paths[0]).SeriesInstanceUID
        indexed = {instance.sop_instance_uid for instance in node.parts.index.instances(series)}
        assert indexed == uids(paths)
        assert {uid for uid, _, _ in node.parts.archive.instances()} == uids(paths)
        assert list((node.parts.archive.root / "tmp" / "incoming").iterdir()) == []


def test_a_receiver_killed_in_the_middle_of_sending_loses_nothing_that_it_acknowledged(
    tmp_path: Path,
) -> None:
    paths = mr_series(tmp_path / "sent", slices=60, rows=128, columns=128)
    with running_node(configuration_of(tmp_path), Role.RECEIVER) as node:
        acknowledged: list[Path] = []
        association = associate(node.port)

        def send() -> None:
            for path in paths:
                if not association.is_established:
                    return
                if association.send_c_store(path).get("Status") == 0x0000:
                    acknowledged.append(path)

        sending = threading.Thread(target=send)
        sending.start()
        wait_until(lambda: len(acknowledged) > 5, what="some acknowledgements")
        kill(node, Role.RECEIVER)
        sending.join(60)

        kept = {uid for uid, _, _ in node.parts.archive.instances()}
        series = dcmread(paths[0]).SeriesInstanceUID
        assert 5 < len(acknowledged) < len(paths)
        assert uids(acknowledged) <= kept
        assert {it.sop_instance_uid for it in node.parts.index.instances(series)} == kept


def test_a_worker_killed_in_the_middle_of_a_job_ends_in_the_bytes_of_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    head = draw_head(tmp_path / "series")
    configuration = configuration_of(tmp_path)
    with running_node(configuration, segmenters=held_segmenters) as node:
        hold = configuration.node.archive / HOLD
        hold.touch()
        storescu(node.port, head.paths)
        node.job(JobState.RUNNING)
        kill(node, Role.WORKER)
        hold.unlink()
        job = node.job(JobState.WRITTEN)

        undisturbed = pipeline.run(
            head.paths,
            job=JobIdentity(
                job_uid=job.uid,
                created_at=job.created_at,
                node_ae_title=configuration.node.ae_title,
                software_version=version("gpnet_node"),
            ),
            routes=configuration.routes,
            segmenter_for=lambda _route: ThresholdSegmenter(),
            background=Background(completeness=node.parts.index.series(job.series_uid).reason),
        )
        folder = node.parts.archive.root / "results" / job.uid
        assert job.attempts == 2
        assert len(node.parts.jobs.newest()) == 1
        assert sorted(path.name for path in folder.iterdir()) == ["seg.dcm", "sr.dcm"]
        for it in undisturbed.objects:
            assert (folder / f"{it.name}.dcm").read_bytes() == it.content


def test_a_job_that_kills_its_worker_too_often_is_parked_and_the_worker_lives_on(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    configuration = configuration_of(tmp_path, max_attempts=2)
    with running_node(configuration, segmenters=held_segmenters) as node:
        hold = configuration.node.archive / HOLD
        hold.touch()
        storescu(node.port, head.paths)
        for _ in range(2):
            node.job(JobState.RUNNING)
            kill(node, Role.WORKER)

        assert "parked after 2 attempts" in node.job(JobState.PARKED).reason
        hold.unlink()
        other = draw_head(tmp_path / "other", series="2")
        storescu(node.port, other.paths)
        node.job(JobState.WRITTEN)


def test_a_decision_survives_the_death_of_every_process(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    configuration = configuration_of(tmp_path)
    with running_node(configuration, Role.RECEIVER) as node:
        storescu(node.port, head.paths)
        queued = node.job(JobState.QUEUED)
        kill(node, Role.RECEIVER)
    with running_node(configuration, Role.WORKER) as node:
        assert node.job(JobState.WRITTEN).uid == queued.uid


def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from gpnet_node.parts import Role
        from tests.nodes import configuration_of, running_node
        if __name__ == "__main__":
            with running_node(configuration_of(Path(sys.argv[1]))) as node:
                roles = [role for role in Role if role is not Role.WEB]  # which is not enabled
                print(*map(node.supervisor.process_id, roles), flush=True)
                time.sleep(600)
        """
    )
    path = tmp_path / "run_node.py"
    path.write_text(script)
    supervisor = subprocess.Popen(
        [sys.executable, str(path), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert supervisor.stdout is not None
    roles = [int(pid) for pid in supervisor.stdout.readline().split()]
    assert len(roles) == len(Role) - 1
    supervisor.kill()
    supervisor.wait()

    def gone() -> bool:
        return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in roles)

    wait_until(gone, what="the roles gone")


def test_what_the_node_keeps_is_for_its_own_account_alone(tmp_path: Path) -> None:
    with running_node(configuration_of(tmp_path), Role.RECEIVER, Role.WORKER) as node:
        storescu(node.port, draw_head(tmp_path / "series").paths)
        node.job(JobState.WRITTEN)
        root = node.parts.archive.root
        open_to_others = [path for path in root.rglob("*") if path.stat().st_mode & 0o077]

        assert len(list((root / "results").rglob("*.dcm"))) == 2
        assert open_to_others == []


# -- bounded -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_a_large_multi_frame_image_passes_through_in_bounded_memory(
    tmp_path: Path, transfer_syntax: str
) -> None:
    frames = np.random.default_rng(1).integers(0, 4096, (128, 512, 512), dtype=np.uint16)  # 64 MiB
    path = enhanced_mr(tmp_path / "sent", voxels=frames, transfer_syntax=transfer_syntax)
    with running_node(configuration_of(tmp_path), Role.RECEIVER) as node:
        pid = node.supervisor.process_id(Role.RECEIVER)
        assert pid is not None
        before = peak_mb(pid)
        sent = storescu(node.port, [path], "-xd" if transfer_syntax.endswith("99") else "-xe")

        assert sent.returncode == 0, sent.stdout
        assert peak_mb(pid) - before < 30


def test_headers_of_many_frames_pass_through_in_bounded_memory(tmp_path: Path) -> None:
    """Without the lengths of its sequences all of a header is gone through, to where the pixels begin."""
    frames = np.zeros((4000, 2, 2), dtype=np.uint16)
    path = with_undefined_lengths(enhanced_mr(tmp_path / "sent", voxels=frames))
    with running_node(configuration_of(tmp_path), Role.RECEIVER) as node:
        pid = node.supervisor.process_id(Role.RECEIVER)
        assert pid is not None
        before = peak_mb(pid)
        answers = store(node.port, path, path)  # what is there already is read again

        assert [it.Status for it in answers] == [0x0000, 0x0000]
        assert peak_mb(pid) - before < 10


# -- stopped -------------------------------------------------------------------------------------------------


def test_a_stopped_node_lets_an_open_association_finish_and_takes_no_new_one(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "sent", slices=2)
    with running_node(configuration_of(tmp_path), Role.RECEIVER) as node:
        association = associate(node.port)
        assert association.send_c_store(paths[0]).Status == 0x0000
        drained: list[bool] = []
        stopping = threading.Thread(target=lambda: drained.append(node.supervisor.stop()))
        stopping.start()
        wait_until(lambda: not listens(node.port), what="the port closed")
        last = association.send_c_store(paths[1])
        association.release()
        stopping.join()

        assert last.Status == 0x0000
        assert drained == [True]
        assert {uid for uid, _, _ in node.parts.archive.instances()} == uids(paths)


def test_an_association_that_never_closes_ends_with_the_drain_time(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "sent", slices=1)
    with running_node(configuration_of(tmp_path, drain_seconds=12), Role.RECEIVER) as node:
        association = associate(node.port)
        assert association.send_c_store(path).Status == 0x0000
        began = time.monotonic()
        drained = node.supervisor.stop()
        took = time.monotonic() - began
        association.kill()

        assert drained
        assert took < 14
        assert len(list(node.parts.archive.instances())) == 1


def test_a_stopped_node_gives_a_long_job_back_and_the_next_start_does_it(tmp_path: Path) -> None:
    head = draw_head(tmp_path / "series")
    configuration = configuration_of(tmp_path, drain_seconds=4)
    with running_node(configuration, segmenters=held_segmenters) as node:
        hold = configuration.node.archive / HOLD
        hold.touch()
        storescu(node.port, head.paths)
        job = node.job(JobState.RUNNING)
        assert node.supervisor.stop()
        given_back = node.parts.jobs.get(job.uid)
        assert (given_back.state, given_back.attempts) == (JobState.QUEUED, 0)

    hold.unlink()
    with running_node(configuration, Role.WORKER) as node:
        assert node.job(JobState.WRITTEN).uid == job.uid


# -- started -------------------------------------------------------------------------------------------------


def test_a_second_node_on_the_same_archive_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    configuration = configuration_of(tmp_path)
    with running_node(configuration, Role.RECEIVER) as node:
        with pytest.raises(ConfigurationError), running_node(configuration, Role.RECEIVER):
            pass

        assert echoscu(node.port).returncode == 0


def test_a_node_without_a_recent_backup_makes_one_at_its_start(tmp_path: Path) -> None:
    configuration = configuration_of(tmp_path, backup_hours=1.0)
    backup = configuration.node.archive / BACKUP
    with running_node(configuration, Role.COURIER):
        wait_until(backup.exists, what="the backup")
    made_at = backup.stat().st_mtime_ns
    with running_node(configuration, Role.COURIER):
        pass

    assert backup.stat().st_mtime_ns == made_at


def test_a_role_that_died_is_started_again(tmp_path: Path) -> None:
    with running_node(configuration_of(tmp_path), Role.RECEIVER) as node:
        kill(node, Role.RECEIVER)
        ports = node.supervisor.wait_until_ready(seconds=60)

        assert echoscu(ports[Role.RECEIVER] or 0).returncode == 0


def test_the_worker_computes_with_what_the_others_leave(tmp_path: Path) -> None:
    with running_node(configuration_of(tmp_path)) as node:
        niceness = {
            role: {process.nice() for process in node.processes(role)}
            for role in (Role.RECEIVER, Role.COURIER, Role.WORKER)
        }

    ours = psutil.Process().nice()
    assert niceness == {
        Role.RECEIVER: {ours},
        Role.COURIER: {ours},
        Role.WORKER: {min(ours + 10, 19)},
    }


def test_weights_that_are_not_the_cards_stop_the_start(tmp_path: Path, model_folder: Path) -> None:
    folder = tmp_path / "models" / SHIPPED_MODEL
    folder.mkdir(parents=True)
    (folder / "card.toml").write_bytes((model_folder / "card.toml").read_bytes())
    (folder / "weights.safetensors").write_bytes(b"other weights")
    configuration = configuration_of(tmp_path, model_weights=tmp_path / "models")

    with pytest.raises(ConfigurationError):
        gpnet_segmenters(configuration)


def test_no_role_but_the_worker_loads_torch() -> None:
    script = "import sys, gpnet_node.supervisor; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# -- logs ----------------------------------------------------------------------------------------------------
