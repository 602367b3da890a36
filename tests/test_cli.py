"""The command line: what it prints, what it answers, and what it leaves to the exit status."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from pydicom import dcmread

from gpnet_node.cli import EXIT_NEEDS_REVIEW, app, run
from gpnet_node.config import SHIPPED_MODEL, load
from gpnet_node.model.drawing.drawn_series import write_series
from gpnet_node.parts import Parts, build, now
from gpnet_node.store.database import BUSY_SECONDS, writing
from gpnet_node.store.states import JobState, Outcome
from tests.drawn import drawn_head
from tests.factories import mr_series, spoil
from tests.peers import data_set_bytes, dcmtk_storescp, echoscu, free_port
from tests.stores import keep, written

VERBS = [
    "serve",
    "demo",
    "segment",
    "send",
    "train",
    "synthesise",
    "evaluate",
    "status",
    "retry",
    "release",
    "reject",
    "cancel",
    "reprocess",
    "check",
    "reindex",
]
Run = Callable[..., tuple[int, str, str]]


def write_configuration(folder: Path, *, pacs: int = 104, node: str = "") -> Path:
    """Write a configuration whose model is a card with a hash of its own."""
    model = folder / "models" / "toy"
    model.mkdir(parents=True)
    shipped = Path(__file__).resolve().parents[1] / "model_weights" / SHIPPED_MODEL / "card.toml"
    lines = [
        line if not line.startswith("weights_sha256") else f'weights_sha256 = "{_EMPTY_SHA256}"'
        for line in shipped.read_text().splitlines()
    ]
    (model / "card.toml").write_text("\n".join(lines))
    (model / "weights.safetensors").write_bytes(b"")
    text = (
        'archive = "archive"\nmodel_weights = "models"\nport = 0\nhost = "127.0.0.1"\nlog_format = "json"\n'
    )
    (folder / "node.toml").write_text(text + node)
    (folder / "peers.toml").write_text(
        '[[peer]]\nname = "scanner"\nae_title = "SCANNER"\nmay_store = true\n'
        f'[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs}\n'
    )
    (folder / "routes.toml").write_text('[[route]]\nname = "gpnet"\nmodel = "toy"\ndestinations = ["pacs"]\n')
    return folder


_EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, which the commands find by GPNET_CONFIG."""
    folder = write_configuration(tmp_path / "configuration")
    monkeypatch.setenv("GPNET_CONFIG", str(folder))
    return folder


