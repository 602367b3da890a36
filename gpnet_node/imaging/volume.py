"""A volume in patient space, and a label map on the same grid."""

from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from gpnet_node.imaging.frames import SourceFrame

__all__ = ["LabelMap", "SourceFrame", "Volume"]


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
