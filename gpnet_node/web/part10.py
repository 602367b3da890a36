"""The head of a PS3.10 file that comes in pieces: what it announces, and where its data set begins."""

from io import BytesIO

from pydicom.filereader import read_dataset
from pydicom.uid import UID

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.intake.keeping import Announced
from gpnet_node.store.versions import UNREADABLE

_FIXED_BYTES = 144  # preamble, prefix, and the element that says how long the rest is (PS3.10 7.1)
_MAX_META_BYTES = 1 << 16


def head_length(beginning: bytes) -> int | None:
    """Return how many bytes stand before the data set, or None while that cannot be told yet.

    Raises UnreadableInstanceError for what is not such a file.
    """
    if len(beginning) < _FIXED_BYTES:
        return None
    if beginning[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        raise UnreadableInstanceError("the part is not a DICOM file with a group length (PS3.10 7.1)")
    length = int.from_bytes(beginning[140:144], "little")
    if length > _MAX_META_BYTES:
        raise UnreadableInstanceError("the file meta information is too long")
    return _FIXED_BYTES + length


def announced(head: bytes, *, sender: str) -> Announced:
    """Read the file meta information. Raises UnreadableInstanceError."""
    try:
        meta = read_dataset(BytesIO(head[132:]), is_implicit_VR=False, is_little_endian=True)
        return Announced(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax=UID(meta.TransferSyntaxUID),
            sender=sender,
        )
    except (*UNREADABLE, OSError) as exc:  # a sequence that ends too early
        raise UnreadableInstanceError(
            f"the file meta information cannot be read ({type(exc).__name__})"
        ) from exc
