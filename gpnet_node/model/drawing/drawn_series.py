"""Writes a drawn head as a scanner would: a classic MR series, one file per slice."""

from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from gpnet_node.model.drawing.head import DrawnHead


def write_series(drawn: DrawnHead, folder: Path, *, description: str, at: datetime) -> tuple[Path, ...]:
    """Write ``folder/0001.dcm`` and on, with new UIDs. ``at`` is the time of acquisition, with its zone.

    The patient is called ``GENERATED^HEAD``; the headers say 7 T and T2 TSE, which is what is drawn.
    """
    folder.mkdir(parents=True)
    series_uid = generate_uid(prefix=None)
    common = _common(drawn, description, at)
    common.SeriesInstanceUID = series_uid
    affine = np.asarray(drawn.geometry.affine, float)
    paths = []
    for k, pixels in enumerate(drawn.voxels):
        image = Dataset()
        image.update(common)
        image.SOPInstanceUID = generate_uid(prefix=None)
        image.InstanceNumber = k + 1
        image.ImagePositionPatient = [f"{v:.6f}" for v in (affine @ [k, 0, 0, 1])[:3]]
        image.PixelData = pixels.round().astype("<u2").tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = MRImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        paths.append(folder / f"{k + 1:04d}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return tuple(paths)


def _common(drawn: DrawnHead, description: str, at: datetime) -> Dataset:
    """What all slices share."""
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID = MRImageStorage
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]
    image.PatientName, image.PatientID = "GENERATED^HEAD", "GENERATED"
    image.PatientBirthDate, image.PatientSex = "", "O"
    image.StudyInstanceUID, image.StudyID, image.AccessionNumber = generate_uid(prefix=None), "1", ""
    image.ReferringPhysicianName = ""
    for kind in ("Study", "Series", "Acquisition", "Content"):
        setattr(image, f"{kind}Date", at.strftime("%Y%m%d"))
        setattr(image, f"{kind}Time", at.strftime("%H%M%S"))
    image.Modality, image.SeriesNumber, image.AcquisitionNumber = "MR", 5, 1
    image.SeriesDescription, image.StudyDescription = description, "Drawn head, nobody's"
    image.ProtocolName, image.BodyPartExamined, image.PatientPosition = description, "BRAIN", "HFS"
    image.Manufacturer, image.ManufacturerModelName = "GENERATED", "shape model"
    image.MagneticFieldStrength, image.EchoTime, image.RepetitionTime = "7", "58", "6500"
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "SE", "SK", ""
    image.MRAcquisitionType, image.EchoTrainLength = "2D", 9
    image.ImagesInAcquisition = len(drawn.voxels)
    _place(image, drawn)
    return image


def _place(image: Dataset, drawn: DrawnHead) -> None:
    geometry = drawn.geometry
    axes = np.asarray(geometry.affine, float)[:3, :3] / geometry.spacing
    image.FrameOfReferenceUID, image.PositionReferenceIndicator = generate_uid(prefix=None), ""
    # Along a row the column index grows: PS3.3 C.7.6.2.1.1 names that direction first.
    image.ImageOrientationPatient = [f"{v:.9f}" for v in (*axes[:, 2], *axes[:, 1])]
    image.PixelSpacing = [f"{s:g}" for s in geometry.spacing[1:]]
    image.SliceThickness = image.SpacingBetweenSlices = f"{geometry.spacing[0]:g}"
    image.Rows, image.Columns = drawn.voxels.shape[1:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
