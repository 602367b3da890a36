"""Small MR instances for tests: a factory with defaults, and its encodings."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

ROOT = "1.2.826.0.1.3680043.10.1.2"


def mr_image(
    *,
    series: str = f"{ROOT}.1",
    study: str = f"{ROOT}.2",
    number: int = 1,
    rows: int = 8,
    columns: int = 8,
    images: int | None = None,
    seed: int = 0,
    **attributes: object,
) -> pydicom.Dataset:
    """One axial MR image at ``number`` mm; any attribute may be given by its keyword."""
    image = pydicom.Dataset()
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
    image.StudyInstanceUID, image.SeriesInstanceUID = study, series
    image.FrameOfReferenceUID = f"{ROOT}.3"
    image.Modality, image.Manufacturer = "MR", "SYNTHETIC"
    image.PatientName, image.PatientID, image.PatientBirthDate = "Doe^Jane", "SECRET-4711", "19700101"
    image.PatientSex, image.StudyDate, image.StudyTime = "F", "20260101", "120000"
    image.AccessionNumber, image.StudyID, image.SeriesNumber = "ACC-1", "1", 1
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    image.ScanningSequence, image.SequenceVariant, image.MRAcquisitionType = "SE", "SK", "2D"
    image.EchoTime, image.RepetitionTime, image.MagneticFieldStrength = 60.0, 5000.0, 7.0
    image.SeriesDescription, image.PatientPosition = "t2_tse_tra", "HFS"
    image.InstanceNumber, image.AcquisitionNumber = number, 1
    image.ImagePositionPatient = [0.0, 0.0, float(number)]
    image.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    image.PixelSpacing, image.SliceThickness, image.SpacingBetweenSlices = [0.5, 0.5], 1.0, 1.0
    image.Rows, image.Columns, image.SamplesPerPixel = rows, columns, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    if images is not None:
        image.ImagesInAcquisition = images
    generator = np.random.default_rng(seed + number)
    image.PixelData = generator.integers(0, 4096, (rows, columns), dtype=np.uint16).tobytes()
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    return image


def write(
    image: pydicom.Dataset, path: Path, *, transfer_syntax: pydicom.uid.UID = ExplicitVRLittleEndian
) -> Path:
    """Write the image as a DICOM file, encoded in ``transfer_syntax``."""
    copy = pydicom.Dataset(image)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if transfer_syntax.is_compressed and transfer_syntax.is_encapsulated:
        copy.compress(transfer_syntax, generate_instance_uid=False)
    copy.file_meta.TransferSyntaxUID = transfer_syntax
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, copy, enforce_file_format=True)
    return path


def data_set_bytes(path: Path) -> bytes:
    """Return the encoded data set of a DICOM file, without preamble and file meta information."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")  # (0002,0000) UL, behind preamble, prefix and header
    return content[144 + length :]
