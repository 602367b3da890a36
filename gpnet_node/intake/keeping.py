"""From a spooled data set to an instance that is safe in the archive: one way in, for C-STORE and STOW-RS."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)

from gpnet_node.errors import MismatchedInstanceError, UnreadableInstanceError
from gpnet_node.intake.spool import Spool
from gpnet_node.results.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gpnet_node.store.archive import Archive
from gpnet_node.store.header import header_of
from gpnet_node.store.instance import is_safe_uid, read_received, uid_of
from gpnet_node.store.reindex import as_kept
from gpnet_node.store.states import Arrival

IMAGE_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)

# What the codecs decode, in the order in which we choose where a sender offers several: first what needs no
# codec, then lossless, then lossy, which is kept and flagged at the gate.
TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLossless,
    RLELossless,
    JPEGLSNearLossless,
    JPEG2000,
    JPEGExtended12Bit,
    JPEGBaseline8Bit,
)


@dataclass(frozen=True, kw_only=True)
class Announced:
    """What the sender says of an instance before its data set: in the C-STORE request, or the file's head.

    ``sender``: the AE title that is noted as its source.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: UID
    sender: str


def preamble(announced: Announced) -> bytes:
    """Return preamble and file meta information (PS3.10 7.1) for the data set that follows.

    Raises UnreadableInstanceError if the instance is named by something that is not a UID.
    """
    if not is_safe_uid(announced.sop_class_uid) or not is_safe_uid(announced.sop_instance_uid):
        raise UnreadableInstanceError("the SOP Instance UID is not a UID")
    announced_uids = (announced.sop_class_uid, announced.sop_instance_uid, announced.transfer_syntax)
    sop_class, instance, syntax, implementation = (
        _padded(uid, b"\0") for uid in (*announced_uids, IMPLEMENTATION_CLASS_UID)
    )
    elements = b"".join(
        (
            struct.pack("<HH2sHL", 2, 0x0001, b"OB", 0, 2) + b"\0\1",
            _element(0x0002, b"UI", sop_class),
            _element(0x0003, b"UI", instance),
            _element(0x0010, b"UI", syntax),
            _element(0x0012, b"UI", implementation),
            _element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
            _element(0x0016, b"AE", _padded(announced.sender, b" ")),
        )
    )
    return b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element of group 2 whose length takes 16 bits, in explicit VR little endian."""
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)


def keep(
    archive: Archive,
    spool: Spool,
    announced: Announced,
    *,
    max_bytes: int,
    clock: Callable[[], datetime],
    check: Callable[[Dataset], None] = lambda header: None,
) -> Arrival:
    """Make a whole data set safe in the archive; what it returns is then to be told to the index.

    ``check`` may refuse by what the header says. Raises StorageError, UnreadableInstanceError or
    MismatchedInstanceError; then nothing is kept.
    """
    file = spool.whole()
    received = read_received(
        file, start=spool.start, transfer_syntax=announced.transfer_syntax, max_bytes=max_bytes
    )
    header = received.header
    sop_class = uid_of(header, "SOPClassUID")
    if uid_of(header, "SOPInstanceUID") != announced.sop_instance_uid:
        raise MismatchedInstanceError("the data set's SOP Instance UID is not the request's")
    if sop_class != announced.sop_class_uid:
        raise MismatchedInstanceError("the data set's SOP Class UID is not the request's")
    if sop_class in IMAGE_CLASSES and not received.has_pixels:
        raise MismatchedInstanceError("the image has no pixel data")
    check(header)
    known = header_of(header)
    kept = archive.keep(file, announced.sop_instance_uid)
    arrival = Arrival(
        header=known,
        version=kept.version,
        transfer_syntax_uid=str(announced.transfer_syntax),
        sha256=spool.sha256,
        size_bytes=spool.size_bytes,
        path=kept.path,
        received_at=clock(),
        association_id=None,
        calling_ae=announced.sender,
        new=kept.new,
    )
    return arrival if kept.new else as_kept(archive.root, arrival)
