"""Attributes of a dataset that may be broken: read at one boundary, where pydicom's errors become ours."""

import math
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from gpnet_node.errors import NotAVolumeError, StorageError, UnreadableInstanceError

# What pydicom raises on bytes that are not DICOM, are cut short, or hold another VR than the dictionary's.
# OSError is one of them: pydicom raises it, without an error number, for a sequence that ends too early.
PARSE_FAILURES = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    struct.error,
    zlib.error,
)

# Functional group macro (PS3.3 C.7.6.16.2, C.8.13.5) that holds an attribute, where it is not at top level.
MACRO_OF = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "FrameType": "MRImageFrameTypeSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "VolumetricProperties": "MRImageFrameTypeSequence",
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "RepetitionTime": "MRTimingAndRelatedParametersSequence",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "InversionRecovery": "MRModifierSequence",
    "InversionTimes": "MRModifierSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "DiffusionDirectionality": "MRDiffusionSequence",
    "DiffusionGradientDirectionSequence": "MRDiffusionSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
}
# Legacy converted images keep here what fits no other macro (PS3.3 C.7.6.16.2.25 and following).
LEGACY_MACROS = (
    "UnassignedPerFrameConvertedAttributesSequence",
    "UnassignedSharedConvertedAttributesSequence",
)

_UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 9.1; components with a leading zero exist and harm nobody


def file_failure(exc: OSError, where: str) -> StorageError | UnreadableInstanceError:
    """Say who must act: the operator, for what the system could not read, else the sender."""
    if exc.errno is None:
        return UnreadableInstanceError(f"{where} cannot be parsed ({type(exc).__name__})")
    return StorageError(f"{where} cannot be read: {exc.strerror}")


def look_up(header: Dataset, groups: Sequence[Dataset], keyword: str, where: str) -> Any:  # noqa: ANN401
    """Value of ``keyword`` in the first of ``groups`` and ``header`` that holds one, else None.

    Raises UnreadableInstanceError, naming ``where``, for a value that cannot be parsed.
    """
    macros = [macro for macro in (MACRO_OF.get(keyword), *LEGACY_MACROS) if macro]
    try:
        for group, macro in ((group, macro) for macro in macros for group in groups):
            items = group.get(macro)
            value = items[0].get(keyword) if items else None
            if value is not None and value != "":
                return value
        value = header.get(keyword)
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"{where}: {keyword} cannot be read ({type(exc).__name__})") from exc
    return None if value is None or value == "" else value


def as_items(value: Any) -> tuple[Dataset, ...]:  # noqa: ANN401
    """Items of a sequence; empty where it is absent or something else."""
    return tuple(item for item in value if isinstance(item, Dataset)) if isinstance(value, Sequence) else ()


def as_texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401
    """All values of an attribute as text without padding; empty where it is absent."""
    if value is None:
        return ()
    items = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    return tuple(text for text in (str(item).strip(" \0") for item in items) if text)


def as_numbers(value: Any, keyword: str, where: str) -> tuple[float, ...]:  # noqa: ANN401
    """All values of an attribute as finite numbers. Raises UnreadableInstanceError naming it."""
    if value is None:
        return ()
    items = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    try:
        numbers = tuple(float(item) for item in items)
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"{where}: {keyword} is not a number") from exc
    if not all(math.isfinite(number) for number in numbers):
        raise UnreadableInstanceError(f"{where}: {keyword} is not a finite number")
    return numbers


def required_numbers(
    header: Dataset, groups: Sequence[Dataset], keyword: str, count: int, where: str
) -> tuple[float, ...]:
    """Exactly ``count`` numbers. Raises NotAVolumeError where absent, UnreadableInstanceError where wrong."""
    numbers = as_numbers(look_up(header, groups, keyword, where), keyword, where)
    if not numbers:
        raise NotAVolumeError(f"{where} has no {keyword}")
    if len(numbers) != count:
        raise UnreadableInstanceError(f"{where}: {keyword} holds {len(numbers)} values instead of {count}")
    return numbers


def required_integer(header: Dataset, keyword: str, where: str, *, default: int | None = None) -> int:
    """One whole number at top level. Raises as ``required_numbers`` does."""
    if default is not None and look_up(header, (), keyword, where) is None:
        return default
    (number,) = required_numbers(header, (), keyword, 1, where)
    if number != int(number):
        raise UnreadableInstanceError(f"{where}: {keyword} is {number:g}, not a whole number")
    return int(number)


def required_uid(header: Dataset, keyword: str, where: str) -> str:
    """A UID (PS3.5 9.1) at top level. Raises as ``required_numbers`` does."""
    texts = as_texts(look_up(header, (), keyword, where))
    if not texts:
        raise NotAVolumeError(f"{where} has no {keyword}")
    if len(texts) > 1 or not _UID.fullmatch(texts[0]):
        raise UnreadableInstanceError(f"{where}: {keyword} is not a UID (PS3.5 9.1)")
    return texts[0]
