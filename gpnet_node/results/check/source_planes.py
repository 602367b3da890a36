"""Where each source frame lies in the patient, read again with plain pydicom for the self-check.

Shares no code with the reading of the series: a mistake there must not confirm itself here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.elements import PARSE_FAILURES
from gpnet_node.imaging.volume import Volume

FrameKey = tuple[str, int | None]  # SOP instance, and frame number where it is a multi-frame


@dataclass(frozen=True, kw_only=True, eq=False)
class SourcePlane:
    """One frame's plane (PS3.3 C.7.6.2.1.1): ``origin_mm`` is the centre of its first pixel."""

    slice_index: int
    origin_mm: NDArray[np.float64]  # (3,), LPS
    directions: NDArray[np.float64]  # (2, 3): down a column (rows grow), along a row (columns grow)
    spacing_mm: NDArray[np.float64]  # (2,): between rows, between columns

    def distance_mm(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far points, (n, 3), lie from the plane."""
        return np.asarray(np.abs((points_mm - self.origin_mm) @ np.cross(*self.directions)))

    def pixels(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Row and column of points, (n, 2); pixel centres at whole numbers."""
        return np.asarray((points_mm - self.origin_mm) @ self.directions.T / self.spacing_mm)

    def points_mm(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """The reverse of ``pixels``, in the plane, (n, 3)."""
        return np.asarray(self.origin_mm + pixels * self.spacing_mm @ self.directions)


def read_planes(volume: Volume) -> Mapping[FrameKey, SourcePlane]:
    """The plane of each frame of the volume. Raises SelfCheckError where a source cannot be read again."""
    wanted = [(frame.path, frame.sop_instance_uid, frame.frame_number) for frame in volume.frames]
    headers: dict[Any, Dataset] = {}
    planes = {}
    for slice_index, (path, uid, number) in enumerate(wanted):
        try:
            if path not in headers:
                headers[path] = dcmread(path, stop_before_pixels=True)
            planes[uid, number] = _plane(headers[path], number, slice_index)
        except PARSE_FAILURES as exc:
            raise SelfCheckError(f"the plane of SOP instance {uid} cannot be read again") from exc
    return planes


def _plane(header: Dataset, number: int | None, slice_index: int) -> SourcePlane:
    stated = [
        _stated(header, number, group, keyword)
        for group, keyword in (
            ("PlanePositionSequence", "ImagePositionPatient"),
            ("PlaneOrientationSequence", "ImageOrientationPatient"),
            ("PixelMeasuresSequence", "PixelSpacing"),
        )
    ]
    origin, cosines, spacing = stated
    # Cosines of few digits are not quite at a right angle: the nearest that are, in the same plane.
    left, _, right = np.linalg.svd(np.stack([cosines[3:], cosines[:3]]), full_matrices=False)
    return SourcePlane(slice_index=slice_index, origin_mm=origin, directions=left @ right, spacing_mm=spacing)


def _stated(header: Dataset, number: int | None, group: str, keyword: str) -> NDArray[np.float64]:
    """From the frame's own functional group, the shared one, or the top level of a classic image."""
    places = [header]
    if number is not None:
        places = [header.PerFrameFunctionalGroupsSequence[number - 1], *header.SharedFunctionalGroupsSequence]
        places = [place[group][0] for place in places if group in place]
    return np.array(places[0][keyword].value, dtype=np.float64)
