"""Draws MR images of one side from an anatomy: random shape, GPi/GPe border, contrast, lesions, acquisition.

After SynthSeg (Billot 2023): the network sees images that never existed, from label maps that did. The border
between GPi and GPe moves independently of the pallidum's outline, so that it must be seen in the image.
All arrays are (z, y, x) in LPS axes; every draw follows from the generator it is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpnet_node.model.drawing import lesion
from gpnet_node.model.drawing.atlas import BORDERS, Anatomy
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.scanner import expose, resolve, smooth_field
from gpnet_node.model.drawing.scene import BLOOMING_MM, DrawSettings, Scene, Visibility, draw_scene, signals
from gpnet_node.model.drawing.tissue import Tissue
from gpnet_node.model.intensity import normalise

GPE, GPI = 1, 2  # labels of a drawn box; 0 is background
_GPI_SHARE_LIMITS = ((0.15, 0.24), (0.43, 0.54))  # between which each moved border has its own two
_BORDER_MAP_LIMIT_MM = 12.0  # beyond it the carried atlases' distances say nothing
_SEEN = {Visibility.CLEAR: 1.0, Visibility.PARTIAL: 1.0, Visibility.FAINT: 0.3, Visibility.ABSENT: 0.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnBox:
    """One sample (z, y, x): ``image`` normalised, ``labels`` 0 / GPE / GPI uint8, ``lesion`` bool."""

    image: Tensor
    labels: Tensor
    lesion: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Divided:
    """A side whose pallidum is divided; each (z, y, x).

    ``tissue``: uint8 with GPI. ``labels``: 0 / GPE / GPI. ``lamina``: the medial lamina's weight, 0-1.
    """

    tissue: Tensor
    labels: Tensor
    lamina: Tensor


def draw_box(
    anatomy: Anatomy, rng: np.random.Generator, shape: Sequence[int], settings: DrawSettings
) -> DrawnBox:
    """One sample on the network's grid."""
    scene = draw_scene(rng, settings)
    divided = divide(*deform(anatomy, rng, shape, settings, scene.ventricle_mm), rng, settings)
    image, marked = paint(divided, scene, signals(rng, scene), rng, BOX_SPACING_MM)
    slice_axis = int(rng.choice(3, p=[0.7, 0.15, 0.15]))
    acquired_mm = [float(rng.uniform(*settings.in_plane_mm))] * 3
    acquired_mm[slice_axis] = float(rng.uniform(*settings.slice_mm))
    acquired = resolve(image, BOX_SPACING_MM, acquired_mm)
    sizes = [n * BOX_SPACING_MM / m for n, m in zip(shape, acquired.shape, strict=True)]
    acquired = expose(rng, acquired, scene, spacing_mm=sizes, slice_axis=slice_axis)
    image = functional.interpolate(
        acquired[None, None], size=tuple(shape), mode="trilinear", align_corners=True
    )[0, 0]
    if rng.random() < settings.cut_share:
        image = image * _slab(divided.labels, rng, slice_axis)
    return DrawnBox(image=normalise(image), labels=divided.labels, lesion=marked)


def deform(
    anatomy: Anatomy,
    rng: np.random.Generator,
    shape: Sequence[int],
    settings: DrawSettings,
    ventricle_mm: float,
) -> tuple[Tensor, Tensor]:
    """The anatomy turned, scaled to a drawn pallidum, bent and with wider fluid spaces.

    Tissue (uint8) and the border's map (mm, positive towards GPi), each (z, y, x).
    """
    own_mm3 = float((anatomy.tissue == Tissue.GPE).sum()) * BOX_SPACING_MM**3
    scale = (float(rng.uniform(*settings.pallidum_mm3)) / own_mm3) ** (1 / 3)
    longer = rng.normal(0, settings.anisotropy_sd, 3)
    stretch = np.diag(np.exp(longer - longer.mean()) * scale)  # the volume stays what was drawn
    matrix = np.linalg.inv(rotation(rng, settings.rotation_sd_degrees) @ stretch)
    offset = rng.normal(0, settings.offset_sd_mm, 3).clip(-6, 6) / BOX_SPACING_MM
    where = sampling_grid(shape, matrix, offset)
    elastic = smooth_field(rng, 7, shape, channels=3).permute(1, 2, 3, 0)
    where = where + elastic * (float(rng.uniform(0, settings.elastic_mm)) / 2 / BOX_SPACING_MM)
    tissue = sample(torch.from_numpy(anatomy.tissue), where, "nearest").to(torch.uint8)
    if ventricle_mm:
        towards = towards_fluid(tissue, BOX_SPACING_MM) @ torch.from_numpy(matrix.T.astype(np.float32))
        where = where + towards * (ventricle_mm / BOX_SPACING_MM)
        tissue = sample(torch.from_numpy(anatomy.tissue), where, "nearest").to(torch.uint8)
    return tissue, sample(mixed_border(anatomy.border, rng), where, "bilinear")


