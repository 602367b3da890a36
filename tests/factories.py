"""Real DICOM files to order: a classic MR series and an enhanced one, with defaults for everything.

The defaults describe a small 7T T2 turbo spin echo slab. Any keyword of the DICOM dictionary overrides or
adds an attribute: a value for all slices, a callable ``index -> value``, or None to leave it out. In the
enhanced series a keyword that lives in a functional group is set there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset, FileMetaDataset, config, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from gpnet_node.imaging.attributes import MACRO_OF

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
NATIVE = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
)

# Patient, study and equipment: none of them is a real person's or scanner's.
COMMON: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "Modality": "MR",
    "Manufacturer": "Example Scanners",
    "ManufacturerModelName": "Seven",
    "SoftwareVersions": "1.0",
    "DeviceSerialNumber": "1",
    "StudyDate": "20240131",
    "StudyTime": "101500",
    "SeriesDate": "20240131",
    "SeriesTime": "102000",
    "ContentDate": "20240131",
    "ContentTime": "102500",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "",
    "StudyID": "1",
    "PatientName": "Example^Person",
    "PatientID": "P1",
    "PatientBirthDate": "19600101",
    "PatientSex": "O",
    "PatientPosition": "HFS",
    "SeriesNumber": 5,
    "SeriesDescription": "t2_tse_tra_7T",
    "ProtocolName": "t2_tse_tra_7T",
    "BodyPartExamined": "BRAIN",
    "PositionReferenceIndicator": "",
    "MagneticFieldStrength": 7.0,
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "DIS3D"],
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 0,
}
CLASSIC: dict[str, Any] = {
    "ScanningSequence": "SE",
    "SequenceVariant": "SK",
    "ScanOptions": "",
    "MRAcquisitionType": "2D",
    "EchoTime": 60.0,
    "RepetitionTime": 6000.0,
    "EchoTrainLength": 9,
    "EchoNumbers": 1,
    "FlipAngle": 130.0,
    "AcquisitionNumber": 1,
}
ENHANCED: dict[str, Any] = {
    "PulseSequenceName": "tse2d1",
    "EchoPulseSequence": "SPIN",
    "MRAcquisitionType": "2D",
    "ComplexImageComponent": "MAGNITUDE",
    "AcquisitionContrast": "T2",
    "VolumetricProperties": "VOLUME",
    "PixelPresentation": "MONOCHROME",
    "VolumeBasedCalculationTechnique": "NONE",
    "FrameType": ["ORIGINAL", "PRIMARY", "M", "NONE"],
    "EffectiveEchoTime": 60.0,
    "RepetitionTime": 6000.0,
    "FlipAngle": 130.0,
    "StackID": "1",
    "RescaleSlope": 1.0,
    "RescaleIntercept": 0.0,
    "RescaleType": "US",
}
GROUP_OF = {
    **MACRO_OF,
    "RescaleType": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
}


def ramp(slices: int, rows: int, columns: int) -> NDArray[np.uint16]:
    """Voxels that are all different up to 65,536 of them, so that any mix-up of axes shows."""
    return (
        np.arange(slices * rows * columns, dtype=np.uint32).astype(np.uint16).reshape(slices, rows, columns)
    )


def normal_of(orientation: Sequence[float]) -> NDArray[np.float64]:
    """Row x column (PS3.3 C.7.6.2.1.1)."""
    return np.asarray(np.cross(orientation[:3], orientation[3:]), dtype=np.float64)


def slice_position(
    index: float, *, orientation: Sequence[float], origin_mm: Sequence[float], spacing_mm: Sequence[float]
) -> list[float]:
    """Position of the first voxel of slice ``index``, LPS mm, rounded as scanners do."""
    return [
        round(float(x), 6) for x in np.asarray(origin_mm) + index * spacing_mm[0] * normal_of(orientation)
    ]


def mr_series(
    folder: Path,
    *,
    slices: int = 10,
    rows: int = 16,
    columns: int = 12,
    spacing_mm: tuple[float, float, float] = (1.0, 0.4, 0.4),
    orientation: Sequence[float] = AXIAL,
    origin_mm: Sequence[float] = (-2.2, -3.0, -5.0),
    voxels: NDArray[Any] | None = None,
    series: str = "1",
    transfer_syntax: str = ExplicitVRLittleEndian,
    **attributes: Any,  # noqa: ANN401  # as many types as DICOM has
) -> list[Path]:
    """Write a classic MR series, one file a slice, and return the paths in slice order.

    ``spacing_mm``: slice, row, column. ``voxels``: (slice, row, column) of 8 or 16 bits, signed or not.
    ``series``: two names make two series of one study and one frame of reference.
    """
    voxels = ramp(slices, rows, columns) if voxels is None else voxels
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, plane in enumerate(voxels):
        dataset = _new(MRImageStorage, series, f"{folder}/{index}", transfer_syntax)
        where = slice_position(index, orientation=orientation, origin_mm=origin_mm, spacing_mm=spacing_mm)
        defaults = {
            **COMMON,
            **CLASSIC,
            **_pixel_attributes(plane),
            "InstanceNumber": index + 1,
            "ImagePositionPatient": where,
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": list(spacing_mm[1:]),
            "SliceThickness": spacing_mm[0],
            "SpacingBetweenSlices": spacing_mm[0],
        }
        for keyword, value in {**defaults, **attributes}.items():
            _set(dataset, keyword, value, index)
        paths.append(_save(dataset, plane, folder / f"{series}-{index:04d}.dcm", attributes))
    return paths


def enhanced_mr(
    folder: Path,
    *,
    slices: int = 10,
    rows: int = 16,
    columns: int = 12,
    spacing_mm: tuple[float, float, float] = (1.0, 0.4, 0.4),
    orientation: Sequence[float] = AXIAL,
    origin_mm: Sequence[float] = (-2.2, -3.0, -5.0),
    voxels: NDArray[Any] | None = None,
    series: str = "1",
    transfer_syntax: str = ExplicitVRLittleEndian,
    sop_class: str = EnhancedMRImageStorage,
    order: Sequence[int] | None = None,
    **attributes: Any,  # noqa: ANN401  # as many types as DICOM has
) -> Path:
    """Write one enhanced multi-frame instance and return its path; arguments as for ``mr_series``.

    ``order``: which slice each frame shows (all of them, ascending, by default; repeats are allowed). A
    callable attribute is called with the number of the frame, counted from 0.
    """
    voxels = ramp(slices, rows, columns) if voxels is None else voxels
    order = range(len(voxels)) if order is None else order
    folder.mkdir(parents=True, exist_ok=True)
    dataset = _new(sop_class, series, f"{folder}/enhanced", transfer_syntax)
    per_frame: dict[str, Any] = {
        **ENHANCED,
        "ImageOrientationPatient": list(orientation),
        "PixelSpacing": list(spacing_mm[1:]),
        "SliceThickness": spacing_mm[0],
        "SpacingBetweenSlices": spacing_mm[0],
        "InStackPositionNumber": lambda frame: order[frame] + 1,
        "TemporalPositionIndex": 1,
        "ImagePositionPatient": lambda frame: slice_position(
            order[frame], orientation=orientation, origin_mm=origin_mm, spacing_mm=spacing_mm
        ),
    }
    top = {**COMMON, **_pixel_attributes(voxels[0]), "InstanceNumber": 1, "NumberOfFrames": len(order)}
    every = {**top, **per_frame, **attributes}
    dataset.PerFrameFunctionalGroupsSequence = [Dataset() for _ in order]
    shared = Dataset()
    dataset.SharedFunctionalGroupsSequence = [shared]
    for keyword, value in every.items():
        macro = GROUP_OF.get(keyword)
        if macro is None:
            _set(dataset, keyword, value, 0)
        elif callable(value) or keyword in attributes:
            for frame, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
                _set(_macro(item, macro), keyword, value, frame)
        else:
            _set(_macro(shared, macro), keyword, value, 0)
    return _save(dataset, voxels[list(order)], folder / f"{series}-enhanced.dcm", attributes)


def rejection_note(
    path: Path,
    images: Sequence[Path],
    *,
    title: str = "113001",
    meaning: str = "Rejected for Quality Reasons",
    uid: str | None = None,
) -> Path:
    """Write a Key Object Selection that rejects images, as an Image Manager does, and return its path."""
    evidence = [dcmread(image) for image in images]
    note = hd.ko.KeyObjectSelectionDocument(
        evidence=evidence,
        content=hd.ko.KeyObjectSelection(
            document_title=hd.sr.CodedConcept(title, "DCM", meaning), referenced_objects=evidence
        ),
        series_instance_uid=generate_uid(),
        series_number=99,
        sop_instance_uid=uid or generate_uid(),
        instance_number=1,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    note.save_as(path, enforce_file_format=True)
    return path


def with_undefined_lengths(path: Path) -> Path:
    """Write a file's sequences and items anew without their lengths, as some scanners do (PS3.5 7.5)."""
    data_set = dcmread(path)
    _forget_lengths(data_set)
    data_set.save_as(path)
    return path


