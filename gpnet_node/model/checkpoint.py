"""Weights and training state on disk, as safetensors: nothing that is loaded can run code."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from gpnet_node.errors import ConfigurationError, WeightsMismatchError
from gpnet_node.model.card import WEIGHTS_NAME, ModelCard
from gpnet_node.model.network import GPNet

_OUTPUTS = ("heads.", "join.")  # layers whose channels are the classes
_INPUT = "encoder.0.0."  # the layer that sees the image


def load_weights(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """Tensors of ``folder/weights.safetensors``.

    Raises WeightsMismatchError unless the file's SHA-256 is the card's, and where the file says that it was
    trained for other labels or another grid: other weights are other results.
    """
    path = folder / WEIGHTS_NAME
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot read the weights: {exc.strerror}") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != card.weights_sha256:
        raise WeightsMismatchError(f"{path}: SHA-256 is {found}, but the card names {card.weights_sha256}")
    tensors = load(content)
    with safe_open(path, framework="pt") as file:
        written = file.metadata() or {}
    for key, wanted in weights_metadata(card).items():
        if key in written and written[key] != wanted:
            raise WeightsMismatchError(f"{path}: {key} is {written[key]}, but the card says {wanted}")
    return tensors


def weights_metadata(card: ModelCard) -> dict[str, str]:
    """What the weights mean, to be written into their file: labels and grid, as the card has them."""
    structures = [[s.number, s.name, s.side, s.channel] for s in card.structures]
    return {
        "structures": json.dumps(structures),
        "spacing_mm": json.dumps(card.spacing_mm),
        "box_voxels": json.dumps(card.box_voxels),
    }


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors below ``name.``, without that prefix."""
    return {
        key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")
    }


def take_over(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Start ``network`` from other weights; names of the layers taken over in part only.

    Output layers may have another number of classes: those that both have are taken over, the rest stays as
    it was. The network may have more input channels: the new ones start with zero weight. Raises
    ConfigurationError naming every other tensor that is missing or of another shape.
    """
    own = network.state_dict()
    partial = []
    faults = [f"{name} is not known here" for name in weights if name not in own]
    for name, value in own.items():
        if name not in weights:
            faults.append(f"{name} is missing")
        elif weights[name].shape == value.shape:
            value.copy_(weights[name])
        elif name.startswith(_OUTPUTS) and _same_features(name, weights[name], value):
            _copy_classes(weights[name], value)
            partial.append(name)
        elif name.startswith(_INPUT) and _fewer_inputs(weights[name], value):
            value.zero_()  # a new channel starts without a say
            value[:, : weights[name].shape[1]] = weights[name]
            partial.append(name)
        else:
            faults.append(f"{name} is {tuple(weights[name].shape)}, wanted {tuple(value.shape)}")
    if faults:
        raise ConfigurationError(f"weights to start from do not fit: {'; '.join(faults)}")
    return partial


def _same_features(name: str, old: Tensor, new: Tensor) -> bool:
    """Whether two output layers differ in their classes only; join's inputs are the classes of each head."""
    if name == "join.weight":
        return old.shape[1] // old.shape[0] == new.shape[1] // new.shape[0]
    return old.shape[1:] == new.shape[1:]


def _fewer_inputs(old: Tensor, new: Tensor) -> bool:
    return old.ndim == new.ndim and old.shape[1] < new.shape[1] and old[:, :1].shape == new[:, :1].shape


def _copy_classes(old: Tensor, new: Tensor) -> None:
    classes = min(len(old), len(new))
    if old.shape[1:] == new.shape[1:]:
        new[:classes] = old[:classes]
        return
    per_head = [t.view(len(t), t.shape[1] // len(t), len(t), *t.shape[2:]) for t in (old, new)]
    per_head[1][:classes, :, :classes] = per_head[0][:classes, :, :classes]


def state_path(work: Path, name: str) -> Path:
    """Where the training state of one network is kept."""
    return work / f"{name}.state.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What changes while a network is trained."""

    network: GPNet
    averaged: GPNet
    optimiser: torch.optim.Optimizer


def save_state(path: Path, state: TrainingState, *, step: int, history: list[dict[str, object]]) -> None:
    """Everything that a resumed run needs to go on as if it had not stopped; replaced in one move.

    ``history``: which code and settings it was trained with, from which step on.
    """
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"averaged.{name}": value for name, value in state.averaged.state_dict().items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    partial = path.with_suffix(".partial")
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        partial,
        {"step": str(step), "history": json.dumps(history)},
    )
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(path)


def read_progress(path: Path) -> tuple[int, list[dict[str, object]]]:
    """Steps done and history of a state. Raises ConfigurationError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return int(metadata["step"]), json.loads(metadata["history"])
    except (OSError, SafetensorError, KeyError, ValueError) as exc:
        raise ConfigurationError(f"{path}: not a training state: {exc}") from exc


def load_state(path: Path, state: TrainingState) -> tuple[int, list[dict[str, object]]]:
    """Restore what :func:`save_state` wrote; the number of steps done, and the history.

    Raises ConfigurationError where it is no state, or the state of another network.
    """
    step, history = read_progress(path)
    tensors = load_file(path)
    try:
        state.network.load_state_dict(part(tensors, "network"))
        state.averaged.load_state_dict(part(tensors, "averaged"))
    except RuntimeError as exc:  # torch says so where names or shapes differ
        raise ConfigurationError(f"{path}: the state of another network: {exc}") from exc
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part(tensors, "optimiser").items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    return step, history


def averaged_weights(path: Path) -> dict[str, Tensor]:
    """The weights that a state would ship."""
    return part(load_file(path), "averaged")
