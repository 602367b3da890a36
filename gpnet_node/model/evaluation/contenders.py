"""What the network is measured against: atlases carried to a person's T1, and a fusion of people.

The T1 template of CIT168 (Pauli 2018) is registered to each whole head. CIT168, BigBrain (Xiao 2019) and
Allen (Ding 2016) all lie in its MNI152 2009 space, so one registration carries the three. For the fusion,
five training people's T1s are registered in the same way and their labels joined. Lamina convention as in
training: the medial lamina goes to the nearer segment. Needs the ``train`` extra (antspyx).
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import highdicom as hd
import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from gpnet_node.model.card import ModelCard
from gpnet_node.model.drawing.head import TRUTH_SPACING_MM, DrawnHead, render
from gpnet_node.model.drawing.pose import PosedHead, look_up_plane, over_slices
from gpnet_node.model.drawing.scene import DrawSettings, Scene
from gpnet_node.model.drawing.synthesise import GPE, GPI
from gpnet_node.model.drawing.tissue import HEAD_TISSUE_OFFSET
from gpnet_node.model.evaluation.cohort import as_volume, draw, whole_head
from gpnet_node.model.evaluation.mni_atlases import ATLASES, atlas_shares, read_template
from gpnet_node.model.evaluation.syn import SynSettings, around, carry, fuse, register
from gpnet_node.model.patient_grid import as_image, lps_grid
from gpnet_node.model.segmentation import SideProbability

FUSION = "fusion of five people"
FUSED_PEOPLE = ("01", "05", "06", "09", "15")
_FINE_SHAPE = (136, 144, 136)  # (z, y, x) of 0.39 mm: one side's box of carried labels
_FUSION_MM = 0.8


@dataclass(frozen=True, kw_only=True)
class ContenderSettings:
    """How atlases and people are carried. ``fusion``: mean of the carried labels, or joint label fusion."""

    syn: SynSettings
    fusion: Literal["vote", "joint"] = "vote"


_MATTES = SynSettings(spacing_mm=0.8, metric="mattes", sampling=32, iterations=(60, 40, 20))
_CORRELATION = SynSettings(spacing_mm=1.5, metric="CC", sampling=2, iterations=(80, 60, 30))
# What is tried on the validation people, by ``gpnet-node evaluate --cohort validate``.
CANDIDATES = {
    "mutual information, vote": ContenderSettings(syn=_MATTES),
    "correlation, vote": ContenderSettings(syn=_CORRELATION),
    "correlation, joint": ContenderSettings(syn=_CORRELATION, fusion="joint"),
}
CHOSEN = "correlation, joint"

Carried = dict[str, SideProbability]  # by side


@dataclass(frozen=True, kw_only=True, eq=False)
class Brain:
    """A T1 without skull, LPS axes, and GPe and GPi of each side as a vector image of shares, 0-1."""

    image: sitk.Image
    shares: Mapping[str, sitk.Image]
    centres_mm: Mapping[str, NDArray[np.float64]]


def contenders(
    head: Brain, people: Mapping[str, Brain], atlases: Path, settings: ContenderSettings, folder: Path
) -> dict[str, Carried]:
    """What each atlas and the fusion of ``people`` label in the head, by method.

    On 0.39 mm around each pallidum. ``folder`` keeps this head's registrations, which are not repeated.
    """
    kept = _Kept(folder=folder, fixed=head, settings=settings.syn)
    shared = kept.transforms("template", read_template(atlases))
    found = {
        name: _carried(atlas_shares(atlases, numbers), shared, head) for name, numbers in ATLASES.items()
    }
    moved = {other: kept.transforms(other, brain.image) for other, brain in people.items()}
    if settings.fusion == "vote":
        found[FUSION] = _vote([_carried(people[other].shares, moved[other], head) for other in people])
    else:
        found[FUSION] = _joint(head, people, moved)
    return found


def save(path: Path, found: Mapping[str, Carried]) -> None:
    """Keep what was carried, its shares in steps of 1/255; replaced in one move."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for method, sides in found.items():
        for side, part in sides.items():
            arrays[f"{method}|{side}|shares"] = (part.probability[1:] * 255).round().astype(np.uint8)
            arrays[f"{method}|{side}|origin"] = np.array(part.origin_mm)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.rename(path)


def load(path: Path) -> dict[str, Carried]:
    """What :func:`save` kept."""
    found: dict[str, Carried] = {}
    with np.load(path, allow_pickle=False) as data:
        for key in data:
            method, side, what = key.split("|")
            if what == "shares":
                x, y, z = (float(v) for v in data[f"{method}|{side}|origin"])
                shares = data[key].astype(np.float32) / 255
                found.setdefault(method, {})[side] = _side(side, shares, (x, y, z))
    return found


