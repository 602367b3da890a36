"""TLS for associations: 1.2 or newer, forward secrecy, certificates on both sides (PS3.15 B.12, BCP 195).

A certificate counts if ``ca`` signed it; whose it is, is told by the AE title, as without TLS.
"""

import socket
import ssl

from gpnet_node.errors import ConfigurationError
from gpnet_node.tls_config import TlsConfig

_CIPHERS = "ECDHE+AESGCM:DHE+AESGCM"  # of TLS 1.2; those of 1.3 are all good


def accept(connection: socket.socket, tls: TlsConfig, *, seconds: float) -> ssl.SSLSocket:
    """Agree on TLS with who connected, within so much time.

    Raises OSError, of which ssl.SSLError is one, and ConfigurationError for files that are none.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    context.num_tickets = 0  # sent behind the handshake, they would look like something to read
    connection.settimeout(seconds)
    return context.wrap_socket(connection, server_side=True)


def calling(tls: TlsConfig) -> ssl.SSLContext:
    """Return how peers are called. Raises ConfigurationError."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, tls)


def _context(protocol: "ssl._SSLMethod", tls: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.check_hostname = False  # peers are known by address; their certificates often name another
    context.verify_mode = ssl.CERT_REQUIRED
    assert tls.certificate is not None  # or there is no TLS
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as exc:
        files = f"{tls.certificate}, {tls.key} or {tls.ca}"
        raise ConfigurationError(f"[tls] in node.toml: {files} cannot be used: {exc.strerror}") from exc
    return context
