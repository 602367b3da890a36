"""A whole instance as PS3.10 bytes, as stored or decoded into Explicit VR Little Endian (PS3.5 A)."""

import io
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from gpnet_node.errors import StorageError, UnreadableInstanceError
from gpnet_node.imaging.decoding import Codecs
from gpnet_node.intake.conversion import converted
from gpnet_node.store.versions import UNREADABLE

_CHUNK_BYTES = 1 << 18


def as_stored(path: Path) -> Iterator[bytes]:
    """Return a file piece by piece. Raises StorageError if it cannot be opened."""
    try:
        file = path.open("rb")
    except OSError as exc:
        raise StorageError(f"archive: {exc.strerror}") from exc

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(_CHUNK_BYTES):
                yield piece

    return pieces()


def as_explicit_little_endian(path: Path, *, max_bytes: int) -> Iterator[bytes]:
    """Return the instance in the transfer syntax that everybody reads; it is in memory as a whole.

    Raises UnreadableInstanceError, also where its pixels would be more than ``max_bytes``, and StorageError.
    """
    if not path.is_file():
        raise StorageError("archive: a file is missing")
    buffer = io.BytesIO()
    try:
        with Codecs() as codecs:
            data_set = converted(path, to=ExplicitVRLittleEndian, codecs=codecs, max_bytes=max_bytes)
        dcmwrite(buffer, data_set, implicit_vr=False, little_endian=True, enforce_file_format=True)
    except UNREADABLE as exc:
        raise UnreadableInstanceError(f"the instance cannot be decoded ({type(exc).__name__})") from exc
    whole = buffer.getbuffer()
    return (bytes(whole[at : at + _CHUNK_BYTES]) for at in range(0, len(whole), _CHUNK_BYTES))
