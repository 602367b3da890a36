"""The attributes that imaging asks of an image, and no others: what is kept of thousands of headers at once.

Whatever is asked of a ``Frame`` stands in ``KEYWORDS`` or ``PRIVATE``; asking for anything else is an error
at once, so that an attribute forgotten here never passes for one that the image lacks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

from gpnet_node.errors import NotAVolumeError, UnreadableInstanceError
from gpnet_node.imaging.elements import PARSE_FAILURES, as_items, as_strings, as_uid, finite_numbers, look_up

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PrivateElement:
    """A vendor's attribute (PS3.5 7.8), at top level or in a functional group macro."""

    group: int
    creator: str
    element: int
    macro: str | None = None

    def __str__(self) -> str:
        """Name it for a message."""
        return f"private ({self.group:04X},xx{self.element:02X})"


GE_RAW_DATA_TYPE = PrivateElement(group=0x0043, creator="GEMS_PARM_01", element=0x2F)
GE_VASCULAR_COLLAPSE = PrivateElement(group=0x0043, creator="GEMS_PARM_01", element=0x30)
SIEMENS_B_VALUE = PrivateElement(group=0x0019, creator="SIEMENS MR HEADER", element=0x0C)
# Two values that extend Frame Type.
SIEMENS_FRAME_TYPES = tuple(
    PrivateElement(
        group=0x0021, creator="SIEMENS MR SDI 02", element=element, macro="MRImageFrameTypeSequence"
    )
    for element in (0x75, 0x78)
)
PRIVATE = (GE_RAW_DATA_TYPE, GE_VASCULAR_COLLAPSE, SIEMENS_B_VALUE, *SIEMENS_FRAME_TYPES)

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
MACROS = frozenset(MACRO_OF.values())
# Legacy converted images keep here what fits no other macro (PS3.3 C.7.6.16.2.25 and following).
LEGACY_MACROS = frozenset(
    {"UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence"}
)
# Of a sequence only these values of its items are kept.
ITEM_KEYWORD = {
    "DiffusionGradientDirectionSequence": "DiffusionGradientOrientation",
    "ContributingEquipmentSequence": "Manufacturer",
}
# Who an image is of: compared with the other images, and not kept.
PATIENT = ("PatientBirthDate", "PatientID", "PatientName")
# May be asked of every frame.
KEYWORDS = (
    "AcquisitionNumber",
    "ComplexImageComponent",
    "ContributingEquipmentSequence",
    "DiffusionBValue",
    "DiffusionGradientDirectionSequence",
    "EchoNumbers",
    "EchoPlanarPulseSequence",
    "EchoPulseSequence",
    "EchoTime",
    "EffectiveEchoTime",
    "FrameAcquisitionNumber",
    "FrameOfReferenceUID",
    "FrameType",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InversionRecovery",
    "InversionTime",
    "InversionTimes",
    "MagneticFieldStrength",
    "Manufacturer",
    "Modality",
    "NominalCardiacTriggerDelayTime",
    "PixelSpacing",
    "ProtocolName",
    "RepetitionTime",
    "RescaleIntercept",
    "RescaleSlope",
    "ScanningSequence",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SliceThickness",
    "SpacingBetweenSlices",
    "StackID",
    "StudyInstanceUID",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "VolumetricProperties",
)
# Asked of the file only: what it is, how its pixels are stored, and where its frames are described.
FILE_KEYWORDS = (
    *PATIENT,
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "HighBit",
    "LossyImageCompression",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "Rows",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SharedFunctionalGroupsSequence",
    "SpecificCharacterSet",
)

Asked = str | PrivateElement
Values = Mapping[Asked, "tuple[str, ...] | Unreadable"]
CHARACTER_SET = Tag("SpecificCharacterSet")
# Values converted once and shared by the frames that state them; more than a series has in common.
SHARED_VALUES = 4096


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """Stands for a value that cannot be parsed, until somebody asks for it."""

    failure: str


def strings(values: Values, asked: Asked, where: str) -> tuple[str, ...]:
    """Return what ``values`` hold of an attribute, as text; empty where it is absent.

    Raises UnreadableInstanceError, naming ``where``, for a value that cannot be parsed, and AssertionError
    for an attribute that is not read.
    """
    found = values.get(asked, ())
    if isinstance(found, Unreadable):
        raise UnreadableInstanceError(f"{where}: {asked} cannot be read ({found.failure})")
    if not found and asked not in KEYWORDS and asked not in PRIVATE:
        raise AssertionError(f"{asked} is not among the attributes that are read")
    return found


def required_numbers(values: Values, keyword: str, count: int, where: str) -> tuple[float, ...]:
    """Exactly ``count`` numbers. Raises NotAVolumeError where absent, UnreadableInstanceError where wrong."""
    numbers = finite_numbers(strings(values, keyword, where), keyword, where)
    if not numbers:
        raise NotAVolumeError(f"{where} has no {keyword}")
    if len(numbers) != count:
        raise UnreadableInstanceError(f"{where}: {keyword} holds {len(numbers)} values instead of {count}")
    return numbers


def required_uid(values: Values, keyword: str, where: str) -> str:
    """A UID (PS3.5 9.1). Raises as ``required_numbers`` does."""
    return as_uid(strings(values, keyword, where), keyword, where)