def _forget_lengths(data_set: Dataset) -> None:
    for element in data_set:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _forget_lengths(item)


def rewrite(path: Path, **attributes: Any) -> Path:  # noqa: ANN401
    """Change attributes of a written file at top level; None removes one."""
    dataset = dcmread(path)
    for keyword, value in attributes.items():
        if value is None and keyword in dataset:
            delattr(dataset, keyword)
        _set(dataset, keyword, value, 0)
    dataset.save_as(path, enforce_file_format=True)
    return path


def spoil(path: Path, word: str) -> Path:
    """Write ``word`` where it breaks the form of identifying attributes and of their character set."""
    dataset = dcmread(path)
    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime", "PatientAge", "TimezoneOffsetFromUTC"):
        _spoil(dataset, keyword, word)
    for keyword in ("PatientID", "PatientSex", "AccessionNumber", "StudyID", "StudyDescription"):
        _spoil(dataset, keyword, f"{word} " * 20)
    _spoil(dataset, "PatientName", f"{word}=" * 5)
    _spoil(dataset, "SpecificCharacterSet", word)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _spoil(dataset: Dataset, keyword: str, value: str) -> None:
    dataset.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=config.IGNORE))


def uid_of(path: Path) -> str:
    """SOPInstanceUID of a written file."""
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def _macro(item: Dataset, name: str) -> Dataset:
    if name not in item:
        setattr(item, name, [Dataset()])
    found: Dataset = item[name].value[0]
    return found