def mixed_border(borders: Mapping[str, NDArray[np.float32]], rng: np.random.Generator) -> Tensor:
    """A border between those of the two atlases that are trained on, mm, (z, y, x)."""
    mix = float(rng.random())
    allen, bigbrain = (torch.from_numpy(borders[name]) for name in BORDERS)
    return torch.lerp(bigbrain, allen, mix).clamp_(-_BORDER_MAP_LIMIT_MM, _BORDER_MAP_LIMIT_MM)


def divide(
    tissue: Tensor,
    border: Tensor,
    rng: np.random.Generator,
    settings: DrawSettings,
    spacing_mm: float = BOX_SPACING_MM,
) -> Divided:
    """Divide the pallidum at a drawn GPi share, then shift, tilt and bend the border on its own.

    ``border``: mm, positive towards GPi, (z, y, x), on voxels of ``spacing_mm``.
    """
    inside = tissue == Tissue.GPE
    tissue = tissue.clone()
    if not bool(inside.any()):
        nothing = torch.zeros(tissue.shape)
        return Divided(tissue=tissue, labels=nothing.to(torch.uint8), lamina=nothing)
    border = border - torch.quantile(border[inside], 1 - float(rng.uniform(*settings.gpi_share)))
    border = border + _own_way(border, inside, rng, settings, spacing_mm)
    most, least = (float(rng.uniform(*bounds)) for bounds in reversed(_GPI_SHARE_LIMITS))
    low, high = (float(torch.quantile(border[inside], 1 - share)) for share in (most, least))
    border = border - min(max(0.0, low), high)
    inner = inside & (border > 0)
    labels = inside.to(torch.uint8) * GPE
    labels[inner] = GPI
    tissue[inner] = Tissue.GPI
    lamina = torch.exp(-0.5 * (border / float(rng.uniform(0.25, 0.5))) ** 2) * inside
    return Divided(tissue=tissue, labels=labels, lamina=lamina)


def _own_way(
    border: Tensor, inside: Tensor, rng: np.random.Generator, settings: DrawSettings, spacing_mm: float
) -> Tensor:
    """Shift, tilt, curvature and waves of the border, mm, around the middle of the interface."""
    index = torch.argwhere(inside).float() * spacing_mm
    level = border[inside]
    middle = index[level.abs() < 1.0].mean(0) if bool((level.abs() < 1.0).any()) else index.mean(0)
    across = index[level > 0].mean(0) - index[level <= 0].mean(0)
    across = across / across.norm()
    first = torch.linalg.cross(across, torch.tensor([1.0, 0.0, 0.0]))
    first = first / first.norm().clamp(min=1e-3)
    axes = [torch.arange(n, dtype=torch.float32) * spacing_mm for n in border.shape]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) - middle
    moved = torch.full(border.shape, float(rng.normal(0, settings.border_shift_sd_mm)))
    for axis in (first, torch.linalg.cross(across, first)):
        run = place @ axis
        tilt = np.tan(np.deg2rad(rng.normal(0, settings.border_tilt_sd_degrees)))
        bend = rng.normal(0, settings.border_curvature_sd_per_mm)
        moved = moved + float(tilt) * run + float(bend) * (run.square() - 25.0)
    return moved + smooth_field(rng, 5, border.shape)[0] * float(rng.uniform(0, settings.border_wave_mm) / 2)


