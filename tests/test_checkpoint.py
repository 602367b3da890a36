import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpnet_node.errors import ConfigurationError, WeightsMismatchError
from gpnet_node.model.card import WEIGHTS_NAME, read_card
from gpnet_node.model.checkpoint import (
    TrainingState,
    load_state,
    load_weights,
    read_progress,
    save_state,
    take_over,
)
from gpnet_node.model.network import GPNet, GPNetConfig


def test_the_shipped_weights_are_the_cards(model_folder: Path) -> None:
    card = read_card(model_folder)

    load_weights(model_folder, card)

    assert hashlib.sha256((model_folder / WEIGHTS_NAME).read_bytes()).hexdigest() == card.weights_sha256


def test_other_weights_are_refused_by_their_hash(model_folder: Path, tmp_path: Path) -> None:
    shutil.copy(model_folder / "card.toml", tmp_path)
    save_file({"segmenter.join.bias": torch.zeros(3)}, tmp_path / WEIGHTS_NAME)

    with pytest.raises(WeightsMismatchError, match="SHA-256"):
        load_weights(tmp_path, read_card(tmp_path))


def test_one_changed_byte_is_another_file(model_folder: Path, tmp_path: Path) -> None:
    shutil.copy(model_folder / "card.toml", tmp_path)
    content = bytearray((model_folder / WEIGHTS_NAME).read_bytes())
    content[-1] ^= 1
    (tmp_path / WEIGHTS_NAME).write_bytes(content)

    with pytest.raises(WeightsMismatchError):
        load_weights(tmp_path, read_card(tmp_path))


def test_missing_weights_are_named(model_folder: Path, tmp_path: Path) -> None:
    shutil.copy(model_folder / "card.toml", tmp_path)

    with pytest.raises(ConfigurationError, match=WEIGHTS_NAME):
        load_weights(tmp_path, read_card(tmp_path))


def a_network(out_channels: int = 4, **changed: object) -> GPNet:
    sizes: dict[str, object] = {"filters": (4, 8), "gated_levels": (0,), "supervised_levels": (0,)}
    return GPNet(GPNetConfig(out_channels=out_channels, **(sizes | changed)))  # type: ignore[arg-type]


def test_weights_of_the_same_network_are_taken_over_whole() -> None:
    old, new = a_network(), a_network()

    assert take_over(new, old.state_dict()) == []
    assert all(torch.equal(old.state_dict()[name], value) for name, value in new.state_dict().items())


@pytest.mark.parametrize("stem", [1, 2])
def test_classes_that_both_networks_have_are_taken_over(stem: int) -> None:
    levels = (0, 1)
    sizes: dict[str, object] = {"filters": (4, 8, 8), "supervised_levels": levels, "stem": stem}
    known = 3 * stem**3  # the finest head answers for each voxel of a block
    old, new = a_network(3, **sizes), a_network(4, **sizes)
    fresh = {name: value.clone() for name, value in new.state_dict().items()}

    partial = take_over(new, old.state_dict())

    before, after = old.state_dict(), new.state_dict()
    assert {"heads.0.weight", "heads.1.bias", "join.weight", "join.bias"} <= set(partial)
    assert torch.equal(after["heads.0.weight"][:known], before["heads.0.weight"])
    assert torch.equal(after["heads.0.weight"][known:], fresh["heads.0.weight"][known:])
    for level in levels:  # join's inputs are the classes of one head after the other
        mine = after["join.weight"][:3, 4 * level : 4 * level + 3]
        assert torch.equal(mine, before["join.weight"][:, 3 * level : 3 * level + 3])


def test_weights_of_another_network_are_refused_by_name() -> None:
    wider = a_network(filters=(6, 8)).state_dict()
    less = a_network().state_dict()
    del less["gating.weight"]

    with pytest.raises(
        ConfigurationError, match=r"encoder\S+ is \(6, 8, 3, 3, 3\), wanted \(4, 8, 3, 3, 3\)"
    ):
        take_over(a_network(), wider)
    with pytest.raises(ConfigurationError, match=r"gating\.weight is missing"):
        take_over(a_network(), less)


def a_state(network: GPNet) -> TrainingState:
    optimiser = torch.optim.AdamW(network.parameters())
    return TrainingState(network=network, averaged=a_network(), optimiser=optimiser)


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "segmenter.state.safetensors"
    save_state(path, a_state(a_network()), step=3, history=[{"from_step": 0}])

    with pytest.raises(ConfigurationError, match="another network"):
        load_state(path, a_state(a_network(filters=(6, 8))))


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "segmenter.state.safetensors"
    path.write_bytes(b"nothing of the kind")

    with pytest.raises(ConfigurationError, match="not a training state"):
        load_state(path, a_state(a_network()))


def test_a_state_remembers_its_steps_and_who_did_them(tmp_path: Path) -> None:
    path = tmp_path / "segmenter.state.safetensors"
    history: list[dict[str, object]] = [{"from_step": 0, "code": "0.1.0"}]

    save_state(path, a_state(a_network()), step=7, history=history)

    assert read_progress(path) == (7, history)
    assert load_state(path, a_state(a_network())) == (7, history)
    assert list(tmp_path.iterdir()) == [path]
