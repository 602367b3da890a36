"""Train GP-net and its localiser on drawn images; a run that is stopped goes on where it was.

``train.toml`` holds every setting. Sample number i follows from (seed, i) alone, so a resumed run sees the
same images as one that was never stopped.
"""

import hashlib
import json
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tomlkit
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from gpnet_node.errors import ConfigurationError
from gpnet_node.model import atlas, evaluate, synthesise
from gpnet_node.model.card import CARD_NAME, WEIGHTS_NAME, read_card
from gpnet_node.model.checkpoint import load_state, save_state
from gpnet_node.model.localise import LOCALISER_SHAPE, LOCALISER_SPACING_MM, heat_target, localiser_loss
from gpnet_node.model.network import GPNet, GPNetConfig
from gpnet_node.model.segment import GPNetSegmenter

# Solomon 2021: weight of false positives and of false negatives for background, GPe, GPi.
TVERSKY_ALPHA = (0.7, 0.4, 0.4)
TVERSKY_BETA = (0.3, 0.6, 0.6)
HEAD_WEIGHT = (
    0.5  # deep supervision: of the finest head beside the joined output, halved for each coarser one
)

Part = Literal["segmenter", "localiser"]
Sample = tuple[Tensor, Tensor]
Loss = Callable[[list[Tensor], Tensor], Tensor]


class PartSettings(BaseModel):
    """How one network is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int
    batch: int
    learning_rate: float
    filters: tuple[int, ...]
    gated_levels: tuple[int, ...]
    supervised_levels: tuple[int, ...]
    out_channels: int
    warm_up: int = 100
    weight_decay: float = 1e-5
    average: float = 0.995  # decay of the running mean of the weights, which is what is shipped
    checkpoint_every: int = 100


class TrainSettings(BaseModel):
    """``train.toml``: who is trained on, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int
    train_people: tuple[str, ...]
    validate_people: tuple[str, ...]
    test_people: tuple[str, ...]
    bfloat16: bool
    segmenter: PartSettings
    localiser: PartSettings


def read_settings(path: Path) -> TrainSettings:
    """Raises ConfigurationError naming file and key."""
    try:
        return TrainSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as exc:
        raise ConfigurationError(f"{path}: {exc}") from exc


def train(
    config: Path, atlases: Path, work: Path, *, device: str = "cpu", heads: int = 10
) -> list[dict[str, object]]:
    """Train both networks and write weights and card beside ``config``; the figures on held-out people.

    ``atlases`` holds the label maps (synthseg/, allen/, bigbrain/); ``work`` keeps anatomies and training
    state, so that a run that was stopped goes on. Raises ConfigurationError.
    """
    settings = read_settings(config)
    folder, card = config.parent, read_card(config.parent)
    people = settings.train_people + settings.validate_people + settings.test_people
    with _progress() as bar:
        task = bar.add_task("anatomies", total=len(people), loss=0.0)
        atlas.build(atlases, people, work / "anatomies", lambda _: bar.advance(task))
    cache, place = work / "anatomies", torch.device(device)
    boxes = BoxSamples(cache, settings.train_people, card.box_voxels, settings.seed)
    slabs = HeadSamples(cache, settings.train_people, settings.seed)
    runs: tuple[tuple[Part, Dataset[Sample], Loss], ...] = (
        ("segmenter", boxes, segmentation_loss),
        ("localiser", slabs, localiser_loss),
    )
    tensors: dict[str, Tensor] = {}
    for name, samples, loss in runs:
        part = settings.segmenter if name == "segmenter" else settings.localiser
        run = Run(
            name=name,
            settings=part,
            samples=samples,
            loss=loss,
            device=place,
            bfloat16=settings.bfloat16,
            output=work,
        )
        tensors |= {f"{name}.{key}": value.cpu().contiguous() for key, value in fit(run).items()}
    save_file(tensors, folder / WEIGHTS_NAME)
    write_card(folder, settings, figures=[])
    scores = list(evaluate.score(GPNetSegmenter(folder, device=device), cache, settings.test_people, heads))
    figures = evaluate.summarise(scores, card)
    write_card(folder, settings, figures)
    return figures


def write_card(folder: Path, settings: TrainSettings, figures: list[dict[str, object]]) -> None:
    """Bring the card up to what was trained: hash, networks, people, figures; the rest stays as written."""
    path = folder / CARD_NAME
    card = tomlkit.parse(path.read_text(encoding="utf-8"))
    card["weights_sha256"] = hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()
    for name, part in (("network", settings.segmenter), ("localiser", settings.localiser)):
        card[name] = asdict(network_config(part))
    card["training"] = {
        "seed": settings.seed,
        "train_people": list(settings.train_people),
        "test_people": list(settings.test_people),
        "segmenter_steps": settings.segmenter.steps,
        "localiser_steps": settings.localiser.steps,
    }
    card["figures"] = figures
    path.write_text(tomlkit.dumps(card), encoding="utf-8")


