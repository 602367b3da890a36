"""How long a volume takes to become labels, and how much memory: in a process of its own, on two cores."""

import multiprocessing
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from gpnet_node.model.card import read_card
from gpnet_node.model.drawing.head import DrawnHead
from gpnet_node.model.drawing.scene import Contrast, Scene, Visibility
from gpnet_node.model.evaluation.cohort import TEST_PEOPLE, Case, as_volume, draw
from gpnet_node.model.segment import GPNetSegmenter

CORES, REPEATS = 2, 3
_MATRIX = Case(
    name="speed",
    person=TEST_PEOPLE[0],
    seed=1,
    scene=Scene(contrast=Contrast.T2, visibility=Visibility.CLEAR),
    spacing_mm=(1.0, 0.390625, 0.390625),
    slices=80,
    field_mm=200.0,
)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one volume. ``seconds``: the median of the repeats, the first of which warms up and is left out."""

    matrix: str
    seconds: float
    peak_gb: float
    cores: int
    busy: float  # other load of the machine before, as the kernel's one-minute mean


def measure(model: Path, anatomies: Path) -> Speed:
    """Segment a drawn 512 x 512 x 80 volume, on as many cores as the bar names."""
    drawn = draw(_MATRIX, anatomies, read_card(model))
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="gpnet-speed-") as folder:
        path = Path(folder) / "voxels.npy"
        np.save(path, drawn.voxels)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            seconds, peak_gb = pool.submit(_segment, model, path).result()
    return Speed(
        matrix=" x ".join(str(n) for n in reversed(drawn.voxels.shape)),
        seconds=round(seconds, 2),
        peak_gb=round(peak_gb, 2),
        cores=CORES,
        busy=round(busy, 1),
    )


def _segment(model: Path, path: Path) -> tuple[float, float]:
    """Seconds and peak resident memory, GB."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    voxels = np.load(path)
    geometry = _MATRIX.geometry
    volume = as_volume(
        DrawnHead(voxels=voxels, labels=np.zeros(voxels.shape, np.uint8), geometry=geometry, truth={})
    )
    segmenter = GPNetSegmenter(model)
    times = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        segmenter.segment(volume)
        times.append(time.perf_counter() - began)
    return median(times[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
