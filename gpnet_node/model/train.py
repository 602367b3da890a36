"""Train GP-net and its localiser on drawn images; a run that is stopped goes on where it was.

``train.toml`` holds every setting. Sample number i follows from (seed, i) alone, so a resumed run sees the
same images as one that was never stopped, and several GPUs together see the same as one.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.metrics.meandice import compute_dice
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from gpnet_node.errors import ConfigurationError
from gpnet_node.model import atlas
from gpnet_node.model.card import read_card
from gpnet_node.model.checkpoint import (
    TrainingState,
    load_state,
    load_weights,
    part,
    save_state,
    state_path,
    take_over,
)
from gpnet_node.model.curves import Journal, draw_curves, read_journal
from gpnet_node.model.localise import localiser_loss
from gpnet_node.model.loss import UNDIVIDED, Terms, segmentation_loss
from gpnet_node.model.network import GPNet
from gpnet_node.model.release import code_version, ship, unfinished
from gpnet_node.model.samples import BoxSamples, LocaliserSamples, Sample
from gpnet_node.model.synthesise import GPE, GPI
from gpnet_node.model.train_settings import PARTS, Part, PartSettings, TrainSettings, read_settings, recipe

Loss = Callable[[list[Tensor], Tensor, float], Terms]  # scales, target, share of the steps that is done


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process computes, and which of how many processes it is."""

    device: torch.device
    rank: int = 0
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network, its samples and its loss. ``start``: weights to begin from; ``output``: folder of states.

    ``validate``: figures of a network on held-out samples, by name. ``recipe``: settings as they are recorded
    with the state.
    """

    name: Part
    settings: PartSettings
    seed: int
    samples: Dataset[Sample]
    loss: Loss
    validate: Callable[[GPNet], dict[str, float]]
    place: Place
    output: Path
    recipe: Mapping[str, object]
    start: Mapping[str, Tensor] | None = None


def train(
    config: Path, atlases: Path, work: Path, *, only: Part | None = None, device: str = "auto"
) -> list[Part]:
    """Train both networks, or one; the names of those whose steps are not all done yet.

    ``atlases`` holds the label maps (synthseg/, allen/, bigbrain/); ``work`` keeps anatomies and training
    state, so that a run that was stopped goes on. Beside ``config`` go curves.png and, when both networks are
    done, weights and card. Raises ConfigurationError.
    """
    settings = read_settings(config)
    people = settings.train_people + settings.validate_people
    with places(device, os.environ) as place:
        if place.rank == 0:
            with _progress() as bar:
                task = bar.add_task("anatomies", total=len(people))
                atlas.build(atlases, people, work / "anatomies", lambda _: bar.advance(task))
        _meet(place)
        for name in [only] if only else PARTS:
            fit(run_of(name, settings, config.parent, work, place))
        missing = unfinished(settings, work)
        if place.rank == 0:
            journals = {str(name): read_journal(work / f"{name}.jsonl") for name in PARTS}
            draw_curves(journals, config.parent / "curves.png")
            if not missing:
                ship(config.parent, settings, work)
    return missing


def run_of(name: Part, settings: TrainSettings, folder: Path, work: Path, place: Place) -> Run:
    """What the settings in ``folder`` say about one network, put together."""
    cache, seed = work / "anatomies", settings.seed
    count = settings.part(name).validation_samples
    if name == "segmenter":
        shape = read_card(folder).box_voxels
        samples: Dataset[Sample] = BoxSamples(
            _sides(cache, settings.train_people), shape, settings.draw, seed, varied=True
        )
        boxes = BoxSamples(_sides(cache, settings.validate_people), shape, settings.draw, seed, varied=False)
        loss: Loss = partial(segmentation_loss, settings=settings.loss)
        validate = partial(mean_dice, samples=[boxes[i] for i in range(count)], device=place.device)
    else:
        samples = LocaliserSamples(cache, settings.train_people, seed)
        slabs = LocaliserSamples(cache, settings.validate_people, seed)
        loss = _slab_loss
        validate = partial(mean_loss, samples=[slabs[i] for i in range(count)], device=place.device)
    start = None
    if settings.start is not None:
        origin = folder / settings.start
        start = part(load_weights(origin, read_card(origin)), name)
    return Run(
        name=name,
        settings=settings.part(name),
        seed=seed,
        samples=samples,
        loss=loss,
        validate=validate,
        place=place,
        output=work,
        recipe=recipe(settings, name),
        start=start,
    )


def _sides(cache: Path, people: tuple[str, ...]) -> list[atlas.Anatomy]:
    return [side for person in people for side in atlas.load(cache, person)]


def fit(run: Run) -> dict[str, Tensor]:
    """Train to the last step, resuming from the state in ``output``; the averaged weights."""
    settings, place = run.settings, run.place
    torch.set_num_threads(settings.threads)
    state, done, history = begin(run)
    network, optimiser = state.network, state.optimiser
    batches = iter(_batches(run, done))
    model = _shared_among(network, place)
    path, journal = state_path(run.output, run.name), Journal(run.output / f"{run.name}.jsonl")
    with _progress(quiet=place.rank > 0) as bar:
        task = bar.add_task(run.name, total=settings.steps, completed=done)
        for step in range(done, settings.steps):
            image, target = (t.to(place.device, non_blocking=True) for t in journal.wait_for(batches))
            rate = settings.learning_rate * schedule(step, settings)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast(place.device.type, dtype=torch.bfloat16, enabled=settings.bfloat16):
                scales = model(image)
            terms = run.loss(scales, target, step / settings.steps)
            optimiser.zero_grad()
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimiser.step()
            average(state.averaged, network, min(settings.average, (step + 1) / (step + 10)))
            journal.add(terms)
            bar.advance(task)
            last = step + 1 == settings.steps
            if place.rank == 0 and (last or (step + 1) % settings.save_every == 0):
                judged = last or (step + 1) % settings.validate_every == 0
                figures = run.validate(state.averaged) if judged else {}
                bar.console.print(f"{run.name} {journal.write(step + 1, rate, figures)}", highlight=False)
                save_state(path, state, step=step + 1, history=history)
                journal.restart_clock()
    if done == settings.steps == 0 and place.rank == 0:
        save_state(path, state, step=0, history=history)
    _meet(place)
    return state.averaged.state_dict()


def begin(run: Run) -> tuple[TrainingState, int, list[dict[str, object]]]:
    """Networks and optimiser as they were left, or fresh; steps done; which code did which steps how."""
    settings, device = run.settings, run.place.device
    torch.manual_seed(run.seed)
    network, averaged = (GPNet(settings.network).to(device) for _ in range(2))
    averaged.requires_grad_(requires_grad=False)
    partial_layers = take_over(network, run.start) if run.start is not None else []
    averaged.load_state_dict(network.state_dict())  # one start for both
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    state = TrainingState(network=network, averaged=averaged, optimiser=optimiser)
    path, done = state_path(run.output, run.name), 0
    history: list[dict[str, object]] = []
    if path.exists():
        done, history = load_state(path, state)
    now: dict[str, object] = {"code": code_version(), "settings": dict(run.recipe)}
    if partial_layers:
        now["taken_over_in_part"] = partial_layers
    if not history or {k: v for k, v in history[-1].items() if k != "from_step"} != now:
        history = [*history, {"from_step": done, **now}]
    return state, done, history


def _batches(run: Run, done: int) -> DataLoader[Sample]:
    """Batches from step ``done`` on; of each, this process gets every ``count``-th sample."""
    settings, place = run.settings, run.place
    if settings.batch % place.count:
        raise ConfigurationError(
            f"a batch of {settings.batch} cannot be divided among {place.count} processes"
        )
    order = range(done * settings.batch + place.rank, settings.steps * settings.batch, place.count)
    return DataLoader(
        run.samples,
        settings.batch // place.count,
        sampler=order,
        num_workers=settings.workers,
        prefetch_factor=4,
        pin_memory=place.device.type == "cuda",
    )


def schedule(step: int, settings: PartSettings) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to zero."""
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (step - settings.warm_up) / (settings.steps - settings.warm_up))))


