"""The ``[web]`` section of ``node.toml``: where the node speaks HTTP, and who may ask it."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gpnet_node.section import Section, Texts, faults_of_files

_FILES = ("token_file", "tls_certificate", "tls_key", "client_ca")
_SECRET = ("token_file", "tls_key")  # for the node's own account alone


class WebConfig(Section):
    """DICOMweb and health. Relative paths count from the file's folder.

    Beyond this machine it listens only if it can tell who asks: by a token or by a client certificate.
    """

    # Fields that decide whether another is good stand before it.
    enabled: bool = False
    token_file: Path | None = None  # one token a line; a request must bear one of them
    tls_certificate: Path | None = None  # PEM, with the chain
    tls_key: Path | None = None
    client_ca: Path | None = None  # who signs the certificates of clients, which then must have one
    host: str = "127.0.0.1"  # the address to listen on
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    url: str | None = None  # how clients reach /dicom-web, where a proxy stands before the node
    allowed_origins: Texts = ()  # other web pages that may ask (CORS), such as a viewer's
    may_store: bool = False  # whether STOW-RS is open to who may ask
    max_parts: Annotated[int, Field(ge=1)] = 20_000  # instances in one STOW-RS request

    @property
    def knows_clients(self) -> bool:
        """Whether only those may ask who show a token or a certificate."""
        return self.token_file is not None or self.client_ca is not None

    @field_validator("host")
    @classmethod
    def _loopback_or_known(cls, host: str, info: ValidationInfo) -> str:
        try:
            address = ip_address(host)
        except ValueError as exc:
            raise ValueError(f"{host!r} is not an IP address; names are not looked up") from exc
        if not (address.is_loopback or info.data.get("token_file") or info.data.get("client_ca")):
            raise ValueError(
                "without token_file or client_ca anybody could read the patients' images: "
                "give one of them, or listen on 127.0.0.1"
            )
        return str(address)

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not _is_web_address(url):
            raise ValueError("it begins with http:// or https:// and names a host")
        return url.rstrip("/") if url else None

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _is_web_address(origin) or urlsplit(origin).path or origin.endswith("/"):
                raise ValueError(f"{origin!r} is not an origin: it looks like https://viewer.example:8443")
        return origins

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: give both, or neither")
        if self.client_ca is not None and self.tls_certificate is None:
            raise ValueError("client_ca needs tls_certificate and tls_key: clients show theirs within TLS")
        return self

    def resolved(self, folder: Path) -> "WebConfig":
        """Return it with the paths of its files counted from ``folder``."""
        paths = {name: getattr(self, name) for name in _FILES}
        found = {name: (folder / path).resolve() for name, path in paths.items() if path is not None}
        return self.model_copy(update=found)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for each file that is not there, or is secret and open to others."""
        if self.enabled:
            yield from faults_of_files({name: getattr(self, name) for name in _FILES}, secret=_SECRET)


def _is_web_address(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
