"""Write what was trained beside its settings: weights, and in the card where they come from."""

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import tomlkit
from safetensors.torch import save

from gpnet_node.model.card import CARD_NAME, WEIGHTS_NAME, read_card
from gpnet_node.model.checkpoint import averaged_weights, read_progress, state_path, weights_metadata
from gpnet_node.model.training.train_settings import PARTS, Part, TrainSettings, recipe


def unfinished(settings: TrainSettings, work: Path) -> list[Part]:
    """Networks whose training state is not there, or not at its last step."""
    missing = []
    for name in PARTS:
        path = state_path(work, name)
        if not path.exists() or read_progress(path)[0] < settings.part(name).steps:
            missing.append(name)
    return missing


def ship(folder: Path, settings: TrainSettings, work: Path) -> None:
    """Write ``folder/weights.safetensors`` and bring the card up to it.

    Hash, networks and training are replaced, and the table [quality] is dropped: it was fitted to other
    weights. The rest of the card stays as a person wrote it.
    """
    tensors = {
        f"{name}.{key}": value
        for name in PARTS
        for key, value in averaged_weights(state_path(work, name)).items()
    }
    partial = folder / f"{WEIGHTS_NAME}.partial"
    partial.write_bytes(save(tensors, weights_metadata(read_card(folder))))
    partial.replace(folder / WEIGHTS_NAME)
    card = tomlkit.parse((folder / CARD_NAME).read_text(encoding="utf-8"))
    card["weights_sha256"] = hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()
    card.pop("quality", None)
    card["network"] = asdict(settings.segmenter.network)
    card["localiser"] = asdict(settings.localiser.network)
    card["training"] = settings.model_dump(mode="json", exclude_none=True, exclude={"cohort"}) | {
        "data_sha256": data_digest(work / "anatomies", settings.train_people),
        "history": {name: _history(settings, work, name) for name in PARTS},
    }
    (folder / CARD_NAME).write_text(tomlkit.dumps(card), encoding="utf-8")


def _history(settings: TrainSettings, work: Path, name: Part) -> list[dict[str, object]]:
    """Which code did which steps; and its settings, where they were not those of the end, or had a cohort."""
    runs = read_progress(state_path(work, name))[1]
    final = recipe(settings, name)
    return [{k: v for k, v in run.items() if k != "settings" or v != final} for run in runs]


def data_digest(cache: Path, people: Sequence[str]) -> str:
    """SHA-256 over the anatomies that were drawn from, in the order of the people; none for an own cohort."""
    digest = hashlib.sha256()
    for path in (cache / f"{person}.npz" for person in people):
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def code_version() -> str:
    """Version of the package, and the commit where it runs from a checkout."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # installed, or no git here
        return version("gpnet_node")
    return f"{version('gpnet_node')} ({commit})"
