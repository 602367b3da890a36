"""Own cohorts in BIDS derivatives layout: images, what their labels are called, and one box of each side.

``sub-*/anat/*_T2w.nii.gz`` (or ``sub-*/ses-*/anat/``) with ``*_dseg.nii.gz`` on the same grid and a table
``dseg.tsv`` of its values, beside it or in any folder above (BIDS 1.9, derivatives, discrete segmentations).
Read with SimpleITK, so places are LPS mm. Subject names are not kept anywhere.
"""

import csv
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.errors import InputError
from gpnet_node.model.drawing.synthesise import GPE, GPI
from gpnet_node.model.patient_grid import lps_grid, sample
from gpnet_node.model.training.loss import UNDIVIDED, UNKNOWN

_SAME_PLACE_MM = 1e-3  # by which the corners of image and labels may differ: NIfTI keeps single precision
_SAME_FORMS_MM = 0.1  # by which a file's two affines may differ: a qform is a rounded quaternion
_BETWEEN_SIDES_MM = 10.0  # at least, empty between the two pallida along the patient's x axis
_STRUCTURES = (
    (GPE, r"gpe|externus|external|lateral"),
    (GPI, r"gpi|internus|internal|medial"),
    (UNDIVIDED, r"gp|pallidum|pallidus"),
)
_PALLIDUM = r"gp|gpe|gpi|pallidum|pallidus"
_SIDES = (("left", r"left|l|lh"), ("right", r"right|r|rh"))


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a value of a label map says: GPE, GPI or UNDIVIDED; ``side``: None where it does not tell."""

    structure: int
    side: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SideBox:
    """One side of one image in a box, right sides mirrored.

    ``image``: float32 (C, z, y, x), as measured; a second channel that is not there is all zero.
    ``target``: int64 (2, z, y, x), classes and lesion; a cohort does not say where lesions are.
    """

    subject: str
    image: NDArray[np.float32]
    target: NDArray[np.int64]


def read_cohort(
    folder: Path, *, spacing_mm: float, shape: Sequence[int], second_channel: bool
) -> list[SideBox]:
    """Boxes of all sides that are labelled, centred on the pallidum, ``shape`` (z, y, x) large.

    ``second_channel``: T1w as well, registered rigidly to the T2w. Raises InputError naming the file.
    """
    boxes = []
    for path in _images(folder):
        image, labels = _read(path), _read(partner(path, "dseg"))
        check_same_grid(image, labels, path, partner(path, "dseg"))
        meanings = read_table(_table_of(partner(path, "dseg"), folder))
        values = sitk.GetArrayFromImage(labels).astype(np.int64)
        second = _registered(path, image) if second_channel else None
        for side, classes in divide_sides(values, meanings, labels, partner(path, "dseg")).items():
            grid = lps_grid(_centre_mm(classes, labels), spacing_mm, shape)
            channels = [sample(image, grid)]
            if second_channel:
                channels.append(_sampled(second, grid) if second else np.zeros_like(channels[0]))
            target = _resampled(classes, labels, grid)
            shown = np.stack(channels), np.stack([target, np.full_like(target, UNKNOWN)])
            if side == "right":
                shown = shown[0][..., ::-1].copy(), shown[1][..., ::-1].copy()
            boxes.append(SideBox(subject=_subject(path, folder), image=shown[0], target=shown[1]))
    return boxes


def folds(boxes: Sequence[SideBox], count: int, fold: int) -> tuple[list[SideBox], list[SideBox]]:
    """Boxes to train on, and those of the subjects held out in ``fold`` of ``count``.

    Subjects are divided, not images: both sides and every session of a person are on one side of it.
    """
    order = sorted({box.subject for box in boxes}, key=lambda name: hashlib.sha256(name.encode()).digest())
    held_out = set(order[fold::count])
    return [b for b in boxes if b.subject not in held_out], [b for b in boxes if b.subject in held_out]


def digest(folder: Path) -> str:
    """SHA-256 over the images, labels and tables, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(itertools.chain(folder.rglob("*.nii.gz"), folder.rglob("*dseg.tsv"))):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def partner(image: Path, suffix: str) -> Path:
    """The one file ``PREFIX[_ENTITY...]_SUFFIX.nii.gz`` of an image ``PREFIX_T2w.nii.gz``."""
    prefix = image.name.removesuffix("_T2w.nii.gz")
    found = sorted(
        path
        for path in image.parent.glob(f"*_{suffix}.nii.gz")
        if path.name.startswith(f"{prefix}_") and not re.search("_(run|acq)-", path.name.removeprefix(prefix))
    )
    if len(found) != 1:
        told = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{image}: wanted one {prefix}_*{suffix}.nii.gz beside it, found {told}")
    return found[0]


