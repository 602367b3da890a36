"""What a classic MR image repeats of the source image it was made of, whatever form the source had."""

from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.valuerep import DSfloat

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.imaging.elements import PARSE_FAILURES, as_items, file_failure
from gpnet_node.imaging.frames import Frame
from gpnet_node.imaging.kinds import scanning_sequences

# Element for element as the source has them, at top level or in a functional group of the frame.
_COPIED = (
    # where it lies (PS3.3 C.7.4.1, C.7.6.2)
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
    "PatientPosition",
    "BodyPartExamined",
    "Laterality",
    # how its values are to be understood and shown (PS3.3 C.11.1, C.11.2)
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "VOILUTSequence",
    "PixelPaddingValue",
    # what it shows of the patient's identity: nothing is added to that (PS3.3 C.7.6.1)
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    # how it was acquired (PS3.3 C.8.3.1)
    "ProtocolName",
    "AcquisitionNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "SequenceVariant",
    "ScanOptions",
    "MRAcquisitionType",
    "SequenceName",
    "RepetitionTime",
    "EchoTime",
    "EchoTrainLength",
    "EchoNumbers",
    "InversionTime",
    "TriggerTime",
    "NumberOfAverages",
    "ImagingFrequency",
    "ImagedNucleus",
    "MagneticFieldStrength",
    "NumberOfPhaseEncodingSteps",
    "PercentSampling",
    "PercentPhaseFieldOfView",
    "PixelBandwidth",
    "ReceiveCoilName",
    "TransmitCoilName",
    "AcquisitionMatrix",
    "InPlanePhaseEncodingDirection",
    "FlipAngle",
    "VariableFlipAngleFlag",
    "SAR",
)
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# Type 2: present, empty where the source has none.
_TYPE_2 = (
    "PositionReferenceIndicator",
    "SliceThickness",
    "ScanOptions",
    "MRAcquisitionType",
    "EchoTime",
    "EchoTrainLength",
    "RepetitionTime",
)


def read_planes(path: Path, frames: tuple[Frame, ...]) -> Iterator[Dataset]:
    """What a classic MR image made of each of these frames of one file repeats of it, in their order.

    Position, spacing, window and rescale are the source's own elements. Of what an enhanced image states in
    other words, the classic image gets its echo time, scanning sequence and inversion time (PS3.3 C.8.3.1); a
    sequence of which nothing is known is RM, its variant NONE. Raises UnreadableInstanceError or StorageError
    where the file has changed since it was first read.
    """
    header = _read(path, f"SOP instance {frames[0].source.sop_instance_uid}")
    for frame in frames:
        yield _plane(header, frame)


def _read(path: Path, where: str) -> Dataset:
    tags = ["SpecificCharacterSet", "PixelRepresentation", *_COPIED, *_GROUPS]
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=tags)
        list(header.iterall())  # finds what cannot be read: of a fault decode's text doubles with each level
        header.decode()
    except OSError as exc:
        raise file_failure(exc, where) from exc
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"{where}: its header cannot be read again") from exc
    return header


def _plane(header: Dataset, frame: Frame) -> Dataset:
    flat = _flat(header, frame.source.frame_number)
    plane = Dataset()
    for keyword in _COPIED:
        if keyword in flat:
            plane.add(flat[keyword])
    if "EchoTime" not in plane and frame.echo_time_ms is not None:
        plane.EchoTime = DSfloat(frame.echo_time_ms, auto_format=True)
    plane.ScanningSequence = list(scanning_sequences(frame)) or "RM"
    if not plane.get("BodyPartExamined") and not plane.get("Laterality"):
        plane.BodyPartExamined = "BRAIN"  # no paired part, of which the side would have to be told (C.7.3.1)
    plane.SequenceVariant = plane.get("SequenceVariant") or "NONE"
    inversion_ms = frame.number("InversionTimes")
    if "InversionTime" not in plane and inversion_ms is not None:
        plane.InversionTime = DSfloat(inversion_ms, auto_format=True)
    for keyword in _TYPE_2:
        if keyword not in plane:
            setattr(plane, keyword, None)
    return plane


def _flat(header: Dataset, frame_number: int | None) -> Dataset:
    """Top level and the macros of a frame's functional groups as one (PS3.3 C.7.6.16): the nearest counts."""
    if frame_number is None:
        return header
    flat = Dataset()
    flat.update(header)
    shared, per_frame = (as_items(header.get(keyword)) for keyword in _GROUPS)
    for group in (*shared[:1], *per_frame[frame_number - 1 : frame_number]):
        for macro in group:
            for item in as_items(macro.value)[:1]:
                flat.update(item)
    return flat