@torch.no_grad()
def average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean towards the network; buffers (BatchNorm's means) are taken as they are."""
    for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    for kept, now in zip(averaged.buffers(), network.buffers(), strict=True):
        kept.copy_(now)


@torch.inference_mode()
def mean_dice(network: GPNet, samples: list[Sample], device: torch.device) -> dict[str, float]:
    """Mean Dice of GPe, GPi and what is not healthy, over boxes."""
    network.eval()
    found = []
    for image, target in samples:
        logits = network(image[None].to(device))[0].float().cpu()
        claimed = torch.stack([logits[:UNDIVIDED].argmax(0), (logits[UNDIVIDED] > 0).long()])
        masks = [torch.stack([t[0] == GPE, t[0] == GPI, t[1] == 1])[None] for t in (claimed, target)]
        found.append(compute_dice(masks[0].float(), masks[1].float())[0])
    means = torch.stack(found).nanmean(0).tolist()  # NaN: nothing of it in that box
    names = ("Dice GPe", "Dice GPi", "Dice lesion")
    return {name: mean for name, mean in zip(names, means, strict=True) if not np.isnan(mean)}


@torch.inference_mode()
def mean_loss(network: GPNet, samples: list[Sample], device: torch.device) -> dict[str, float]:
    """Mean loss of the localiser over slabs."""
    network.eval()
    losses = [
        localiser_loss([network(image[None].to(device))], target[None].to(device))
        for image, target in samples
    ]
    return {"validation loss": float(torch.stack(losses).mean())}


def _slab_loss(scales: list[Tensor], target: Tensor, _progress: float) -> Terms:
    return {"pallida": localiser_loss(scales, target)}


@contextmanager
def places(device: str, environment: Mapping[str, str]) -> Iterator[Place]:
    """Where to compute. ``auto``: a GPU if there is one. Under ``torchrun``: one process for each GPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    count = int(environment.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Place(device=torch.device(device))
        return
    if device == "cuda":
        device = f"cuda:{environment['LOCAL_RANK']}"
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Place(device=torch.device(device), rank=int(environment["RANK"]), count=count)
    finally:
        distributed.destroy_process_group()


class _Scales(nn.Module):
    """The network, called for all its scales: what is shared among processes is a module's forward."""

    def __init__(self, network: GPNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.network.scales(image)


def _shared_among(network: GPNet, place: Place) -> nn.Module:
    if place.count == 1:
        return _Scales(network)
    devices = [place.device.index] if place.device.type == "cuda" else None
    return DistributedDataParallel(_Scales(network), device_ids=devices, find_unused_parameters=True)


def _meet(place: Place) -> None:
    """Wait until every process is here."""
    if place.count > 1:
        distributed.barrier()


def _progress(*, quiet: bool = False) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=quiet)
