"""The ``[audit]`` section of ``node.toml``: where audit messages go. Without it there are none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from gpnet_node.section import Section, faults_of_files


class AuditConfig(Section):
    """Audit messages (PS3.15 A.5) are appended to ``file``, or sent to ``syslog``: one of the two."""

    file: Path | None = None  # relative to the archive
    syslog: str | None = None  # host:port
    tls: bool = False  # syslog within TLS (RFC 5425), with the certificates of [tls]; else by UDP (RFC 5426)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of ``syslog``."""
        return _address(self.syslog or "")

    @field_validator("syslog")
    @classmethod
    def _is_address(cls, syslog: str | None) -> str | None:
        if syslog is not None:
            _address(syslog)
        return syslog

    @model_validator(mode="after")
    def _one_destination(self) -> Self:
        if (self.file is None) == (self.syslog is None):
            raise ValueError("give file or syslog, one of the two")
        if self.tls and self.syslog is None:
            raise ValueError("tls needs syslog: a file is not sent")
        return self

    def resolved(self, archive: Path) -> "AuditConfig":
        """Return it with the path of its file counted from ``archive``."""
        return (
            self if self.file is None else self.model_copy(update={"file": (archive / self.file).resolve()})
        )

    def faults(self, archive: Path, *, has_certificates: bool) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for a file that is not the node's own, and for TLS without certificates."""
        if self.tls and not has_certificates:
            yield "tls", "there is no [tls], whose certificates it needs"
        if self.file is None:
            return
        if self.file.exists():
            yield from faults_of_files({"file": self.file}, secret=("file",))
        elif self.file.parent != archive and not self.file.parent.is_dir():
            yield "file", f"there is no folder {self.file.parent}"


def _address(text: str) -> tuple[str, int]:
    """Take ``host:port`` apart. Raises ValueError."""
    wrong = f"{text!r} is not host:port, such as logs.example:514"
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(wrong) from exc
    if not host or not port or parts.netloc != text or "@" in text:
        raise ValueError(wrong)
    return host, port