def paint(
    divided: Divided,
    scene: Scene,
    means: NDArray[np.float32],
    rng: np.random.Generator,
    spacing_mm: float,
    *,
    grain: bool = True,
) -> tuple[Tensor, Tensor]:
    """Noise-free signal of a side, and where it has lesions (bool); each (z, y, x)."""
    lamina = divided.lamina * _SEEN[scene.visibility]
    if scene.visibility is Visibility.PARTIAL:
        lamina = lamina * (smooth_field(rng, 9, lamina.shape)[0] > 0)
    image = textured(divided.tissue, lamina, means, rng, spacing_mm, grain=grain)
    marked = torch.zeros(image.shape, dtype=torch.bool)
    for kind in scene.lesions:
        image, more = lesion.paint(
            image, kind, divided.tissue, means, spacing_mm, rng, BLOOMING_MM[scene.contrast]
        )
        marked |= more
    return image, marked


def textured(
    tissue: Tensor,
    lamina: Tensor | None,
    means: NDArray[np.float32],
    rng: np.random.Generator,
    spacing_mm: float,
    *,
    grain: bool,
) -> Tensor:
    """Tissue means with a texture of centimetres and, with ``grain``, one as fine as the voxels."""
    image = torch.from_numpy(means)[tissue.long()]
    if lamina is not None:
        image = image + lamina * (float(means[Tissue.LAMINA]) - image)
    nodes = max(4, round(max(tissue.shape) * spacing_mm / 5))
    texture = smooth_field(rng, nodes, tissue.shape)[0] * float(rng.uniform(0.02, 0.05))
    if grain:
        noise = torch.from_numpy(rng.standard_normal(tuple(tissue.shape), dtype=np.float32))
        texture = texture + noise * float(rng.uniform(0.02, 0.08))
    return image * (1 + texture)


def towards_fluid(tissue: Tensor, spacing_mm: float) -> Tensor:
    """Which way the nearest fluid lies, fading over 12 mm from it; (z, y, x, 3).

    Looked up there, a voxel that lies close to a ventricle shows the ventricle: it has widened.
    """
    fluid = (tissue == Tissue.CSF).float()[None, None]
    step = max(1, round(2.4 / spacing_mm))
    small = functional.avg_pool3d(fluid, step, ceil_mode=True)[0, 0]
    near = small
    for _ in range(4):  # repeated smoothing falls off about as exp(-distance)
        near = torch.maximum(small, functional.avg_pool3d(near[None, None], 3, 1, 1)[0, 0])
    gradient = torch.stack(torch.gradient(near))
    gradient = gradient / gradient.norm(dim=0).clamp(min=1e-3) * near.clamp(max=0.5) * 2
    return functional.interpolate(gradient[None], size=tissue.shape, mode="trilinear", align_corners=False)[
        0
    ].permute(1, 2, 3, 0)


def _slab(labels: Tensor, rng: np.random.Generator, axis: int) -> Tensor:
    """0 beyond the end of a slab that ends in the pallidum or up to 10 mm from it, else 1."""
    extent = torch.argwhere(labels > 0)[:, axis].float()
    if len(extent) == 0:
        return torch.ones(())
    reach = float(rng.uniform(-8, 10)) / BOX_SPACING_MM
    run = torch.arange(labels.shape[axis], dtype=torch.float32)
    view = [1, 1, 1]
    view[axis] = -1
    upper = bool(rng.random() < 0.5)
    return (run < extent.max() + reach if upper else run > extent.min() - reach).float().reshape(view)


def rotation(rng: np.random.Generator, sd_degrees: float) -> NDArray[np.float64]:
    """Rotation about a random axis, 3 x 3; the angle is cut at 2.8 SD."""
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(np.clip(rng.normal(0, sd_degrees), -2.8 * sd_degrees, 2.8 * sd_degrees))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turned: NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turned


def sampling_grid(shape: Sequence[int], matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Tensor:
    """Source voxels ``matrix @ index + offset``, indices counted from the centre; (z, y, x, 3)."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return index @ torch.from_numpy(matrix.T.astype(np.float32)) + torch.from_numpy(offset.astype(np.float32))


def sample(source: Tensor, coordinates: Tensor, mode: str) -> Tensor:
    """Values at voxel coordinates counted from the source's centre; outside: 0. (z, y, x) -> (z, y, x)."""
    half = torch.tensor([n / 2 for n in source.shape], dtype=torch.float32)
    grid = (coordinates / half).flip(-1)[None]
    return functional.grid_sample(source[None, None].float(), grid, mode=mode, align_corners=False)[0, 0]
