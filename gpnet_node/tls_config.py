"""The ``[tls]`` section of ``node.toml``: associations within TLS, both sides known by certificates."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import model_validator

from gpnet_node.section import Section, faults_of_files

_FILES = ("certificate", "key", "ca")


class TlsConfig(Section):
    """Given, it makes the DICOM port speak TLS alone (PS3.15 B.12). Paths count from the file's folder.

    The files are read for each association, so that renewed ones count from the next.
    """

    certificate: Path | None = None  # PEM, with the chain
    key: Path | None = None
    ca: Path | None = None  # who signs the certificates of peers, which must have one

    @property
    def enabled(self) -> bool:
        """Whether TLS is spoken."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        if len({getattr(self, name) is None for name in _FILES}) > 1:
            raise ValueError("certificate, key and ca belong together: give all three, or none")
        return self

    def resolved(self, folder: Path) -> "TlsConfig":
        """Return it with the paths of its files counted from ``folder``."""
        paths = {name: getattr(self, name) for name in _FILES}
        found = {name: (folder / path).resolve() for name, path in paths.items() if path is not None}
        return self.model_copy(update=found)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for each file that is not there, or is secret and open to others."""
        yield from faults_of_files({name: getattr(self, name) for name in _FILES}, secret=("key",))
