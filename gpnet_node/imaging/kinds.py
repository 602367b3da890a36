"""What kind of image a frame is, in the words of the standard and of the vendors that do not use them."""

import re
from collections.abc import Callable

from gpnet_node.imaging.attributes import (
    GE_RAW_DATA_TYPE,
    GE_VASCULAR_COLLAPSE,
    SIEMENS_B_VALUE,
    SIEMENS_FRAME_TYPES,
    Asked,
    PrivateElement,
)
from gpnet_node.imaging.frames import Frame

Trait = Callable[[Frame], float | str | None]

GE_COMPONENTS = {0: "MAGNITUDE", 1: "PHASE", 2: "REAL", 3: "IMAGINARY"}  # Raw Data Type

_CODES = re.compile(r"[A-Z0-9_ .\\+-]*|[0-9.e+-]*|nan|inf")

# Values 3 and later of Image Type: Siemens and Philips write letters, others the words.
WORDS = {
    "M": "MAGNITUDE",
    "P": "PHASE",
    "R": "REAL",
    "I": "IMAGINARY",
    "PHASE": "PHASE",
    "PHASE MAP": "PHASE",
    "REAL": "REAL",
    "IMAGINARY": "IMAGINARY",
    "FIELD_MAP": "OTHER",
    "B0 MAP": "OTHER",
}


def told(text: str) -> str:
    """Return a text of the header as a sentence may quote it: where it has the form of a code or a number.

    A code string has capitals, digits, blanks and underscores (PS3.5 6.2, CS); what is none may be a name.
    """
    return text if _CODES.fullmatch(text) else "(no code)"


def component(frame: Frame) -> str:
    """MAGNITUDE, PHASE, REAL, IMAGINARY or OTHER (PS3.3 C.8.13.3.1.1).

    Told by ComplexImageComponent, by GE's private Raw Data Type, or by ImageType; an image that says nothing
    is a magnitude image.
    """
    stated = frame.text("ComplexImageComponent")
    if stated in GE_COMPONENTS.values() and stated is not None:
        return stated
    raw = _private_number(frame, GE_RAW_DATA_TYPE)
    if raw is not None and raw in GE_COMPONENTS:
        return GE_COMPONENTS[int(raw)]
    return next((WORDS[value] for value in frame.image_type[2:] if value in WORDS), "MAGNITUDE")


def acquisition_traits(frame: Frame) -> tuple[tuple[str, str], ...]:
    """What frames of one volume have in common, as (name, value); a value that is not stated is left out."""
    echo_time, inversion = frame.echo_time_ms, frame.number("InversionTime") or frame.number("InversionTimes")
    numbers = (
        ("echo number", frame.number("EchoNumbers")),
        ("TE/ms", None if echo_time is None else round(echo_time, 2)),
        ("TI/ms", inversion),
        ("b-value", b_value(frame)),
    )
    return (
        ("component", component(frame)),
        ("image type", "\\".join(frame.image_type)),
        *((name, f"{number:g}") for name, number in numbers if number is not None),
        *((name, text) for name, text in (("stack", frame.text("StackID")),) if text is not None),
    )


def b_value(frame: Frame) -> float | None:
    """Diffusion b-value in s/mm2, where the standard's attribute or Siemens' private one states it."""
    stated = frame.number("DiffusionBValue")
    return _private_number(frame, SIEMENS_B_VALUE) if stated is None else stated


def scanning_sequences(frame: Frame) -> tuple[str, ...]:
    """Scanning Sequence values SE, GR, IR, EP, RM (PS3.3 C.8.3.1), also for enhanced images (C.8.13.4)."""
    stated = frame.texts("ScanningSequence")
    if stated:
        return stated
    spin, gradient = ("SPIN", "BOTH"), ("GRADIENT", "BOTH")
    found = (
        ("SE", frame.text("EchoPulseSequence") in spin),
        ("GR", frame.text("EchoPulseSequence") in gradient),
        ("IR", frame.text("InversionRecovery") == "YES"),
        ("EP", frame.text("EchoPlanarPulseSequence") == "YES"),
    )
    return tuple(name for name, present in found if present)


def distortion_correction(frame: Frame) -> str | None:
    """DIS3D, DIS2D or ND (none) as Siemens writes it in Image Type, or None where nothing is said.

    Enhanced Siemens images say it in a private value beside Frame Type; others at least by Volumetric
    Properties DISTORTED (PS3.3 C.8.16.2.1.2).
    """
    places: tuple[Asked, ...] = ("ImageType", "FrameType", *SIEMENS_FRAME_TYPES)
    said = {value for place in places for value in frame.texts(place)}
    found = next((name for name in ("DIS3D", "DIS2D", "ND") if name in said), None)
    return "ND" if found is None and frame.text("VolumetricProperties") == "DISTORTED" else found


def repetition_traits() -> tuple[tuple[str, Trait, bool], ...]:
    """Attributes that tell images of one position apart, the most telling first: name, value, is it time?"""
    return (
        ("temporal position", _temporal_position, True),
        ("acquisition", _acquisition, True),
        ("diffusion direction", _diffusion_direction, False),
        ("trigger time", _trigger_time, True),
        ("GE image subset", _ge_subset, False),
    )


def _temporal_position(frame: Frame) -> float | None:
    index = frame.number("TemporalPositionIndex")
    return frame.number("TemporalPositionIdentifier") if index is None else index


def _acquisition(frame: Frame) -> float | None:
    number = frame.number("FrameAcquisitionNumber")
    return frame.number("AcquisitionNumber") if number is None else number


def _diffusion_direction(frame: Frame) -> str | None:
    return frame.text("DiffusionGradientDirectionSequence")


def _trigger_time(frame: Frame) -> float | None:
    delay = frame.number("NominalCardiacTriggerDelayTime")
    return frame.number("TriggerTime") if delay is None else delay


def _ge_subset(frame: Frame) -> float | None:
    """GE field maps (for one) write two images a position that differ in the vascular collapse flag only."""
    return _private_number(frame, GE_VASCULAR_COLLAPSE)


def _private_number(frame: Frame, element: PrivateElement) -> float | None:
    """A vendor's single number; what is something else is not what it is taken for, and says nothing."""
    texts = frame.texts(element)
    try:
        return float(texts[0]) if len(texts) == 1 else None
    except ValueError:
        return None