class AttributeReader:
    """Takes the asked attributes from the headers of one series; a value that many share is kept once."""

    def __init__(self) -> None:
        # Plain integers: pydicom goes through all of them for every file.
        self.tags: list[BaseTag | int] = [*{*map(_tag, (*KEYWORDS, *FILE_KEYWORDS)), *_private_tags()}]
        self._keywords = {_tag(keyword): keyword for keyword in KEYWORDS}
        self._macros = {_tag(macro): macro for macro in (*MACROS, *LEGACY_MACROS)}
        self._known: dict[object, tuple[str, ...] | Unreadable] = {}
        self._met: dict[tuple[type, object], Any] = {}
        self._patients: dict[object, int] = {}

    def patient_of(self, header: Dataset) -> int:
        """Which of the patients of this reading an image is of: 0 for the first, and so on."""
        tags = map(BaseTag, map(_tag, PATIENT))
        stated = tuple(_converted(header, tag, "") if tag in header else () for tag in tags)
        return self._patients.setdefault(stated, len(self._patients))

    def once(self, value: T) -> T:
        """Return the value itself, or an equal one that was met before."""
        if len(self._met) >= SHARED_VALUES:
            self._met.clear()
        met: T = self._met.setdefault((type(value), value), value)
        return met

    def of_image(self, header: Dataset) -> Values:
        """What a classic image states."""
        return self._stated(header, _character_set(header), macro=None)

    def of_frames(self, header: Dataset, where: str) -> Iterator[Values]:
        """What holds for each frame of a multi-frame image.

        Its own functional groups count before the shared ones (PS3.3 C.7.6.16), a macro before what a
        legacy converted image keeps unassigned, and all of them before the top level.
        """
        characters = _character_set(header)
        shared = as_items(look_up(header, "SharedFunctionalGroupsSequence", where))
        below, above = self._groups(shared, characters, where)
        below = {**self._stated(header, characters, macro=None), **below}
        for item in as_items(look_up(header, "PerFrameFunctionalGroupsSequence", where)):
            unassigned, own = self._groups((item,), characters, where)
            yield {**below, **unassigned, **above, **own}

    def _groups(self, groups: Sequence[Dataset], characters: str | None, where: str) -> tuple[Values, Values]:
        """What functional groups state: unassigned to a macro, and in their macros."""
        unassigned: dict[Asked, tuple[str, ...] | Unreadable] = {}
        assigned: dict[Asked, tuple[str, ...] | Unreadable] = {}
        for group in reversed(groups):
            present = [(tag, self._macros[tag]) for tag in group.keys() if tag in self._macros]  # noqa: SIM118  # a dataset yields elements
            for tag, macro in sorted(present):  # of two unassigned the frame's own comes later, and counts
                for item in _items(group, tag, macro, where)[:1]:
                    legacy = macro in LEGACY_MACROS
                    found = self._stated(item, characters, macro=None if legacy else macro, legacy=legacy)
                    (unassigned if legacy else assigned).update(found)
        return unassigned, assigned

    def _stated(
        self, dataset: Dataset, characters: str | None, *, macro: str | None, legacy: bool = False
    ) -> Values:
        """What one dataset states of the attributes that may stand in it."""
        creators: dict[tuple[int, str], int] = {}
        found: dict[Asked, tuple[str, ...] | Unreadable] = {}
        for tag, element in list(dataset.items()):
            keyword = self._keywords.get(tag)
            if keyword is not None:
                if (macro is None or MACRO_OF.get(keyword) == macro) and (
                    value := self._value(dataset, element, tag, keyword, characters)
                ):
                    found[keyword] = value
            elif tag.is_private_creator and isinstance(element.value, bytes | str):
                name = element.value
                text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
                creators.setdefault((tag.group, text.strip(" \0")), tag.element)
        for private in () if legacy else PRIVATE:
            block = creators.get((private.group, private.creator))
            if block is None or private.macro != macro:
                continue
            tag = BaseTag(private.group << 16 | block << 8 | private.element)
            if tag in dataset and (
                value := self._value(dataset, dataset.get_item(tag), tag, private, characters)
            ):
                found[private] = value
        return found

    def _value(
        self, dataset: Dataset, element: object, tag: BaseTag, asked: Asked, characters: str | None
    ) -> tuple[str, ...] | Unreadable:
        if not isinstance(element, RawDataElement):
            return _converted(dataset, tag, asked)
        key = (asked, element.VR, element.value, element.is_implicit_VR, element.is_little_endian, characters)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= SHARED_VALUES:
                self._known.clear()
            known = self._known[key] = _converted(dataset, tag, asked)
        return known


def _converted(dataset: Dataset, tag: BaseTag, asked: Asked) -> tuple[str, ...] | Unreadable:
    try:
        value = dataset[tag].value
        if isinstance(asked, str) and asked in ITEM_KEYWORD:
            items = [as_strings(item.get(ITEM_KEYWORD[asked])) for item in as_items(value)]
            return tuple(text for texts in items for text in texts)
        return as_strings(value)
    except PARSE_FAILURES as exc:
        return Unreadable(failure=type(exc).__name__)


def _items(group: Dataset, tag: BaseTag, macro: str, where: str) -> Sequence[Dataset]:
    try:
        return as_items(group[tag].value)
    except PARSE_FAILURES as exc:
        raise UnreadableInstanceError(f"{where}: {macro} cannot be read ({type(exc).__name__})") from exc


def _character_set(header: Dataset) -> str | None:
    element = header.get_item(CHARACTER_SET) if CHARACTER_SET in header else None
    return None if element is None else str(element.value)


def _tag(keyword: str) -> int:
    return int(Tag(keyword))


def _private_tags() -> Iterator[int]:
    """Tags that the private elements of the top level may have: a creator may reserve any block."""
    for private in PRIVATE:
        if private.macro is None:
            for block in range(0x10, 0x100):
                yield private.group << 16 | block
                yield private.group << 16 | block << 8 | private.element
