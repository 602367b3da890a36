"""Train GP-net and its localiser on drawn images; a run that is stopped goes on where it was.

``train.toml`` holds every setting. Sample number i follows from (seed, i) alone, so a resumed run sees the
same images as one that was never stopped, and several GPUs together see the same as one.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from gpnet_node.errors import ConfigurationError
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
from gpnet_node.model.drawing import atlas
from gpnet_node.model.localise import localiser_loss
from gpnet_node.model.network import GPNet
from gpnet_node.model.training.bids import digest
from gpnet_node.model.training.curves import Journal, draw_curves, read_journal
from gpnet_node.model.training.loss import Terms, segmentation_loss
from gpnet_node.model.training.processes import Place, meet, places, shared
from gpnet_node.model.training.release import code_version, ship, unfinished
from gpnet_node.model.training.samples import Sample, cohort_boxes, drawn_boxes, drawn_slabs
from gpnet_node.model.training.train_settings import (
    PARTS,
    Part,
    PartSettings,
    TrainSettings,
    read_settings,
    recipe,
)
from gpnet_node.model.training.validation import mean_dice, mean_loss

Loss = Callable[[list[Tensor], Tensor, float], Terms]  # scales, target, share of the steps that is done


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
    config: Path,
    atlases: Path | None,
    work: Path,
    *,
    cohort: Path | None = None,
    only: Part | None = None,
    device: str = "auto",
) -> list[Part]:
    """Train both networks, or one; the names of those whose steps are not all done yet.

    ``atlases`` holds the label maps that samples are drawn from (synthseg/, allen/, bigbrain/); ``cohort``
    images of one's own for the segmenter (``bids``). ``work`` keeps anatomies and training state, so that a
    run that was stopped goes on. Beside ``config`` go curves.png and, when both
    networks are done, weights and card. Raises ConfigurationError, InputError.
    """
    settings = read_settings(config)
    names = [only] if only else PARTS
    work.mkdir(parents=True, exist_ok=True)
    with places(device, os.environ) as place:
        if place.first and any(_draws(settings, name, cohort) for name in names):
            _build_anatomies(settings, atlases, work)
        meet(place)
        for name in names:
            fit(run_of(name, settings, config.parent, work, cohort, place))
        missing = unfinished(settings, work)
        if place.first:
            journals = {str(name): read_journal(work / f"{name}.jsonl") for name in PARTS}
            draw_curves(journals, config.parent / "curves.png")
            if not missing:
                ship(config.parent, settings, work)
    return missing


def _draws(settings: TrainSettings, name: Part, cohort: Path | None) -> bool:
    """Whether samples of one network are drawn from anatomies."""
    own_only = name == "segmenter" and cohort is not None and settings.cohort.drawn_share == 0
    return settings.part(name).steps > 0 and not own_only


def _build_anatomies(settings: TrainSettings, atlases: Path | None, work: Path) -> None:
    people, cache = settings.train_people + settings.validate_people, work / "anatomies"
    if atlases is None and not all((cache / f"{person}.npz").exists() for person in people):
        raise ConfigurationError("samples are drawn from atlases: --atlases must name their folder")
    with _progress() as bar:
        task = bar.add_task("anatomies", total=len(people))
        atlas.build(atlases or Path(), people, cache, lambda _: bar.advance(task))


def run_of(
    name: Part, settings: TrainSettings, folder: Path, work: Path, cohort: Path | None, place: Place
) -> Run:
    """What the settings in ``folder`` say about one network, put together."""
    card, cache = read_card(folder), work / "anatomies"
    samples: Dataset[Sample] = Dataset()  # nothing to be asked of
    held_out: list[Sample] = []
    own = cohort if name == "segmenter" else None
    if settings.part(name).steps > 0:
        if own is not None:
            samples, held_out = cohort_boxes(own, cache, settings, card)
        elif name == "segmenter":
            samples, held_out = drawn_boxes(cache, settings, card)
        else:
            samples, held_out = drawn_slabs(cache, settings)
    start = None
    if settings.start is not None:
        origin = folder / settings.start
        start = part(load_weights(origin, read_card(origin)), name)
    segmenting = name == "segmenter"
    return Run(
        name=name,
        settings=settings.part(name),
        seed=settings.seed,
        samples=samples,
        loss=partial(segmentation_loss, settings=settings.loss) if segmenting else _slab_loss,
        validate=partial(mean_dice if segmenting else mean_loss, samples=held_out, device=place.device),
        place=place,
        output=work,
        recipe=recipe(settings, name, digest(own) if own is not None else None),
        start=start,
    )


def fit(run: Run) -> dict[str, Tensor]:
    """Train to the last step, resuming from the state in ``output``; the averaged weights."""
    settings, place = run.settings, run.place
    torch.set_num_threads(settings.threads)
    state, done, history = begin(run)
    network, optimiser = state.network, state.optimiser
    batches = iter(_batches(run, done))
    model = shared(network, place)
    path, journal = state_path(run.output, run.name), Journal(run.output / f"{run.name}.jsonl")
    with _progress(quiet=not place.first) as bar:
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
            if place.first and (last or (step + 1) % settings.save_every == 0):
                judged = last or (step + 1) % settings.validate_every == 0
                figures = run.validate(state.averaged) if judged else {}
                bar.console.print(f"{run.name} {journal.write(step + 1, rate, figures)}", highlight=False)
                save_state(path, state, step=step + 1, history=history)
                journal.restart_clock()
    if done == settings.steps == 0 and place.first:
        save_state(path, state, step=0, history=history)
    meet(place)
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


def _slab_loss(scales: list[Tensor], target: Tensor, _progress: float) -> Terms:
    return {"pallida": localiser_loss(scales, target)}


def _progress(*, quiet: bool = False) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=quiet)
