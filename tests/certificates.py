"""Keys and certificates for tests, made by OpenSSL."""

import subprocess
from pathlib import Path

from tests.peers import program


def certificate(folder: Path, name: str, *, signed_by: str | None = None) -> Path:
    """Make a key and a certificate for 127.0.0.1 with OpenSSL: its own authority, or signed by one."""
    key, path = folder / f"{name}.key", folder / f"{name}.pem"
    signer = ["-CA", str(folder / f"{signed_by}.pem"), "-CAkey", str(folder / f"{signed_by}.key")]
    subprocess.run(
        [
            *(program("/usr/bin/openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(path), "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *(signer if signed_by else ()),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return path