def read_table(path: Path) -> dict[int, Label]:
    """Values that are pallidum. Raises InputError where there is none, or a row cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(int(row["index"]), row["name"]) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{path}: not a table with the columns index and name: {exc}") from exc
    labels = {value: label for value, name in rows if (label := meaning(name))}
    if not labels:
        raise InputError(f"{path}: no name is a globus pallidus: {', '.join(name for _, name in rows)}")
    return labels


def meaning(name: str) -> Label | None:
    """What a structure's name says; None for any other structure."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name) if not name.isupper() else name
    parts = re.split(r"[^a-z0-9]+", words.lower())

    def says(pattern: str) -> bool:
        return any(re.fullmatch(pattern, part) for part in parts)

    if not says(_PALLIDUM):
        return None
    side = next((side for side, pattern in _SIDES if says(pattern)), None)
    structure = next(structure for structure, pattern in _STRUCTURES if says(pattern))
    return Label(structure=structure, side=side)


def check_same_grid(image: sitk.Image, labels: sitk.Image, path: Path, labels_path: Path) -> None:
    """Raises InputError naming both files and both affines (LPS mm) where voxels do not lie on each other."""
    one, other = _affine(image), _affine(labels)
    corner = np.array([*image.GetSize(), 1.0])
    apart = max(np.abs(one - other).max(), np.abs((one - other) @ corner).max())
    if image.GetSize() != labels.GetSize() or apart > _SAME_PLACE_MM:
        told = "; ".join(
            f"{where.name}: {volume.GetSize()} voxels, affine {np.round(affine[:3], 4).tolist()}"
            for where, volume, affine in ((path, image, one), (labels_path, labels, other))
        )
        raise InputError(f"{labels_path}: not on the grid of its image: {told}")


def divide_sides(
    values: NDArray[np.int64], meanings: Mapping[int, Label], grid: sitk.Image, path: Path
) -> dict[str, NDArray[np.uint8]]:
    """Classes (z, y, x) of each side that is labelled.

    Names without a side are divided in patient space, x growing to the left. Raises InputError where nothing
    is labelled, or where there is no gap between the sides.
    """
    affine = _affine(grid)
    classes = {side: np.zeros(values.shape, np.uint8) for side in ("left", "right")}
    for value, label in meanings.items():
        if label.side is not None:
            classes[label.side][values == value] = label.structure
    unsided = [value for value, label in meanings.items() if label.side is None]
    where = np.argwhere(np.isin(values, unsided))
    if len(where):
        x_mm = where[:, ::-1] @ affine[0, :3] + affine[0, 3]
        middle = _gap_mm(x_mm, path)
        for value in unsided:
            for side, on_side in (("left", x_mm > middle), ("right", x_mm <= middle)):
                z, y, x = where[on_side].T
                mine = values[z, y, x] == value
                classes[side][z[mine], y[mine], x[mine]] = meanings[value].structure
    found = {side: mask for side, mask in classes.items() if mask.any()}
    if not found:
        raise InputError(f"{path}: none of its values is a globus pallidus in dseg.tsv")
    return found


def _gap_mm(x_mm: NDArray[np.float64], path: Path) -> float:
    """Middle of the widest gap along x."""
    places = np.unique(np.round(x_mm, 3))
    gaps = np.diff(places)
    if not gaps.size or gaps.max() < _BETWEEN_SIDES_MM:
        raise InputError(
            f"{path}: left and right cannot be told apart, there are no {_BETWEEN_SIDES_MM:.0f} mm between "
            "them; name the sides in dseg.tsv"
        )
    widest = int(gaps.argmax())
    return float(places[widest] + places[widest + 1]) / 2