def drawn_brain(person: str, anatomies: Path, card: ModelCard) -> Brain:
    """The person's whole head at 0.8 mm, T1, its skull taken off where it was drawn.

    The GPi/GPe border is the atlases' own, without what moves it from image to image.
    """
    still = DrawSettings(
        border_shift_sd_mm=0, border_tilt_sd_degrees=0, border_curvature_sd_per_mm=0, border_wave_mm=0
    )
    drawn = draw(whole_head(person), anatomies, card, settings=still, renderer=_without_skull)
    return Brain(image=as_image(as_volume(drawn)), shares=_truth_shares(drawn), centres_mm=_centres(drawn))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    """Registrations to one head, kept in a folder."""

    folder: Path
    fixed: Brain
    settings: SynSettings

    def transforms(self, name: str, moving: sitk.Image) -> list[Path]:
        """Of ``moving`` to the head; in the order in which ANTs applies them."""
        place = self.folder / name
        if not place.is_dir():
            middle = np.mean(list(self.fixed.centres_mm.values()), axis=0)
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=self.folder, prefix=".partial-"))
            for k, path in enumerate(register(self.fixed.image, moving, self.settings, middle)):
                (partial / f"{k}{''.join(path.suffixes[-2:])}").write_bytes(path.read_bytes())
                path.unlink()
            partial.rename(place)
        return sorted(place.iterdir())


def _carried(shares: Mapping[str, sitk.Image], transforms: Sequence[Path], head: Brain) -> Carried:
    carried = {}
    for side, image in shares.items():
        grid = lps_grid(head.centres_mm[side], TRUTH_SPACING_MM, _FINE_SHAPE)
        parts = [carry(sitk.VectorIndexSelectionCast(image, k), grid, transforms) for k in range(2)]
        carried[side] = _side(side, np.stack(parts), grid.GetOrigin())
    return carried


def _vote(people: Sequence[Carried]) -> Carried:
    """The mean of several people's shares: a soft majority vote."""
    return {
        side: _side(side, np.mean([one[side].probability[1:] for one in people], axis=0), first.origin_mm)
        for side, first in people[0].items()
    }


def _joint(head: Brain, people: Mapping[str, Brain], moved: Mapping[str, Sequence[Path]]) -> Carried:
    """Joint label fusion in a box of 0.8 mm; its probabilities are then brought to 0.39 mm."""
    box = around(head.image, np.mean(list(head.centres_mm.values()), axis=0), _FUSION_MM)
    images, labels = [], []
    for other, brain in people.items():
        images.append(carry(brain.image, box, moved[other]))
        label = np.zeros(images[-1].shape, np.uint8)
        for k, share in enumerate(brain.shares.values()):
            gpe, gpi = (carry(sitk.VectorIndexSelectionCast(share, c), box, moved[other]) for c in range(2))
            label[gpe + gpi > 0.5] = 2 * k + 1
            label[(gpe + gpi > 0.5) & (gpi > gpe)] = 2 * k + 2
        labels.append(label)
    shares = fuse(box, images, labels)
    carried = {}
    for k, side in enumerate(head.shares):
        grid = lps_grid(head.centres_mm[side], TRUTH_SPACING_MM, _FINE_SHAPE)
        parts = []
        for number in (2 * k + 1, 2 * k + 2):
            share = sitk.GetImageFromArray(shares[number])
            share.CopyInformation(box)
            parts.append(
                sitk.GetArrayFromImage(sitk.Resample(share, grid, sitk.Transform(), sitk.sitkLinear))
            )
        carried[side] = _side(side, np.stack(parts), grid.GetOrigin())
    return carried


def _side(side: str, shares: NDArray[np.float32], origin_mm: tuple[float, float, float]) -> SideProbability:
    shares = shares.clip(0, 1)  # smoothing overshoots a little
    background = (1 - shares.sum(0, keepdims=True)).clip(0)
    return SideProbability(
        side=side,
        probability=np.concatenate([background, shares]).astype(np.float32),
        lesion=np.zeros(shares.shape[1:], np.float32),
        spacing_mm=TRUTH_SPACING_MM,
        origin_mm=origin_mm,
    )


def _truth_shares(drawn: DrawnHead) -> dict[str, sitk.Image]:
    shares = {}
    for side, truth in drawn.truth.items():
        masks = np.stack([truth.labels == GPE, truth.labels == GPI], -1).astype(np.float32)
        shares[side] = sitk.GetImageFromArray(masks, isVector=True)
        shares[side].SetSpacing([TRUTH_SPACING_MM] * 3)
        shares[side].SetOrigin([float(v) for v in truth.origin_mm])
    return shares


def _centres(drawn: DrawnHead) -> dict[str, NDArray[np.float64]]:
    """Middle of each side's box of truth, LPS mm: where carried labels are kept, not what they are."""
    return {
        side: truth.origin_mm + TRUTH_SPACING_MM * (np.array(truth.labels.shape[::-1]) - 1) / 2
        for side, truth in drawn.truth.items()
    }


def _without_skull(
    posed: PosedHead, scene: Scene, geometry: hd.VolumeGeometry, seed: int
) -> NDArray[np.float32]:
    """A renderer: the usual image, 0 where the head is neither brain nor fluid."""
    tissue = torch.from_numpy(posed.head.tissue)
    inside = (tissue > 0) & (tissue < HEAD_TISSUE_OFFSET)
    last = torch.tensor(tissue.shape) - 1

    def brain(plane: NDArray[np.float64]) -> torch.Tensor:
        index = (look_up_plane(posed, plane) + last / 2).round().long()
        z, y, x = torch.minimum(index.clamp(min=0), last).unbind(-1)
        return (inside[z, y, x] & ((index >= 0) & (index <= last)).all(-1)).float()

    return render(posed, scene, geometry, seed) * over_slices(geometry, 1, brain)
