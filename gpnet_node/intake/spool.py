"""Where the data set of a request goes: of a C-STORE into a file of the archive, of a query into memory."""

import contextlib
import hashlib
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO

from gpnet_node.errors import GpnetError, StorageError, UnreadableInstanceError
from gpnet_node.store.archive import Archive, Unfinished

_LONGEST_IDENTIFIER = 1 << 20  # bytes: ten thousand UIDs


class Identifier(BytesIO):
    """Keeps the identifier of a query or retrieval; of one that is too long nothing, and says so."""

    too_long = False

    def write(self, fragment: bytes) -> int:  # type: ignore[override]  # pynetdicom writes bytes only
        """Append a fragment."""
        self.too_long = self.too_long or self.tell() + len(fragment) > _LONGEST_IDENTIFIER
        if self.too_long:
            self.seek(0)
            self.truncate()
            return len(fragment)
        return super().write(fragment)


class Spool:
    """Writes a data set to a file, byte for byte.

    ``preamble`` returns what stands before the data set in the file; it is asked when the first fragment
    comes, for only then is it known what the data set is called. What goes wrong is kept instead of raised,
    and the rest of the data set is read and dropped, so that the sender is told what was wrong.
    """

    def __init__(
        self,
        archive: Archive,
        preamble: Callable[[], bytes],
        *,
        max_bytes: int,
        kind: Unfinished = "incoming",
    ) -> None:
        self._archive = archive
        self._preamble = preamble
        self._max_bytes = max_bytes
        self._kind: Unfinished = kind
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._fault: GpnetError | None = None
        self.start = 0  # where the data set begins in the file
        self.size_bytes = 0  # of the data set

    @property
    def sha256(self) -> str:
        """SHA-256 of the data set as it was sent."""
        return self._digest.hexdigest()

    def write(self, fragment: bytes | memoryview) -> None:
        """Append a fragment of the data set."""
        self.size_bytes += len(fragment)
        if self._fault is None:
            try:
                self._append(fragment)
            except GpnetError as exc:
                self._drop(exc)
            except OSError as exc:
                self._drop(StorageError(f"archive: {exc.strerror}"))

    def _append(self, fragment: bytes | memoryview) -> None:
        if self.size_bytes > self._max_bytes:
            raise UnreadableInstanceError(f"the data set is longer than {self._max_bytes} bytes")
        if self._file is None:
            head = self._preamble()
            self._file = self._archive.incoming(self._kind)
            self._file.write(head)
            self.start = len(head)
        self._file.write(fragment)
        self._digest.update(fragment)

    def whole(self) -> BinaryIO:
        """Return the file, complete.

        Raises StorageError or UnreadableInstanceError: what went wrong, or that there was no data set.
        """
        if self._fault is not None:
            raise self._fault
        if self._file is None:
            raise UnreadableInstanceError("the request has no data set")
        return self._file

    def discard(self) -> None:
        """Remove the file, unless it was kept; what still comes is dropped."""
        self._drop(StorageError("the data set was discarded"))

    def _drop(self, fault: GpnetError) -> None:
        self._fault = self._fault or fault
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(StorageError):  # the receiver removes leftovers at its start
                self._archive.discard(file)