def _new(sop_class: str, series: str, instance: str, transfer_syntax: str) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = UID(sop_class)
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance", series, instance])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", series])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
    return dataset


def _pixel_attributes(plane: NDArray[Any]) -> dict[str, Any]:
    bits = plane.dtype.itemsize * 8
    return {
        "Rows": plane.shape[0],
        "Columns": plane.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(plane.dtype.kind == "i"),
    }


def _set(dataset: Dataset, keyword: str, value: Any, index: int) -> None:  # noqa: ANN401
    value = value(index) if callable(value) else value
    if value is not None:
        setattr(dataset, keyword, value)
    elif keyword in dataset:
        delattr(dataset, keyword)


def _save(dataset: Dataset, pixels: NDArray[Any], path: Path, attributes: dict[str, Any]) -> Path:
    meta = dataset.file_meta
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", generate_uid())
    wanted = meta.TransferSyntaxUID
    meta.TransferSyntaxUID = wanted if wanted in NATIVE else ExplicitVRLittleEndian
    big_endian = wanted == "1.2.840.10008.1.2.2"
    if "PixelData" not in attributes:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
        dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    elif attributes["PixelData"] is not None:
        dataset["PixelData"].VR = "OW"
    if wanted not in NATIVE:
        dataset.compress(wanted, generate_instance_uid=False)
    implicit_vr = wanted == "1.2.840.10008.1.2"
    dcmwrite(path, dataset, enforce_file_format=True, implicit_vr=implicit_vr, little_endian=not big_endian)
    return path