class BoxSamples(Dataset[Sample]):
    """Boxes of one side: image (1, z, y, x), labels (z, y, x) int64."""

    def __init__(self, cache: Path, people: tuple[str, ...], shape: tuple[int, int, int], seed: int) -> None:
        self.sides = [side for person in people for side in atlas.load(cache, person)]
        self.shape, self.seed = shape, seed

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index`` of the endless row."""
        rng = np.random.default_rng([self.seed, index])
        anatomy = self.sides[rng.integers(len(self.sides))]
        image, labels = synthesise.draw_box(anatomy, rng, self.shape, synthesise.DrawSettings())
        return image[None], labels.long()


class HeadSamples(Dataset[Sample]):
    """Whole heads and slabs: image (1, z, y, x), target (2, z * y * x + 1) that sums to one per side."""

    def __init__(self, cache: Path, people: tuple[str, ...], seed: int) -> None:
        self.heads = [atlas.load_head(cache, person) for person in people]
        self.seed = seed

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index`` of the endless row."""
        rng = np.random.default_rng([self.seed, 1, index])
        image, centres = synthesise.draw_head(
            *self.heads[rng.integers(len(self.heads))],
            rng,
            shape=LOCALISER_SHAPE,
            spacing_mm=LOCALISER_SPACING_MM,
            settings=synthesise.DrawSettings(),
        )
        return image[None], heat_target(centres)


def segmentation_loss(scales: list[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy and multi-class Tversky on the joined output; cross-entropy on each head."""
    joined = scales[0].float()
    loss = functional.cross_entropy(joined, labels) + tversky_loss(joined, labels)
    for level, head in enumerate(scales[1:]):
        loss = loss + HEAD_WEIGHT * 0.5**level * functional.cross_entropy(head.float(), labels)
    return loss


def tversky_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - mean Tversky index over classes (Salehi 2017), weights as in Solomon 2021."""
    probability = logits.softmax(1)
    truth = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(probability.dtype)
    axes = (0, 2, 3, 4)
    hit = (probability * truth).sum(axes)
    false_positive = (probability * (1 - truth)).sum(axes)
    false_negative = ((1 - probability) * truth).sum(axes)
    alpha, beta = (torch.tensor(w, device=logits.device) for w in (TVERSKY_ALPHA, TVERSKY_BETA))
    return 1 - (hit / (hit + alpha * false_positive + beta * false_negative + 1e-6)).mean()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network, its samples and its loss."""

    name: Part
    settings: PartSettings
    samples: Dataset[Sample]
    loss: Loss
    device: torch.device
    bfloat16: bool
    output: Path


def fit(run: Run) -> dict[str, Tensor]:
    """Train to the last step, resuming from ``output/NAME.state.safetensors``; the averaged weights."""
    settings = run.settings
    torch.manual_seed(0)
    network = build(settings).to(run.device)
    averaged = build(settings).to(run.device).requires_grad_(requires_grad=False)
    averaged.load_state_dict(network.state_dict())  # one start for both
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    state = run.output / f"{run.name}.state.safetensors"
    done = load_state(state, network=network, averaged=averaged, optimiser=optimiser) if state.exists() else 0
    order = range(done * settings.batch, settings.steps * settings.batch)
    batches = iter(DataLoader(run.samples, settings.batch, sampler=order, num_workers=1, prefetch_factor=4))
    waited, began, recent = 0.0, time.monotonic(), 0.0
    with _progress() as bar, (run.output / f"{run.name}.jsonl").open("a", encoding="utf-8") as log:
        task = bar.add_task(run.name, total=settings.steps, completed=done, loss=0.0)
        for step in range(done, settings.steps):
            asked = time.monotonic()
            image, target = (part.to(run.device) for part in next(batches))
            waited += time.monotonic() - asked
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * schedule(step, settings)
            with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=run.bfloat16):
                scales = network.scales(image)
            loss = run.loss(scales, target)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            _average(averaged, network, min(settings.average, (step + 1) / (step + 10)))
            recent = loss.item() if step == done else 0.98 * recent + 0.02 * loss.item()
            bar.update(task, advance=1, loss=recent)
            if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
                save_state(state, step=step + 1, network=network, averaged=averaged, optimiser=optimiser)
                share = waited / (time.monotonic() - began)
                log.write(
                    json.dumps({"step": step + 1, "loss": round(recent, 4), "waiting": round(share, 3)})
                    + "\n"
                )
                log.flush()
    return averaged.state_dict()


def build(settings: PartSettings) -> GPNet:
    """The network that the settings describe, freshly initialised."""
    return GPNet(network_config(settings))


def network_config(settings: PartSettings) -> GPNetConfig:
    """Its sizes, as the card keeps them."""
    return GPNetConfig(
        out_channels=settings.out_channels,
        filters=settings.filters,
        gated_levels=settings.gated_levels,
        supervised_levels=settings.supervised_levels,
    )


def schedule(step: int, settings: PartSettings) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to zero."""
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (step - settings.warm_up) / (settings.steps - settings.warm_up))))


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"))
