"""A volume in patient space, and a label map on the same grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from gpnet_node.errors import NotAVolumeError
from gpnet_node.imaging.decoding import Codecs, read_frames
from gpnet_node.imaging.frames import Frame, SourceFrame
from gpnet_node.imaging.pixels import Limits
from gpnet_node.imaging.series import SortedStack, Stack, sort

__all__ = ["LabelMap", "SourceFrame", "Volume", "assemble"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Rescaled signal on a regular grid in the patient coordinate system (LPS, mm).

    ``voxels``: float32, (slice, row, column). ``geometry``: highdicom's; its affine takes
    (slice, row, column) to LPS mm at the voxel centre (PS3.3 C.7.6.2.1.1) and it carries the
    FrameOfReferenceUID. ``frames``: one source per slice, in slice order.
    """

    voxels: NDArray[np.float32]
    geometry: hd.VolumeGeometry
    frames: tuple[SourceFrame, ...]

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other; that would be our own mistake."""
        if (
            self.voxels.shape != tuple(self.geometry.spatial_shape)
            or len(self.frames) != self.voxels.shape[0]
        ):
            raise ValueError(
                f"voxels {self.voxels.shape}, grid {self.geometry.spatial_shape}, {len(self.frames)} frames"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelMap:
    """Structure numbers of the model card (0 = background) on exactly the grid of a volume.

    ``labels``: uint8, (slice, row, column).
    """

    labels: NDArray[np.uint8]
    geometry: hd.VolumeGeometry

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other; that would be our own mistake."""
        if self.labels.shape != tuple(self.geometry.spatial_shape):
            raise ValueError(f"labels {self.labels.shape}, grid {self.geometry.spatial_shape}")


def assemble(stack: Stack, *, limits: Limits | None = None) -> Volume:
    """Sort a stack, check that it is whole, and load its pixels as rescaled signal.

    The slice axis ascends along the normal (row x column); rows and columns are the sources' own. Rescale
    Slope and Intercept are applied slice by slice (PS3.3 C.11.1, C.7.6.16.2.9). MONOCHROME1 changes only how
    values are shown (C.7.6.3.1.2), so stored values stay as they are. One slice at a time is decoded into
    the volume. Raises as ``series.sort`` does, NotAVolumeError for a volume beyond ``limits``, and
    UnreadableInstanceError for pixels that cannot be decoded.
    """
    limits = limits or Limits()
    ordered = sort(stack)
    first = ordered.frames[0]
    shape = (len(ordered.frames), first.rows, first.columns)
    if shape[0] * shape[1] * shape[2] > limits.voxels:
        raise NotAVolumeError(
            f"series {stack.series_instance_uid} has {shape[0]} x {shape[1]} x {shape[2]} voxels; "
            f"the limit is {limits.voxels}"
        )
    voxels = np.empty(shape, dtype=np.float32)
    _fill(voxels, ordered.frames)
    return Volume(
        voxels=voxels, geometry=_geometry(ordered, shape), frames=tuple(f.source for f in ordered.frames)
    )


def _fill(voxels: NDArray[np.float32], frames: Sequence[Frame]) -> None:
    """Decode file by file, so that a multi-frame instance is opened once."""
    of_file: dict[Path, list[int]] = {}
    for index, frame in enumerate(frames):
        of_file.setdefault(frame.source.path, []).append(index)
    with Codecs() as codecs:
        for path, indices in of_file.items():
            layouts = [frames[index].pixels for index in indices]
            where = f"SOP instance {frames[indices[0]].source.sop_instance_uid}"
            for index, pixels in zip(indices, read_frames(path, layouts, where, codecs), strict=True):
                slope, intercept = _rescale(frames[index])
                voxels[index] = pixels if (slope, intercept) == (1, 0) else pixels * slope + intercept


def _rescale(frame: Frame) -> tuple[float, float]:
    slope, intercept = frame.number("RescaleSlope"), frame.number("RescaleIntercept")
    if slope == 0:
        raise NotAVolumeError(f"{frame.source} has RescaleSlope 0: all its voxels would be equal")
    return (1.0 if slope is None else slope), (0.0 if intercept is None else intercept)


def _geometry(ordered: SortedStack, shape: tuple[int, int, int]) -> hd.VolumeGeometry:
    """Affine (slice, row, column) -> LPS mm at the voxel centre (PS3.3 C.7.6.2.1.1)."""
    first = ordered.frames[0]
    affine = np.eye(4)
    affine[:3, 0] = ordered.normal * ordered.spacing_mm
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing_mm[0]
    affine[:3, 2] = np.array(first.orientation[:3]) * first.spacing_mm[1]
    affine[:3, 3] = first.position_mm
    return hd.VolumeGeometry(
        affine=affine,
        spatial_shape=shape,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        frame_of_reference_uid=first.frame_of_reference_uid,
    )
