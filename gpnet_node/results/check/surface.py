"""What the self-check asks of Encapsulated STL objects: closed surfaces of the label map's shape and place.

Decoded with plain pydicom and numpy; nothing here knows how the meshes were made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from gpnet_node.errors import SelfCheckError
from gpnet_node.imaging.elements import PARSE_FAILURES
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import ModelCard, Structure
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.identity import check_identity, read_identity
from gpnet_node.results.check.truth import Truth

STL_CLASS = "1.2.840.10008.5.1.4.1.1.104.3"
# What smoothing may change.
VOLUME_TOLERANCE = 0.02
CENTROID_TOLERANCE_MM = 0.1
# Stored normals are single precision; a turned one has a cosine of -1.
NORMAL_COSINE = 0.99
_START, _FACET = 84, 50  # bytes: header and count, one triangle


@dataclass(frozen=True, kw_only=True, eq=False)
class _Surface:
    """A model as its bytes say. ``corners``: (n, 3, 3), of each triangle, LPS mm."""

    dataset: Dataset
    number: int
    instances: frozenset[str]
    normals: NDArray[np.float64]  # (n, 3)
    corners: NDArray[np.float64]


def check_surfaces(
    contents: Sequence[bytes],
    volume: Volume,
    labels: LabelMap,
    truth: Mapping[int, Truth],
    card: ModelCard,
    findings: Findings,
) -> None:
    """Compare the bytes of all surfaces of one label map with it and with the card.

    There must be one for each structure that is not empty, in the card's order. Raises SelfCheckError where
    a reader could not read one, StorageError where the source cannot be read again; everything that differs
    becomes a finding.
    """
    surfaces = [_decode(content) for content in contents]
    structures = {structure.number: structure for structure in card.structures}
    present = [number for number in structures if truth[number].count]
    found = [surface.number for surface in surfaces]
    findings.expect(found == present, f"there are surfaces of structures {found}, not of {present}")
    for surface in surfaces:
        structure = structures.get(surface.number)
        if structure is None:
            continue
        name = f"surface of {structure.name}"
        check_identity(name, surface.dataset, read_identity(volume), findings)
        _check_description(surface, structure, volume, findings)
        _check_closed(surface, name, findings)
        _check_shape(surface, name, truth[structure.number], findings)
        _check_border(surface, name, labels, findings)


def _decode(content: bytes) -> _Surface:
    try:
        return _surface(dcmread(BytesIO(content)))
    except PARSE_FAILURES as exc:
        raise SelfCheckError(f"a surface cannot be read back ({type(exc).__name__})") from exc


def _surface(dataset: Dataset) -> _Surface:
    if dataset.SOPClassUID != STL_CLASS or dataset.MIMETypeOfEncapsulatedDocument != "model/stl":
        raise SelfCheckError("a surface cannot be read back: it is another kind of object")
    stl = dataset.EncapsulatedDocument[: int(dataset.EncapsulatedDocumentLength)]
    count = int.from_bytes(stl[_START - 4 : _START], "little")
    if stl[:5].lower() == b"solid" or len(stl) != _START + count * _FACET:
        raise SelfCheckError(f"a surface cannot be read back: no binary STL of {count} triangles")
    facets = np.frombuffer(stl, dtype=np.uint8, offset=_START).reshape(count, _FACET)
    numbers = np.frombuffer(facets[:, :48].tobytes(), dtype="<f4").reshape(count, 4, 3).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise SelfCheckError("a surface cannot be read back: it holds numbers that are not finite")
    return _Surface(
        dataset=dataset,
        number=int(dataset.InstanceNumber),
        instances=frozenset(
            str(item.ReferencedSOPInstanceUID)
            for series in dataset.ReferencedSeriesSequence
            for item in series.ReferencedInstanceSequence
        ),
        normals=numbers[:, 0],
        corners=numbers[:, 1:],
    )


def _check_description(surface: _Surface, structure: Structure, volume: Volume, findings: Findings) -> None:
    dataset, name = surface.dataset, f"surface of {structure.name}"
    expected, found = str(volume.geometry.frame_of_reference_uid), str(dataset.get("FrameOfReferenceUID"))
    findings.expect(
        found == expected, f"the {name}'s frame of reference is {found}, the source's is {expected}"
    )
    unit = str(dataset.MeasurementUnitsCodeSequence[0].CodeValue)
    findings.expect(unit == "mm", f"the {name} is in {unit}, not in mm")
    title = str(dataset.DocumentTitle)
    findings.expect(
        title.startswith(f"{structure.name}.") and "RESEARCH" in title, f"the {name} has another title"
    )
    described = f"{structure.type.meaning}, {structure.side}"
    findings.expect(
        dataset.get("ContentDescription") == described, f"the {name} is not described as {described}"
    )
    instances = frozenset(frame.sop_instance_uid for frame in volume.frames)
    findings.expect(
        surface.instances == instances,
        f"the {name} lists {len(surface.instances & instances)} of {len(instances)} source instances",
    )


def _check_closed(surface: _Surface, name: str, findings: Findings) -> None:
    """Each edge is run along once in either direction: closed, and all triangles turned the same way."""
    points, index = np.unique(surface.corners.reshape(-1, 3), axis=0, return_inverse=True)
    triangles = index.reshape(-1, 3)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    there, times = np.unique(edges @ [len(points), 1], return_counts=True)
    back = np.unique(edges[:, ::-1] @ [len(points), 1])
    flat = int((edges[:, 0] == edges[:, 1]).sum())
    findings.expect(not flat, f"the {name} has {flat} triangles without an area")
    unmatched = len(np.setxor1d(there, back)) // 2
    findings.expect(not unmatched, f"the {name} is not closed: {unmatched} edges have one triangle only")
    shared = int((times > 1).sum())
    findings.expect(not shared, f"the {name} is no manifold: {shared} edges have more than two triangles")
    a, b, c = np.moveaxis(surface.corners, 1, 0)
    across = np.cross(b - a, c - a)
    cosines = (across * surface.normals).sum(axis=1)
    turned = int((cosines < NORMAL_COSINE * np.linalg.norm(across, axis=1)).sum())
    # A sliver's normal is lost in single precision.
    findings.expect(turned <= len(a) // 1000, f"the {name} has {turned} normals that are not its triangles'")


def _check_shape(surface: _Surface, name: str, truth: Truth, findings: Findings) -> None:
    """Volume and centre of mass, each triangle taken as a tetrahedron on one common point."""
    origin = surface.corners.reshape(-1, 3).mean(axis=0)
    corners = surface.corners - origin
    parts = np.linalg.det(corners) / 6
    volume_mm3 = float(parts.sum())
    findings.expect(volume_mm3 > 0, f"the {name} is turned inside out")
    findings.expect(
        abs(volume_mm3 - truth.volume_mm3) <= VOLUME_TOLERANCE * truth.volume_mm3,
        f"the {name} has a volume of {volume_mm3:.1f} mm3, the label map {truth.volume_mm3:.1f} mm3",
    )
    if truth.centroid_mm is None or not volume_mm3:
        return
    centre = origin + (parts[:, None] * corners.sum(axis=1)).sum(axis=0) / (4 * volume_mm3)
    off_mm = float(np.linalg.norm(centre - truth.centroid_mm))
    findings.expect(
        off_mm <= CENTROID_TOLERANCE_MM,
        f"the {name} has its centre of mass {off_mm:.2f} mm off the label map's",
    )


def _check_border(surface: _Surface, name: str, labels: LabelMap, findings: Findings) -> None:
    """Each corner lies within a voxel of the structure's border, and each voxel of that near a corner."""
    affine = np.asarray(labels.geometry.affine, dtype=float)
    points = surface.corners.reshape(-1, 3)
    index = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    structure = labels.labels == surface.number
    inside = np.argwhere(structure)
    low, high = inside.min(axis=0, initial=structure.size) - 2, inside.max(axis=0, initial=-1) + 3
    where = np.unique(np.rint(index).astype(int), axis=0)
    near = ((where >= low + 1) & (where < high - 1)).all(axis=1)
    mask = _box(structure, low, high)
    touched = np.zeros_like(mask)
    touched[tuple((where[near] - low).T)] = True
    border = _spread(mask) & _spread(~mask)
    stray = int((~near).sum() + (touched & ~border).sum())
    findings.expect(not stray, f"the {name} strays from the label map's border in {stray} voxels")
    missed = int((mask & _spread(~mask, faces=True) & ~_spread(touched)).sum())
    findings.expect(not missed, f"the {name} misses {missed} voxels of the label map's border")


def _box(mask: NDArray[np.bool_], low: NDArray[np.intp], high: NDArray[np.intp]) -> NDArray[np.bool_]:
    """The part of a mask from ``low`` to ``high``, which may reach beyond it."""
    before, after = np.maximum(-low, 0), np.maximum(high - mask.shape, 0)
    kept = tuple(slice(max(start, 0), stop) for start, stop in zip(low, high, strict=True))
    return np.pad(mask[kept], list(zip(before, after, strict=True)))


def _spread(mask: NDArray[np.bool_], *, faces: bool = False) -> NDArray[np.bool_]:
    """A mask with all neighbours of its voxels, or those across a face only."""
    padded = np.pad(mask, 1)
    found = np.zeros_like(mask)
    for offset in np.ndindex(3, 3, 3):
        if faces and sum(step != 1 for step in offset) > 1:
            continue
        found |= padded[
            tuple(slice(step, step + size) for step, size in zip(offset, mask.shape, strict=True))
        ]
    return found
