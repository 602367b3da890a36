"""The images that nobody drew: the CIT168 T1 template with its labels, and real heads without any."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.errors import NoPallidumError
from gpnet_node.imaging.frames import find_files
from gpnet_node.imaging.series import choose, read_headers, split
from gpnet_node.imaging.volume import SourceFrame, Volume, assemble
from gpnet_node.model.evaluation.metrics import dice
from gpnet_node.model.evaluation.mni_atlases import ATLASES, atlas_shares, read_template
from gpnet_node.model.evaluation.panels import Panel, resampled
from gpnet_node.model.evaluation.scores import NETWORK
from gpnet_node.model.patient_grid import as_image, lps_grid
from gpnet_node.model.segment import GPNetSegmenter, classes_on
from gpnet_node.model.segmentation import Segmentation

JUDGE = "CIT168 atlas"
HEADS = {  # below the folder of real data
    "T2, 0.75 x 0.75 x 5.5 mm": "images/torchio_t2/t2.nii.gz",
    "1.5 T T1, 0.41 x 0.41 x 1.5 mm": "dicom/niivue_t1_mpr_tra",
}
_PANEL_SHAPE = (104, 120, 104)
_PANEL_MM = 0.390625


@dataclass(frozen=True, kw_only=True, eq=False)
class RealHead:
    """What the network finds where there is no truth. ``asymmetry_percent``: left less right, of the mean."""

    volumes_mm3: Mapping[str, float]
    asymmetry_percent: Mapping[str, float]
    needs_review: tuple[str, ...]
    panels: tuple[Panel, ...]


def template_dice(segmenter: GPNetSegmenter, atlases: Path) -> dict[str, float]:
    """Dice of the whole GP on the CIT168 template, mean of both sides, by method.

    Atlases are carried by the coordinates of MNI152 2009, which they share with the template; CIT168's own
    labels are the truth. 0 where the network finds no pallidum.
    """
    image = read_template(atlases)
    whole = {
        name: {side: _whole(share, image) for side, share in atlas_shares(atlases, numbers).items()}
        for name, numbers in ATLASES.items()
    }
    try:
        found = segmenter.segment(volume_of(image))
        whole[NETWORK] = {
            side: (classes_on(part, image) > 0).astype(np.uint8) for side, part in found.sides.items()
        }
    except NoPallidumError:
        whole[NETWORK] = {side: np.zeros_like(mask) for side, mask in whole[JUDGE].items()}
    truth = whole.pop(JUDGE)
    return {
        name: round(float(np.mean([dice(masks[side], truth[side], 1) for side in truth])), 4)
        for name, masks in whole.items()
    }


def real_heads(segmenter: GPNetSegmenter, data: Path) -> Iterator[tuple[str, RealHead | None]]:
    """Each head of ``data`` that is there; None where the network finds no pallidum."""
    for name, place in HEADS.items():
        if (data / place).exists():
            volume = _read(data / place)
            try:
                found = segmenter.segment(volume)
            except NoPallidumError:
                yield name, None
                continue
            yield name, _described(name, volume, found, segmenter)


def volume_of(image: sitk.Image) -> Volume:
    """An image without frames, e.g. of a NIfTI file; its axes may have any direction."""
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = (direction * image.GetSpacing())[:, ::-1]  # (slice, row, column)
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image).astype(np.float32)
    geometry = hd.VolumeGeometry(
        affine=affine,
        spatial_shape=voxels.shape,
        coordinate_system="PATIENT",
        frame_of_reference_uid="2.25.1",
    )
    frames = tuple(
        SourceFrame(path=Path("file"), sop_class_uid="", sop_instance_uid=f"2.25.{k + 1}", frame_number=None)
        for k in range(len(voxels))
    )
    return Volume(voxels=voxels, geometry=geometry, frames=frames)


def _read(place: Path) -> Volume:
    """A NIfTI file, or a folder with the DICOM files of one series."""
    if place.is_file():
        return volume_of(sitk.DICOMOrient(sitk.ReadImage(str(place), sitk.sitkFloat32), "LPS"))
    return assemble(choose(split(read_headers(find_files(place)))))


def _whole(share: sitk.Image, grid: sitk.Image) -> NDArray[np.uint8]:
    """GPe and GPi of one side together, on another grid."""
    values = sitk.GetArrayFromImage(sitk.Resample(share, grid, sitk.Transform(), sitk.sitkLinear, 0.0))
    return np.asarray(values.sum(-1) > 0.5, np.uint8)


def _described(name: str, volume: Volume, found: Segmentation, segmenter: GPNetSegmenter) -> RealHead:
    voxel_mm3 = float(np.prod(volume.geometry.spacing))
    volumes = {
        s.name: round(float((found.labels.labels == s.number).sum()) * voxel_mm3, 1)
        for s in segmenter.card.structures
    }
    asymmetry = {}
    for structure in ("GPe", "GPi"):
        left, right = volumes[f"{structure} left"], volumes[f"{structure} right"]
        asymmetry[structure] = round(200 * (left - right) / (left + right), 1) if left + right else 0.0
    image, panels = as_image(volume), []
    for side, part in found.sides.items():
        middle = np.array(part.origin_mm) + part.spacing_mm * (np.array(part.lesion.shape[::-1]) - 1) / 2
        grid = lps_grid(middle, _PANEL_MM, _PANEL_SHAPE)
        panels.append(
            Panel(
                title=f"{name}\n{side}",
                image=resampled(image, grid),
                found=classes_on(part, grid),
                truth=None,
                spacing_mm=_PANEL_MM,
            )
        )
    return RealHead(
        volumes_mm3=volumes,
        asymmetry_percent=asymmetry,
        needs_review=found.quality.reasons,
        panels=tuple(panels),
    )
