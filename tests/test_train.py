from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gpnet_node.errors import ConfigurationError
from gpnet_node.model import train
from gpnet_node.model.train import (
    PartSettings,
    Run,
    fit,
    read_settings,
    schedule,
    segmentation_loss,
    tversky_loss,
)
from tests.drawn import MODEL


class Blobs(Dataset[tuple[Tensor, Tensor]]):
    """Two noisy cubes, each its class; sample i is the same whenever it is asked for."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.Generator().manual_seed(index)
        labels = torch.zeros(16, 16, 16, dtype=torch.long)
        labels[2:7, 4:12, 4:12], labels[9:14, 4:12, 4:12] = 1, 2
        return (labels.float() + 0.1 * torch.randn(16, 16, 16, generator=noise))[None], labels


def a_run(output: Path, *, steps: int, every: int) -> Run:
    settings = PartSettings(
        steps=steps,
        batch=1,
        learning_rate=1e-2,
        filters=(4, 8),
        gated_levels=(0,),
        supervised_levels=(0,),
        out_channels=3,
        warm_up=2,
        average=0.8,
        checkpoint_every=every,
    )
    return Run(
        name="segmenter",
        settings=settings,
        samples=Blobs(),
        loss=segmentation_loss,
        device=torch.device("cpu"),
        bfloat16=False,
        output=output,
    )


class StoppedError(Exception):
    """The run was cut off here."""


def test_a_stopped_run_ends_in_the_same_weights_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = fit(a_run(tmp_path / "whole", steps=8, every=4))

    with monkeypatch.context() as patch:
        patch.setattr(train, "schedule", _stops_at(6))
        with pytest.raises(StoppedError):
            fit(a_run(tmp_path / "stopped", steps=8, every=4))
    resumed = fit(a_run(tmp_path / "stopped", steps=8, every=4))

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def _stops_at(last: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    def stopping(step: int, settings: PartSettings) -> float:
        if step == last:
            raise StoppedError
        return schedule(step, settings)

    return stopping


def test_training_learns_the_blobs(tmp_path: Path) -> None:
    run = a_run(tmp_path, steps=60, every=60)

    network = train.build(run.settings)
    network.load_state_dict(fit(run))
    image, labels = Blobs()[12345]

    assert float((network.eval()(image[None])[0].argmax(0) == labels).float().mean()) > 0.9


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_a_lot() -> None:
    _, labels = Blobs()[0]
    perfect = 50 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 0).float()[None]

    assert float(tversky_loss(perfect, labels[None])) == pytest.approx(0, abs=1e-3)
    assert float(tversky_loss(perfect.flip(1), labels[None])) > 0.6


def test_the_learning_rate_rises_then_falls_to_zero(tmp_path: Path) -> None:
    settings = a_run(tmp_path, steps=100, every=100).settings

    rates = [schedule(step, settings) for step in range(100)]

    assert rates[0] < rates[1] <= 1
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.01


def test_people_of_training_validation_and_test_are_kept_apart() -> None:
    settings = read_settings(MODEL / "train.toml")

    groups = [settings.train_people, settings.validate_people, settings.test_people]

    assert sum(map(len, groups)) == len({person for group in groups for person in group}) == 20


def test_an_unknown_setting_stops_the_training(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(
        (MODEL / "train.toml").read_text(encoding="utf-8") + "\nlerning_rate = 1\n", encoding="utf-8"
    )

    with pytest.raises(ConfigurationError, match="lerning_rate"):
        read_settings(path)