@pytest.fixture
def gpnet(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; exit status, standard output, standard error."""

    def command(*arguments: str) -> tuple[int, str, str]:
        status = run(arguments)
        captured = capsys.readouterr()
        return status, captured.out, " ".join(captured.err.split())

    return command


@pytest.fixture
def parts(configured: Path) -> Iterator[Parts]:
    """The store that the commands work on."""
    parts = build(load(configured), owner="test")
    yield parts
    parts.engine.dispose()


def queued_job(parts: Parts, folder: Path) -> str:
    """Receive a series and queue its job."""
    arrivals = [keep(parts.archive, path, at=now()) for path in mr_series(folder, slices=3)]
    parts.index.record(arrivals)
    return parts.jobs.reprocess(arrivals[0].header.series_uid, now=now()).uid


def ended_job(parts: Parts, folder: Path, outcome: Outcome) -> str:
    uid = queued_job(parts, folder)
    parts.jobs.claim("worker", now=now())
    parts.jobs.finish(uid, "worker", outcome, now=now())
    return uid


FAILED = Outcome(state=JobState.FAILED, sentence="a slice is missing")


# -- help, usage, configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(gpnet: Run, verb: str) -> None:
    status, out, _ = gpnet(verb, "--help")

    assert status == 0
    assert len(out.split()) > 20


def test_no_verb_is_left_out_of_the_tests() -> None:
    names = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }

    assert names == set(VERBS)


def test_help_loads_no_heavy_package() -> None:
    script = (
        "import sys; from gpnet_node.cli import run; run(['--help']); "
        "sys.exit(bool({'torch', 'highdicom', 'pynetdicom', 'sqlalchemy', 'SimpleITK'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 0


def test_a_wrong_key_is_told_with_file_and_line_and_status_78(gpnet: Run, configured: Path) -> None:
    with (configured / "node.toml").open("a") as file:
        file.write("colour = 3\n")

    status, _, err = gpnet("check")

    assert status == 78
    assert "node.toml" in err
    assert "line 6" in err
    assert "colour" in err


def test_without_a_configuration_the_way_to_name_one_is_told(
    gpnet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    status, _, err = gpnet("status")

    assert status == 78
    assert "--config" in err


def test_wrong_usage_has_status_2(gpnet: Run, configured: Path) -> None:
    assert gpnet("retry")[0] == 2
    assert gpnet("serve", "--role", "juggler")[0] == 2


# -- check ---------------------------------------------------------------------------------------------------


def test_check_shows_what_the_node_would_run_with(gpnet: Run, configured: Path) -> None:
    status, out, _ = gpnet("check", "--json")

    found = json.loads(out)
    assert status == 0
    assert found["ae_title"] == "GPNET"
    assert found["journal_mode"] in {"WAL", "TRUNCATE"}
    assert [peer["name"] for peer in found["peers"]] == ["scanner", "pacs"]
    assert found["routes"][0]["destinations"] == ["pacs"]
    assert set(found["codecs"].values()) == {True}
    assert gpnet("check")[0] == 0
    assert not (configured / "archive").exists()


def test_check_tells_of_a_file_that_is_no_database(gpnet: Run, configured: Path) -> None:
    (configured / "archive").mkdir()
    (configured / "archive" / "node.sqlite").write_text("something else altogether, and long enough")

    status, _, err = gpnet("check")

    assert status == 1
    assert "not a database" in err


def test_check_names_weights_that_are_not_the_cards(gpnet: Run, configured: Path) -> None:
    (configured / "models" / "toy" / "weights.safetensors").write_bytes(b"other")

    status, out, _ = gpnet("check", "--json")

    assert status == 1
    assert "not the file" in json.loads(out)["models"][0]["fault"]


def test_check_verifies_the_destinations_when_asked(
    gpnet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dcmtk_storescp(tmp_path / "pacs") as scp:
        folder = write_configuration(tmp_path / "there", pacs=scp.port)
        assert gpnet("check", "--echo", "--config", str(folder))[0] == 0
    status, out, _ = gpnet("check", "--echo", "--json", "--config", str(folder))

    assert status == 1
    assert "pacs" in json.loads(out)["peers"][1]["fault"]


# -- segment -------------------------------------------------------------------------------------------------


def test_segment_says_why_a_series_is_not_eligible_with_status_3(gpnet: Run, tmp_path: Path) -> None:
    mr_series(tmp_path / "in", slices=20, MagneticFieldStrength=1.5)

    status, out, err = gpnet("segment", str(tmp_path / "in"), "--out", str(tmp_path / "out"))

    assert (status, out) == (3, "")
    assert "1.5" in err
    assert not (tmp_path / "out").exists()


def test_segment_says_what_keeps_files_from_being_a_volume_with_status_4(gpnet: Run, tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "in", slices=20)
    paths[7].unlink()

    status, out, err = gpnet("segment", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--no-gate")

    assert (status, out) == (4, "")
    assert "misses 1 of 20 slices" in err


def test_segment_of_a_folder_without_images_has_status_4(gpnet: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing here")

    status, _, err = gpnet("segment", str(tmp_path / "in"), "--out", str(tmp_path / "out"))

    assert status == 4
    assert "no DICOM files" in err


# -- send ----------------------------------------------------------------------------------------------------


def test_send_delivers_files_and_folders(gpnet: Run, tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "in", slices=3)
    with dcmtk_storescp(tmp_path / "pacs", "+B") as scp:
        folder = write_configuration(tmp_path / "configuration", pacs=scp.port)
        status, out, _ = gpnet("send", "pacs", str(tmp_path / "in"), "--json", "--config", str(folder))
        received = {data_set_bytes(path) for path in scp.files()}

    assert status == 0
    assert [it["verdict"] for it in json.loads(out)] == ["delivered"] * 3
    assert received == {data_set_bytes(path) for path in paths}


def test_send_fails_where_nobody_listens_and_says_so(gpnet: Run, tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "in", slices=1)
    folder = write_configuration(tmp_path / "configuration", pacs=free_port())

    status, out, _ = gpnet("send", "pacs", str(path), "--config", str(folder))

    assert status == 1
    assert "transient" in out


def test_send_to_a_peer_that_is_not_configured_has_status_78(
    gpnet: Run, tmp_path: Path, configured: Path
) -> None:
    (path,) = mr_series(tmp_path / "in", slices=1)

    status, _, err = gpnet("send", "nobody", str(path))

    assert status == 78
    assert "nobody" in err


# -- the operator --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["status"], ["status", "1.2.3.4"], ["retry", "1.2.3.4"]])
def test_looking_at_a_node_that_never_ran_says_so_and_makes_nothing(
    gpnet: Run, configured: Path, command: list[str]
) -> None:
    before = sorted(configured.rglob("*"))

    status, _, err = gpnet(*command)

    assert status == 1
    assert "has not run" in err
    assert sorted(configured.rglob("*")) == before


def test_status_does_not_wait_for_a_writer(gpnet: Run, parts: Parts) -> None:
    with writing(parts.engine):
        began = time.monotonic()
        assert gpnet("status")[0] == 0

    assert time.monotonic() - began < BUSY_SECONDS / 2


def test_a_database_of_another_version_is_left_to_the_node(gpnet: Run, parts: Parts) -> None:
    with writing(parts.engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")

    status, _, err = gpnet("status")

    assert status == 1
    assert "0000" in err


def test_status_of_an_empty_node_is_empty(gpnet: Run, parts: Parts) -> None:
    status, out, _ = gpnet("status", "--json")

    found = json.loads(out)
    assert status == 0
    assert (found["series"], found["jobs"], found["outbox"]) == ([], [], [])
    assert gpnet("status")[0] == 0


def test_status_tells_series_jobs_and_debts_but_no_patient(gpnet: Run, parts: Parts, tmp_path: Path) -> None:
    uid = queued_job(parts, tmp_path / "in")
    job = parts.jobs.claim("worker", now=now())
    assert job is not None
    parts.jobs.finish(uid, "worker", written(job), now=now())

    _, out, _ = gpnet("status", "--json")
    _, table, _ = gpnet("status")

    found = json.loads(out)
    assert found["series"][0]["images"] == 3
    assert found["series"][0]["waits_for"] == "instances are arriving"
    assert [(it["uid"], it["state"]) for it in found["jobs"]] == [(uid, "written")]
    assert {(it["kind"], it["peer"], it["state"]) for it in found["outbox"]} == {
        ("seg", "pacs", "owed"),
        ("sr", "pacs", "owed"),
    }
    assert uid in table
    for text in (out, table):
        assert "Example" not in text
        assert "P1" not in text


@pytest.mark.parametrize("of", ["job", "series"])
def test_status_of_one_uid_tells_its_history(gpnet: Run, parts: Parts, tmp_path: Path, of: str) -> None:
    uid = ended_job(parts, tmp_path / "in", FAILED)
    asked = uid if of == "job" else parts.jobs.get(uid).series_uid

    status, out, _ = gpnet("status", asked, "--json")

    history = json.loads(out)["history"]
    assert status == 0
    assert history
    if of == "job":
        assert history[-1]["sentence"] == "a slice is missing"


def test_status_of_an_unknown_uid_fails(gpnet: Run, parts: Parts) -> None:
    status, _, err = gpnet("status", "1.2.3.4")

    assert status == 1
    assert "1.2.3.4" in err


def test_a_failed_job_is_retried(gpnet: Run, parts: Parts, tmp_path: Path) -> None:
    uid = ended_job(parts, tmp_path / "in", FAILED)

    assert gpnet("retry", uid)[0] == 0
    assert parts.jobs.get(uid).state is JobState.QUEUED


@pytest.mark.parametrize(("verb", "state"), [("release", JobState.WRITTEN), ("reject", JobState.REJECTED)])
def test_a_job_that_needs_review_is_released_or_rejected(
    gpnet: Run, parts: Parts, tmp_path: Path, verb: str, state: JobState
) -> None:
    uid = queued_job(parts, tmp_path / "in")
    job = parts.jobs.claim("worker", now=now())
    assert job is not None
    made = written(job)
    doubtful = Outcome(state=JobState.NEEDS_REVIEW, sentence="doubtful", results=made.results, owed=made.owed)
    parts.jobs.finish(uid, "worker", doubtful, now=now())

    assert gpnet(verb, uid)[0] == 0
    assert parts.jobs.get(uid).state is state


def test_a_queued_job_is_cancelled(gpnet: Run, parts: Parts, tmp_path: Path) -> None:
    uid = queued_job(parts, tmp_path / "in")

    assert gpnet("cancel", uid)[0] == 0
    assert parts.jobs.get(uid).state is JobState.CANCELLED


def test_what_cannot_be_done_to_a_job_is_refused_with_its_state(
    gpnet: Run, parts: Parts, tmp_path: Path
) -> None:
    uid = queued_job(parts, tmp_path / "in")

    for verb in ("retry", "release", "reject"):
        status, _, err = gpnet(verb, uid)
        assert status == 1
        assert "queued" in err
    assert parts.jobs.get(uid).state is JobState.QUEUED


def test_a_series_is_reprocessed_as_a_new_job_that_takes_the_place_of_the_old(
    gpnet: Run, parts: Parts, tmp_path: Path
) -> None:
    old = ended_job(parts, tmp_path / "in", FAILED)

    status, out, _ = gpnet("reprocess", parts.jobs.get(old).series_uid)

    assert status == 0
    assert "queued" in out
    assert parts.jobs.get(old).state is JobState.SUPERSEDED


def test_reindex_finds_what_the_index_lacks(gpnet: Run, parts: Parts, tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "in", slices=4)
    for path in paths:
        keep(parts.archive, path)

    status, out, _ = gpnet("reindex", "--json")
    _, again, _ = gpnet("reindex", "--json")

    assert status == 0
    assert json.loads(out) == {"found": 4, "added": 4, "unreadable": []}
    assert json.loads(again)["added"] == 0
    assert len(parts.index.instances(dcmread(paths[0]).SeriesInstanceUID)) == 4


# -- serve ---------------------------------------------------------------------------------------------------


def first_line_with(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    assert process.stderr is not None
    for line in process.stderr:
        found: dict[str, Any] = json.loads(line)
        if found["event"] == event:
            return found
    pytest.fail(f"no line {event!r}: exit status {process.wait()}")


def test_serve_plays_one_role_until_sigterm(configured: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gpnet_node", "serve", "--role", "receiver", "--config", str(configured)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = first_line_with(process, "ready")
        answered = echoscu(ready["port"]).returncode
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()

    assert answered == 0


def test_serve_stops_with_status_78_where_a_role_cannot_start(configured: Path) -> None:
    (configured / "models" / "toy" / "weights.safetensors").write_bytes(b"other")
    command = [sys.executable, "-m", "gpnet_node", "serve", "--config", str(configured)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 78
    assert "weights" in done.stderr


# -- train ---------------------------------------------------------------------------------------------------


def test_train_without_its_extra_says_what_to_install_before_hours_of_work(
    gpnet: Run, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ants", None)
    for name in ("train.toml", "card.toml"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    work = str(tmp_path / "work")

    status, _, err = gpnet(
        "train", "--config", str(tmp_path / "train.toml"), "--atlases", str(tmp_path), "--work", work
    )

    assert status == 78
    assert "gpnet_node[train]" in err


def test_train_wants_to_be_told_where_the_atlases_are(gpnet: Run, tmp_path: Path) -> None:
    settings = Path(__file__).resolve().parents[1] / "model_weights" / "gpnet-1" / "train.toml"

    status, _, err = gpnet("train", "--config", str(settings), "--work", str(tmp_path))

    assert status == 78
    assert "--atlases" in err


# -- with the shipped weights --------------------------------------------------------------------------------


def test_segment_writes_segmentation_report_and_picture_of_a_real_head(
    gpnet: Run, tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = shared_data / "dicom" / "niivue_t1_mpr_tra"

    status, out, err = gpnet("segment", str(head), "--no-gate", "--json", "--out", str(tmp_path / "out"))

    made = json.loads(out)
    assert status == (EXIT_NEEDS_REVIEW if made["needs_review"] else 0), err  # 1.5 T T1: it may be doubted
    assert [Path(path).name for path in made["files"]] == ["seg.dcm", "sr.dcm", "segmentation.png"]
    assert all(Path(path).stat().st_size > 0 for path in made["files"])
    assert len(made["measurements"]) == 4
    assert dcmread(tmp_path / "out" / "seg.dcm").SegmentSequence[0].SegmentLabel == "GPe left"


def test_segment_writes_a_doubtful_result_and_has_status_6(
    gpnet: Run, tmp_path: Path, model_folder: Path
) -> None:
    configuration = write_configuration(tmp_path / "configuration")
    model = configuration / "models" / "toy"
    card = tomlkit.parse((model_folder / "card.toml").read_text(encoding="utf-8"))
    card["review"] = {"edge_mm": 100.0}  # no pallidum of a slab lies so far inside it
    (model / "card.toml").write_text(tomlkit.dumps(card), encoding="utf-8")
    (model / "weights.safetensors").write_bytes((model_folder / "weights.safetensors").read_bytes())
    write_series(drawn_head(), tmp_path / "in", description="T2 TSE", at=datetime(2026, 3, 4, tzinfo=UTC))
    folders = (str(tmp_path / "in"), "--out", str(tmp_path / "out"))

    status, out, err = gpnet("segment", *folders, "--no-gate", "--json", "--config", str(configuration))

    made = json.loads(out)
    assert status == 6, err
    assert all(Path(path).stat().st_size > 0 for path in made["files"])
    assert len(made["needs_review"]) == 2
    assert "needs review: the left pallidum lies" in err


def test_segment_of_a_volume_without_a_pallidum_has_status_5(
    gpnet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mr_series(tmp_path / "in", slices=40, rows=48, columns=48, spacing_mm=(2.0, 2.0, 2.0))

    status, out, err = gpnet("segment", "in", "--no-gate", "--out", "out")

    assert (status, out) == (5, "")
    assert "globus pallidus" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")  # pydicom's, on what is spoilt here
def test_values_that_break_their_form_are_not_repeated_by_segment(tmp_path: Path) -> None:
    at = datetime(2026, 3, 4, tzinfo=UTC)
    for path in write_series(drawn_head(), tmp_path / "in", description="T2 TSE", at=at):
        spoil(path, "Geheim")
    command = [sys.executable, "-m", "gpnet_node", "segment", "in", "--no-gate", "--out", "out"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)

    assert done.returncode == 0, done.stderr
    assert "geheim" not in (done.stdout + done.stderr).lower()
    assert b"Geheim" in (tmp_path / "out" / "seg.dcm").read_bytes()  # the results keep them as they are


def test_a_bug_is_told_by_its_kind_and_place_and_not_by_a_text_that_may_quote_a_value(tmp_path: Path) -> None:
    script = "from gpnet_node import cli; cli.app.command()(lambda: int('Geheim')); cli.main(['<lambda>'])"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "ValueError" in done.stderr
    assert "<string>:1" in done.stderr
    assert "Geheim" not in done.stderr
