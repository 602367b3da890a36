"""Weights and training state on disk, as safetensors: nothing that is loaded can run code."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from gpnet_node.errors import ConfigurationError, WeightsMismatchError
from gpnet_node.model.card import WEIGHTS_NAME, ModelCard


def load_weights(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """Tensors of ``folder/weights.safetensors``.

    Raises WeightsMismatchError unless the file's SHA-256 is the card's: other weights are other results.
    """
    path = folder / WEIGHTS_NAME
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot read the weights: {exc.strerror}") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != card.weights_sha256:
        raise WeightsMismatchError(f"{path}: SHA-256 is {found}, but the card names {card.weights_sha256}")
    return load(content)


def part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors below ``name.``, without that prefix."""
    return {
        key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")
    }


def save_state(
    path: Path, *, step: int, network: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Everything that a resumed run needs to go on as if it had not stopped; replaced in one move."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"averaged.{name}": value for name, value in averaged.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    partial = path.with_suffix(".partial")
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        partial,
        {"step": str(step)},
    )
    partial.rename(path)


def load_state(
    path: Path, *, network: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    """Restore what :func:`save_state` wrote; the number of steps done."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise ConfigurationError(f"{path}: not a training state: {exc}") from exc
    network.load_state_dict(part(tensors, "network"))
    averaged.load_state_dict(part(tensors, "averaged"))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part(tensors, "optimiser").items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(moments[0]["step"].item())
