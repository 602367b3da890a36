"""A head in a patient's space: scaled, turned, bent, its pallida divided. Which tissue lies where."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import highdicom as hd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpnet_node.model.drawing.atlas import Anatomy
from gpnet_node.model.drawing.registration import BOX_SPACING_MM
from gpnet_node.model.drawing.scanner import smooth_field
from gpnet_node.model.drawing.scene import DrawSettings, Scene
from gpnet_node.model.drawing.synthesise import (
    GPE,
    GPI,
    Divided,
    divide,
    mixed_border,
    rotation,
    towards_fluid,
)
from gpnet_node.model.drawing.tissue import Tissue

_BEND_NODES = (32, 32, 32)
_SIDES_DIFFER_SD = 0.05  # of the logarithm of a pallidum's volume
_SWELLING_MM = (16.0, 34.0)  # around a pallidum's centre: to where it is scaled, and where that has faded
_STRIDE = 4  # the bend is looked up at every fourth row and column, and interpolated between


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """One person's anatomy, in LPS axes.

    ``tissue``: uint8 (z, y, x), 1 mm. ``centres``: middle of the left and right box in its voxels, (2, 3).
    ``sides``: boxes by side; the right one is mirrored. ``displacement_mm``: (3, z, y, x) over the extent of
    ``tissue``, added to each place before it is looked up.
    """

    tissue: NDArray[np.uint8]
    centres: NDArray[np.float64]
    sides: Mapping[str, Anatomy]
    displacement_mm: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """What is drawn anew: the person's shape, the GPi/GPe border, or the image."""

    shape: int
    border: int
    image: int

    @classmethod
    def all(cls, seed: int) -> "Seeds":
        """One number for all three."""
        return cls(shape=seed, border=seed, image=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedHead:
    """A head in the patient's space, its origin between the two pallida, each pallidum divided.

    ``inverse``: 3 x 3, patient (z, y, x) mm to head mm. ``bend_mm``: (3, z, y, x) over the head's extent.
    """

    head: Head
    inverse: NDArray[np.float64]
    bend_mm: Tensor
    sides: Mapping[str, Divided]

    def look_up(self, lps_mm: NDArray[np.float64]) -> Tensor:
        """Head coordinates, mm from the middle of the head's array; (..., 3) x y z -> (..., 3) z y x."""
        places = torch.from_numpy((lps_mm[..., ::-1] @ self.inverse.T).astype(np.float32))
        middle = (np.array(self.head.tissue.shape) - 1) / 2
        where = places + torch.from_numpy((self.head.centres.mean(0) - middle).astype(np.float32))
        ratio = torch.tensor(self.bend_mm.shape[1:]) / torch.tensor(self.head.tissue.shape)
        flat = where.reshape(1, -1, 3)
        return where + values(self.bend_mm, flat * ratio)[:, 0].permute(2, 1, 0).reshape(where.shape)

    def in_box(self, side: str, where: Tensor) -> tuple[Tensor, Tensor]:
        """Voxels of a side's box, counted from its centre, and where the box holds this side of the head."""
        head = self.head
        middle = (np.array(head.tissue.shape) - 1) / 2
        centre = head.centres[0 if side == "left" else 1] - middle
        voxel = (where - torch.from_numpy(centre.astype(np.float32))) / BOX_SPACING_MM
        half = torch.tensor([n / 2 - 2 for n in head.sides[side].tissue.shape], dtype=torch.float32)
        between = float(head.centres[:, 2].mean() - middle[2])
        own = (where[..., 2] >= between) if side == "left" else (where[..., 2] < between)
        if side == "right":
            voxel = voxel * torch.tensor([1.0, 1.0, -1.0])
        return voxel, (voxel.abs() < half).all(-1) & own


def pose(
    head: Head, scene: Scene, seeds: Seeds, settings: DrawSettings, border: str | None = None
) -> PosedHead:
    """Scale, turn and bend the head, and divide each pallidum: all that the truth depends on.

    ``border``: an atlas whose border is taken as it is; by default one between Allen's and BigBrain's that
    then moves on its own.
    """
    rng = np.random.default_rng([seeds.shape, 1])
    scale, sizes = _sizes(head, rng, settings)
    turned = rotation(rng, settings.rotation_sd_degrees / 2)
    elastic = smooth_field(rng, 9, _BEND_NODES, channels=3) * float(rng.uniform(0, settings.elastic_mm) / 2)
    own = functional.interpolate(
        torch.from_numpy(head.displacement_mm)[None], size=_BEND_NODES, mode="trilinear"
    )[0]
    bend = elastic + own + _swollen(head, sizes)
    if scene.ventricle_mm:
        towards = towards_fluid(torch.from_numpy(head.tissue), 1.0).permute(3, 0, 1, 2)
        bend = (
            bend
            + functional.interpolate(towards[None], size=_BEND_NODES, mode="area")[0] * scene.ventricle_mm
        )
    rng = np.random.default_rng([seeds.border, 2])
    sides = {}
    for side, anatomy in head.sides.items():
        tissue = torch.from_numpy(anatomy.tissue)
        if border is None:
            sides[side] = divide(tissue, mixed_border(anatomy.border, rng), rng, settings)
        else:
            sides[side] = split(tissue, torch.from_numpy(anatomy.border[border]).float())
    return PosedHead(
        head=head, inverse=np.asarray(np.linalg.inv(turned * scale), np.float64), bend_mm=bend, sides=sides
    )


def over_slices(
    geometry: hd.VolumeGeometry, subslices: int, cut: Callable[[NDArray[np.float64]], Tensor]
) -> NDArray[np.float32]:
    """The mean of ``cut`` over planes through each slice's thickness; (slice, row, column) float32.

    ``cut`` gets LPS mm of a plane's pixels (row, column, 3).
    """
    affine = np.asarray(geometry.affine, float)
    slices, rows, columns = geometry.spatial_shape
    voxels = np.zeros((slices, rows, columns), np.float32)
    offsets = (np.arange(subslices) + 0.5) / subslices - 0.5
    for k in range(slices):
        planes = [cut(plane(affine, k + o, np.arange(rows), np.arange(columns))) for o in offsets]
        voxels[k] = torch.stack(planes).mean(0).numpy()
    return voxels


def plane(
    affine: NDArray[np.float64], k: float, rows: NDArray[np.generic], columns: NDArray[np.generic]
) -> NDArray[np.float64]:
    """LPS mm of the pixels of one plane, which may lie between slices; (row, column, 3)."""
    row, column = np.meshgrid(rows, columns, indexing="ij")
    index = np.stack([np.full(row.shape, k), row, column, np.ones(row.shape)], axis=-1)
    lps: NDArray[np.float64] = index @ affine[:3].T
    return lps


def look_up_plane(posed: PosedHead, lps_mm: NDArray[np.float64]) -> Tensor:
    """``posed.look_up`` of a plane (row, column, 3); the map is smooth, so a coarse one is interpolated."""
    rows, columns = lps_mm.shape[:2]
    corners = [np.linspace(0, n - 1, max(2, n // _STRIDE)) for n in (rows, columns)]
    along_rows = (lps_mm[-1, 0] - lps_mm[0, 0]) / max(1, rows - 1)
    along_columns = (lps_mm[0, -1] - lps_mm[0, 0]) / max(1, columns - 1)
    coarse = lps_mm[0, 0] + corners[0][:, None, None] * along_rows + corners[1][None, :, None] * along_columns
    found = posed.look_up(coarse).permute(2, 0, 1)[None]
    return functional.interpolate(found, size=(rows, columns), mode="bilinear", align_corners=True)[
        0
    ].permute(1, 2, 0)


def values(source: Tensor, where: Tensor) -> Tensor:
    """(channel, z, y, x) at (1, row, column, 3) counted from its centre -> (channel, 1, row, column)."""
    half = torch.tensor([n / 2 for n in source.shape[1:]], dtype=torch.float32)
    grid = (where / half).flip(-1).reshape(1, 1, *where.shape[-3:])
    return functional.grid_sample(source[None], grid, align_corners=False)[0].reshape(
        len(source), 1, *where.shape[-3:-1]
    )


def segment_masks(divided: Divided) -> Tensor:
    """GPe and GPi of a side's box as 0 or 1, float32, (2, z, y, x)."""
    return torch.stack([(divided.labels == GPE).float(), (divided.labels == GPI).float()])


def shares(posed: PosedHead, side: str, masks: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each place is GPe and GPi of a side, 0-1; (..., 3) -> two of (...)."""
    voxel, inside = posed.in_box(side, moved)
    gpe, gpi = torch.zeros(inside.shape), torch.zeros(inside.shape)
    if bool(inside.any()):
        gpe[inside], gpi[inside] = values(masks, voxel[inside][None, None])[:, 0, 0]
    return gpe, gpi


def _sizes(head: Head, rng: np.random.Generator, settings: DrawSettings) -> tuple[float, dict[str, float]]:
    """Scale of the head, and of each pallidum beyond it, for drawn volumes that differ little by side.

    The head is scaled as far as a skull can follow.
    """
    own_mm3 = {
        name: float((side.tissue == Tissue.GPE).sum()) * BOX_SPACING_MM**3
        for name, side in head.sides.items()
    }
    drawn_mm3 = rng.uniform(*settings.pallidum_mm3)
    mean_mm3 = sum(own_mm3.values()) / len(own_mm3)
    scale = float(np.clip((drawn_mm3 / mean_mm3) ** (1 / 3), 0.87, 1.22))
    sides = {}
    for name, own in own_mm3.items():
        wanted_mm3 = np.clip(drawn_mm3 * np.exp(rng.normal(0, _SIDES_DIFFER_SD)), *settings.pallidum_mm3)
        sides[name] = float(np.clip((wanted_mm3 / own) ** (1 / 3) / scale, 0.80, 1.30))
    return scale, sides


def _swollen(head: Head, sizes: Mapping[str, float]) -> Tensor:
    """Displacement (3, z, y, x), mm, that scales each pallidum about its centre and fades around it."""
    axes = [
        (torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * (extent / n)
        for n, extent in zip(_BEND_NODES, head.tissue.shape, strict=True)
    ]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # mm from the middle of the head's array
    middle = (np.array(head.tissue.shape) - 1) / 2
    moved = torch.zeros(place.shape)
    for name, size in sizes.items():
        centre = head.centres[0 if name == "left" else 1] - middle
        away = place - torch.from_numpy(centre.astype(np.float32))[:, None, None, None]
        near, far = _SWELLING_MM
        fading = ((far - away.norm(dim=0)) / (far - near)).clamp(0, 1)
        moved = moved + away * (1 / size - 1) * fading.square() * (3 - 2 * fading)
    return moved


def split(tissue: Tensor, border: Tensor) -> Divided:
    """Divide the pallidum at the border's zero, as the atlas does it; (z, y, x)."""
    inside = tissue == Tissue.GPE
    inner = inside & (border > 0)
    tissue = torch.where(inner, int(Tissue.GPI), tissue).to(torch.uint8)
    labels = inside.to(torch.uint8) * GPE
    labels[inner] = GPI
    return Divided(tissue=tissue, labels=labels, lamina=torch.exp(-0.5 * (border / 0.35) ** 2) * inside)
