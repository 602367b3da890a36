import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpnet_node.errors import ConfigurationError, WeightsMismatchError
from gpnet_node.model.card import WEIGHTS_NAME, read_card
from gpnet_node.model.checkpoint import load_weights


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
