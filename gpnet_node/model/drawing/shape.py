"""A compact shape model of the head: one mean anatomy and the main ways in which heads differ.

It is computed from the training people's label maps (SynthSeg, Apache-2.0) whose pallidum was divided with
the Allen and BigBrain atlases (CC BY 4.0), and ships with the program, so that the demonstration and the
tests need nothing else. Each head drawn from it is a head that never existed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gpnet_node.model.drawing import atlas
from gpnet_node.model.drawing.pose import Head
from gpnet_node.model.drawing.tissue import HEAD_TISSUE_OFFSET, Tissue

SHAPE_FILE = Path(__file__).with_name("shape.npz")
_NODES = (24, 24, 24)  # of a displacement field over the head
_MODES = 5
_CROP_MARGIN = 4
_REGISTRATION_MM = 4  # the modes are smooth; a finer grid would only cost time
_BORDER_STEP_MM = 0.1
_REGISTERED: dict[int, float] = {
    Tissue.WHITE_MATTER: 4.0,
    Tissue.CORTEX: 2.5,
    Tissue.CSF: 1.0,
    Tissue.THALAMUS: 3.0,
    Tissue.CAUDATE: 2.5,
    Tissue.PUTAMEN: 2.2,
    Tissue.GPE: 5.0,
    Tissue.BRAINSTEM: 3.5,
    Tissue.CEREBELLAR_CORTEX: 2.5,
}


def person(cache: Path, name: str) -> Head:
    """One person of the cohort as they are."""
    tissue, centres = atlas.load_head(cache, name)
    sides = {anatomy.side: anatomy for anatomy in atlas.load(cache, name)}
    return Head(
        tissue=tissue, centres=centres, sides=sides, displacement_mm=np.zeros((3, 2, 2, 2), np.float32)
    )


def draw(rng: np.random.Generator, path: Path = SHAPE_FILE) -> Head:
    """A new head: the mean shape, bent along each mode by a normal draw (cut at two standard deviations)."""
    with np.load(path, allow_pickle=False) as data:
        weights = rng.standard_normal(len(data["modes_mm"])).clip(-2, 2).astype(np.float32)
        bend = data["mean_mm"].astype(np.float32) + np.tensordot(
            weights, data["modes_mm"].astype(np.float32), 1
        )
        sides = {
            side: atlas.Anatomy(
                person="mean",
                side=side,
                tissue=data[f"{side}_tissue"],
                border={
                    name: data[f"{side}_border_{name}"] * np.float32(_BORDER_STEP_MM)
                    for name in atlas.BORDERS
                },
            )
            for side in atlas.PALLIDUM
        }
        return Head(tissue=data["tissue"], centres=data["centres"], sides=sides, displacement_mm=bend)


def build(
    cache: Path, reference: str, others: Sequence[str], path: Path, progress: Callable[[str], None]
) -> None:
    """Register the others to the reference (SyN, 4 mm) and keep the reference, the mean and the main modes.

    Needs the ``train`` extra; some seconds a person.
    """
    head = person(cache, reference)
    fixed = _contrast(head.tissue)
    fields = []
    for name in others:
        fields.append(_field(fixed, _contrast(person(cache, name).tissue)))
        progress(name)
    low, high = _bounds(head.tissue)
    fields_mm = np.stack([_on_nodes(field, low, high) for field in fields])  # (person, 3, z, y, x)
    mean = fields_mm.mean(0)
    flat = (fields_mm - mean).reshape(len(fields), -1)
    _, spread, vectors = np.linalg.svd(flat, full_matrices=False)
    modes = vectors[:_MODES] * (spread[:_MODES, None] / np.sqrt(len(fields) - 1))
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    arrays: dict[str, NDArray[np.generic]] = {
        "tissue": head.tissue[box],
        "centres": head.centres - low,
        "mean_mm": mean.astype(np.float16),
        "modes_mm": modes.reshape(-1, *mean.shape).astype(np.float16),
    }
    for side, anatomy in head.sides.items():
        arrays[f"{side}_tissue"] = anatomy.tissue
        near = anatomy.tissue == Tissue.GPE
        for name, border in anatomy.border.items():
            steps = np.where(near, border / _BORDER_STEP_MM, 0)
            arrays[f"{side}_border_{name}"] = steps.round().clip(-127, 127).astype(np.int8)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _contrast(tissue: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the registration sees: block means."""
    table = np.full(HEAD_TISSUE_OFFSET + 16, 1.5, np.float32)
    table[0] = 0
    for kind, value in _REGISTERED.items():
        table[kind] = value
    step = _REGISTRATION_MM
    z, y, x = (n // step for n in tissue.shape)
    blocks = table[tissue[: z * step, : y * step, : x * step]].reshape(z, step, y, step, x, step)
    return np.ascontiguousarray(blocks.mean((1, 3, 5)))


def _field(fixed: NDArray[np.float32], moving: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where in the fixed head each place of the other's shape is looked up: mm, (3, z, y, x) at 4 mm.

    Without the affine part, which ``draw_series`` draws itself.
    """
    import ants  # noqa: PLC0415 - only the train extra has it

    images = [ants.from_numpy(image, spacing=(float(_REGISTRATION_MM),) * 3) for image in (fixed, moving)]
    found = ants.registration(
        *images, "SyN", syn_metric="meansquares", reg_iterations=(40, 30, 10), random_seed=1
    )  # fmt: skip
    warp = next(path for path in found["invtransforms"] if path.endswith(".nii.gz"))
    field: NDArray[np.float32] = ants.image_read(warp).numpy()  # (z, y, x, 3) in the order of the axes given
    for path in {*found["fwdtransforms"], *found["invtransforms"]}:
        Path(path).unlink(missing_ok=True)
    return np.moveaxis(field, -1, 0)


def _bounds(tissue: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    where = np.argwhere(tissue > 0)
    return (where.min(0) - _CROP_MARGIN).clip(0), np.minimum(where.max(0) + 1 + _CROP_MARGIN, tissue.shape)


def _on_nodes(
    field: NDArray[np.float32], low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The field over the cropped head, smoothed to a few nodes."""
    crop = np.stack([sitk.GetArrayFromImage(_smooth(part)) for part in field])
    step = _REGISTRATION_MM
    box = tuple(slice(int(a) // step, int(b) // step) for a, b in zip(low, high, strict=True))
    tensor = torch.from_numpy(np.ascontiguousarray(crop[(slice(None), *box)]))
    nodes: NDArray[np.float32] = functional.interpolate(tensor[None], size=_NODES, mode="trilinear")[
        0
    ].numpy()
    return nodes


def _smooth(part: NDArray[np.float32]) -> sitk.Image:
    return sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(np.ascontiguousarray(part)), 1.5)
