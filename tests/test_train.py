import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tomlkit
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gpnet_node.errors import ConfigurationError
from gpnet_node.model.card import CARD_NAME, read_card
from gpnet_node.model.checkpoint import averaged_weights, load_weights, state_path
from gpnet_node.model.network import GPNet, GPNetConfig
from gpnet_node.model.training.bids import digest
from gpnet_node.model.training.loss import LossSettings, Terms, segmentation_loss
from gpnet_node.model.training.processes import Place, places
from gpnet_node.model.training.train import Run, fit, schedule, train
from gpnet_node.model.training.train_settings import PartSettings, read_settings
from tests.cohorts import write_subject

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = REPOSITORY / "model_weights" / "gpnet-1" / "train.toml"
TINY = GPNetConfig(out_channels=4, filters=(4, 8), gated_levels=(0,), supervised_levels=(0,))


class Blobs(Dataset[tuple[Tensor, Tensor]]):
    """Two noisy cubes, each its class; sample i is the same whenever it is asked for."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.Generator().manual_seed(index)
        labels = torch.zeros(16, 16, 16, dtype=torch.long)
        labels[2:7, 4:12, 4:12], labels[9:14, 4:12, 4:12] = 1, 2
        image = labels.float() + 0.1 * torch.randn(16, 16, 16, generator=noise)
        return image[None], torch.stack([labels, torch.zeros_like(labels)])


def a_loss(scales: list[Tensor], target: Tensor, progress: float) -> Terms:
    return segmentation_loss(scales, target, progress, LossSettings())


def a_run(output: Path, *, steps: int = 8, every: int = 4, batch: int = 1) -> Run:
    output.mkdir(exist_ok=True)
    settings = PartSettings(
        network=TINY,
        steps=steps,
        batch=batch,
        learning_rate=1e-2,
        warm_up=2,
        average=0.8,
        bfloat16=False,
        threads=1,
        save_every=every,
        validate_every=every,
    )
    return Run(
        name="segmenter",
        settings=settings,
        seed=1,
        samples=Blobs(),
        loss=a_loss,
        validate=lambda _: {"Dice": 0.5},
        place=Place(device=torch.device("cpu")),
        output=output,
        recipe={},
    )


class StoppedError(Exception):
    """The run was cut off here."""


@pytest.mark.parametrize("last", [1, 3, 4, 6])
def test_a_stopped_run_ends_in_the_same_weights_as_one_that_was_not(tmp_path: Path, last: int) -> None:
    def stopping(scales: list[Tensor], target: Tensor, progress: float) -> Terms:
        if progress == last / 8:
            raise StoppedError
        return a_loss(scales, target, progress)

    whole = fit(a_run(tmp_path / "whole", every=2))
    stopped = a_run(tmp_path / "stopped", every=2)
    with pytest.raises(StoppedError):
        fit(replace(stopped, loss=stopping))
    resumed = fit(stopped)

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_is_shipped_is_what_fit_returns(tmp_path: Path) -> None:
    run = a_run(tmp_path)

    weights = fit(run)

    kept = averaged_weights(state_path(run.output, run.name))
    assert all(torch.equal(weights[name], kept[name]) for name in weights)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = fit(a_run(tmp_path))

    again = fit(a_run(tmp_path))

    assert all(torch.equal(first[name], again[name]) for name in first)


def test_training_learns_the_blobs(tmp_path: Path) -> None:
    run = a_run(tmp_path, steps=80, every=80)

    network = GPNet(TINY)
    network.load_state_dict(fit(run))
    image, target = Blobs()[12345]

    claimed = network.eval()(image[None])[0, :3].argmax(0)
    assert float((claimed == target[0]).float().mean()) > 0.9


def test_every_line_of_the_log_tells_terms_rate_waiting_and_validation(tmp_path: Path) -> None:
    run = a_run(tmp_path)

    fit(run)

    lines = [json.loads(line) for line in (tmp_path / "segmenter.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    assert lines[1]["terms"].keys() == {"cross_entropy", "tversky", "overlap", "lesion", "boundary", "head_0"}
    assert lines[1]["loss"] == pytest.approx(sum(lines[1]["terms"].values()), abs=1e-4)
    assert 0 <= lines[1]["waiting"] <= 1
    assert lines[1]["validation"] == {"Dice": 0.5}
    assert lines[1]["learning_rate"] == pytest.approx(1e-2 * schedule(7, run.settings))


def test_fine_tuning_starts_from_the_given_weights(tmp_path: Path) -> None:
    trained = fit(a_run(tmp_path / "first", steps=80, every=80))

    tuned = fit(replace(a_run(tmp_path / "second", steps=1), start=trained))

    fresh = fit(a_run(tmp_path / "third", steps=1))
    moved = sum(float((tuned[name] - trained[name]).abs().sum()) for name in trained)
    apart = sum(float((fresh[name] - trained[name]).abs().sum()) for name in trained)
    assert 0 < moved < 0.1 * apart


def test_no_steps_take_the_given_weights_over_as_they_are(tmp_path: Path) -> None:
    trained = fit(a_run(tmp_path / "first"))

    taken = fit(replace(a_run(tmp_path / "second", steps=0), start=trained))

    kept = averaged_weights(state_path(tmp_path / "second", "segmenter"))
    assert all(torch.equal(taken[name], trained[name]) for name in trained)
    assert all(torch.equal(kept[name], trained[name]) for name in trained)


def a_config(folder: Path, model_folder: Path, **cohort: object) -> Path:
    """Settings for two steps from the shipped weights, in small boxes; the localiser is taken over."""
    folder.mkdir()
    card = tomlkit.parse((model_folder / CARD_NAME).read_text(encoding="utf-8"))
    card["box_voxels"] = [32, 40, 32]
    (folder / CARD_NAME).write_text(tomlkit.dumps(card), encoding="utf-8")
    quick = {"batch": 1, "learning_rate": 1e-4, "bfloat16": False, "threads": 1, "save_every": 1}
    settings = {
        "seed": 1,
        "train_people": [],
        "validate_people": [],
        "test_people": [],
        "start": str(model_folder),
        "segmenter": quick | {"steps": 2, "network": card["network"] | {"out_channels": 4}},
        "localiser": quick | {"steps": 0, "network": card["localiser"]},
        "cohort": {"folds": 2, "drawn_share": 0.0} | cohort,
    }
    if cohort.get("second_channel"):
        settings["segmenter"]["network"]["in_channels"] = 2  # type: ignore[index]
    (folder / "train.toml").write_text(tomlkit.dumps(settings), encoding="utf-8")
    return folder / "train.toml"


@pytest.mark.parametrize("second_channel", [False, True])
def test_shipped_weights_are_tuned_on_an_own_cohort(
    tmp_path: Path, model_folder: Path, second_channel: bool
) -> None:
    for name in ("sub-01", "sub-02"):
        write_subject(tmp_path / "cohort", name)
    config = a_config(tmp_path / "tuned", model_folder, second_channel=second_channel)

    missing = train(config, None, tmp_path / "work", cohort=tmp_path / "cohort", device="cpu")

    assert missing == []
    shipped = load_weights(model_folder, read_card(model_folder))
    card = read_card(config.parent)
    tuned = load_weights(config.parent, card)
    same = [name for name in shipped if tuned[name].shape == shipped[name].shape]
    assert all(torch.equal(tuned[name], shipped[name]) for name in same if name.startswith("localiser."))
    moved = [float((tuned[n] - shipped[n]).abs().max()) for n in same if n.startswith("segmenter.")]
    assert 0 < max(moved) < 1e-2
    history = card.training["history"]["segmenter"]  # type: ignore[index]
    assert history[0]["settings"]["cohort"]["sha256"] == digest(tmp_path / "cohort")
    assert "sub-0" not in (config.parent / CARD_NAME).read_text(encoding="utf-8")
    lines = (tmp_path / "work" / "segmenter.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["validation"].keys() == {"Dice GPe", "Dice GPi", "Dice GP"}
    assert (config.parent / "curves.png").is_file()


def test_samples_cannot_be_drawn_without_atlases(tmp_path: Path, model_folder: Path) -> None:
    config = a_config(tmp_path / "drawn", model_folder)
    text = config.read_text(encoding="utf-8").replace("train_people = []", 'train_people = ["01"]')
    config.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match="--atlases"):
        train(config, None, tmp_path / "work", device="cpu")


def test_channels_of_cohort_and_network_must_agree(tmp_path: Path, model_folder: Path) -> None:
    config = a_config(tmp_path / "tuned", model_folder, second_channel=True)
    text = config.read_text(encoding="utf-8").replace("in_channels = 2", "in_channels = 1")
    config.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match="in_channels must be 2"):
        read_settings(config)


def test_two_processes_train_the_same_network_as_one(tmp_path: Path) -> None:
    """As torchrun starts them; gradients are summed in another order, so not to the last bit."""
    alone = fit(a_run(tmp_path / "alone", steps=4, batch=2))
    script = (
        "import os, sys, torch; from pathlib import Path; from dataclasses import replace\n"
        "from gpnet_node.model.training.processes import places\n"
        "from gpnet_node.model.training.train import fit\n"
        "from tests.test_train import a_run\n"
        "with places('cpu', os.environ) as place:\n"
        "    fit(replace(a_run(Path(sys.argv[1]), steps=4, batch=2), place=place))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "both")],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=REPOSITORY,
        )
        for rank in range(2)
    ]

    assert [process.wait(timeout=240) for process in processes] == [0, 0]

    together = averaged_weights(state_path(tmp_path / "both", "segmenter"))
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-5)


def test_a_batch_that_cannot_be_divided_among_the_processes_is_refused(tmp_path: Path) -> None:
    three = Place(device=torch.device("cpu"), rank=0, count=3)

    with pytest.raises(ConfigurationError, match="batch of 2 cannot be divided among 3"):
        fit(replace(a_run(tmp_path, batch=2), place=three))


def test_one_process_computes_where_it_was_asked_to() -> None:
    with places("cpu", {}) as place:
        assert place == Place(device=torch.device("cpu"), rank=0, count=1)


def test_the_learning_rate_rises_then_falls_to_zero(tmp_path: Path) -> None:
    settings = a_run(tmp_path, steps=100, every=100).settings

    rates = [schedule(step, settings) for step in range(100)]

    assert rates[0] < rates[1] <= 1
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.01


def test_people_of_training_validation_and_test_are_kept_apart() -> None:
    settings = read_settings(SETTINGS)

    groups = [settings.train_people, settings.validate_people, settings.test_people]

    assert sum(map(len, groups)) == len({person for group in groups for person in group}) == 20


@pytest.mark.parametrize(
    ("line", "table"),
    [("lerning_rate = 1", "segmenter"), ("overlapp = 1", "loss"), ("filterz = [4]", "segmenter.network")],
)
def test_an_unknown_setting_is_named_with_its_line(tmp_path: Path, line: str, table: str) -> None:
    text = SETTINGS.read_text(encoding="utf-8").replace(f"[{table}]", f"[{table}]\n{line}", 1)
    path = tmp_path / "train.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=rf"train.toml, line \d+: .*{line.split(' ', 1)[0]}"):
        read_settings(path)
