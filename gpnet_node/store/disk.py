"""Watches the space that is left for the archive."""

from gpnet_node.log import get_logger
from gpnet_node.store.archive import Archive

log = get_logger(__name__)


class DiskWatch:
    """Warns each time that less than ``warn_free_bytes`` are left."""

    def __init__(self, archive: Archive, *, warn_free_bytes: int) -> None:
        self._archive = archive
        self._warn_free_bytes = warn_free_bytes
        self._warned = False

    def look(self) -> None:
        """Look now. Raises StorageError."""
        free = self._archive.free_bytes()
        low = free < self._warn_free_bytes
        if low and not self._warned:
            log.warning("the archive's disk is filling up", free_bytes=free, path=str(self._archive.root))
        self._warned = low