def register_rigidly(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """From places in ``fixed`` to places in ``moving``, by mutual information (Mattes 2003).

    Both are of one session: the search starts where the scanner says that they are.
    """
    fixed, moving = (sitk.Cast(image, sitk.sitkFloat32) for image in (fixed, moving))
    start = sitk.Euler3DTransform()
    start.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=100, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=False)
    return method.Execute(fixed, moving)


def _registered(path: Path, image: sitk.Image) -> tuple[sitk.Image, sitk.Transform] | None:
    """The subject's T1w and where it lies; None where there is none."""
    found = sorted(path.parent.glob("*_T1w.nii.gz"))
    if not found:
        return None
    if len(found) > 1:
        raise InputError(f"{path.parent}: wanted one *_T1w.nii.gz, found {', '.join(p.name for p in found)}")
    second = _read(found[0])
    try:
        return second, register_rigidly(image, second)
    except RuntimeError as exc:  # SimpleITK's own; of many lines, the last says why
        raise InputError(
            f"{found[0]}: cannot be registered to {path.name}: {str(exc).split(chr(10))[-1]}"
        ) from exc


def _sampled(second: tuple[sitk.Image, sitk.Transform], grid: sitk.Image) -> NDArray[np.float32]:
    image, transform = second
    values: NDArray[np.float32] = sitk.GetArrayFromImage(
        sitk.Resample(image, grid, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    )
    return values


def _resampled(classes: NDArray[np.uint8], labels: sitk.Image, grid: sitk.Image) -> NDArray[np.int64]:
    """Classes on another grid: pallidum where more than half of it is, there the class that has most."""
    kinds = np.array([GPE, GPI, UNDIVIDED])
    shares = sitk.GetImageFromArray((classes[..., None] == kinds).astype(np.float32), isVector=True)
    shares.CopyInformation(labels)
    there = sitk.GetArrayFromImage(sitk.Resample(shares, grid, sitk.Transform(), sitk.sitkLinear, 0.0))
    target: NDArray[np.int64] = np.where(there.sum(-1) > 0.5, kinds[there.argmax(-1)], 0)
    return target


def _images(folder: Path) -> Iterator[Path]:
    found = sorted(p for p in folder.glob("sub-*/**/*_T2w.nii.gz") if p.parent.name == "anat")
    if not found:
        raise InputError(f"{folder}: there is no sub-*/anat/*_T2w.nii.gz")
    yield from found


def _subject(path: Path, folder: Path) -> str:
    return path.relative_to(folder).parts[0]


def _table_of(labels: Path, folder: Path) -> Path:
    """``*_dseg.tsv`` of the same name, or the nearest dseg.tsv above (BIDS's inheritance)."""
    own = labels.with_name(labels.name.removesuffix(".nii.gz") + ".tsv")
    above = [parent / "dseg.tsv" for parent in labels.parents if parent == folder or folder in parent.parents]
    for path in (own, *above):
        if path.is_file():
            return path
    raise InputError(f"{labels}: there is no {own.name} beside it and no dseg.tsv in the folders above")


def _read(path: Path) -> sitk.Image:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as exc:  # SimpleITK's own
        raise InputError(f"{path}: cannot be read as NIfTI") from exc
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path}: wanted one volume, found {image.GetSize()} voxels")
    _check_one_affine(path)
    return image


def _check_one_affine(path: Path) -> None:
    """A NIfTI file may tell its place twice (qform, sform). Raises InputError where it tells two places."""
    header = nibabel.Nifti1Image.from_filename(path)
    (qform, qcode), (sform, scode) = header.get_qform(coded=True), header.get_sform(coded=True)
    if qcode and scode:
        corner = np.array([*header.shape[:3], 1.0])
        apart_mm = max(np.abs(qform - sform).max(), np.abs((qform - sform) @ corner).max())
        if apart_mm > _SAME_FORMS_MM:
            raise InputError(f"{path}: its qform and sform lie {apart_mm:.1f} mm apart; one must go")


def _affine(image: sitk.Image) -> NDArray[np.float64]:
    """Index (x, y, z, 1) to LPS mm, 4 x 4."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def _centre_mm(classes: NDArray[np.uint8], grid: sitk.Image) -> NDArray[np.float64]:
    affine = _affine(grid)
    mean: NDArray[np.float64] = affine[:3, :3] @ np.argwhere(classes > 0).mean(0)[::-1] + affine[:3, 3]
    return mean
