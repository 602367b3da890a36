"""Associations within TLS, with DCMTK on either side: who has no certificate that counts gets nothing."""

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpnet_node.config import NodeConfig, PeerConfig
from gpnet_node.dimse.sender import Verdict, echo, send
from gpnet_node.errors import ConfigurationError, TransientPeerError
from gpnet_node.tls_config import TlsConfig
from tests.certificates import certificate
from tests.factories import mr_series
from tests.peers import dcmtk_storescp, echoscu, storescu
from tests.receiving import Node, receiving
from tests.stores import silent_trail


@dataclass(frozen=True, kw_only=True)
class Secured:
    """A node that speaks TLS, and the folder with everybody's certificates."""

    node: Node
    folder: Path

    def options(self, name: str) -> list[str]:
        """DCMTK's, for who shows the certificate of that name."""
        pair = [str(self.folder / f"{name}.key"), str(self.folder / f"{name}.pem")]
        return ["+tls", *pair, "+cf", str(self.folder / "authority.pem")]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "authority")
    for name in ("node", "scanner", "renewed"):
        certificate(folder, name, signed_by="authority")
    certificate(folder, "stranger")
    with receiving(folder, tls=settings(folder), acse_timeout_seconds=3) as node:
        yield Secured(node=node, folder=folder)


def settings(folder: Path, name: str = "node") -> TlsConfig:
    return TlsConfig(
        certificate=folder / f"{name}.pem", key=folder / f"{name}.key", ca=folder / "authority.pem"
    )


def test_dcmtk_stores_within_tls(secured: Secured, tmp_path: Path) -> None:
    paths = mr_series(tmp_path, slices=3)
    before = len(secured.node.files())

    sent = storescu(secured.node.port, paths, *secured.options("scanner"))

    assert sent.returncode == 0, sent.stdout
    assert len(secured.node.files()) == before + 3


@pytest.mark.parametrize("profile", ["+py", "+px"], ids=["non-downgrading BCP 195", "BCP 195"])
def test_both_profiles_of_the_standard_are_understood(secured: Secured, tmp_path: Path, profile: str) -> None:
    options = [*secured.options("scanner"), profile]

    assert storescu(secured.node.port, mr_series(tmp_path, slices=1), *options).returncode == 0


def test_a_certificate_of_nobody_counts_for_nothing(secured: Secured, tmp_path: Path) -> None:
    before = secured.node.files()

    sent = storescu(secured.node.port, mr_series(tmp_path, slices=1), *secured.options("stranger"))

    assert sent.returncode != 0
    assert secured.node.files() == before


def test_who_does_not_speak_tls_is_not_answered(secured: Secured) -> None:
    assert echoscu(secured.node.port).returncode != 0


def test_who_connects_and_says_nothing_holds_nobody_up(secured: Secured, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", secured.node.port)) as mute:
        began = time.monotonic()
        sent = storescu(secured.node.port, mr_series(tmp_path, slices=1), *secured.options("scanner"))
        assert sent.returncode == 0
        assert time.monotonic() - began < 3
        mute.settimeout(10)
        assert mute.recv(1) == b""  # it is shown the door


def test_a_renewed_certificate_counts_from_the_next_association(secured: Secured, tmp_path: Path) -> None:
    for ending in (".pem", ".key"):
        (secured.folder / f"node{ending}").write_bytes((secured.folder / f"renewed{ending}").read_bytes())
    peer = PeerConfig(name="node", ae_title="GPNET", host="127.0.0.1", port=secured.node.port, tls=True)
    node = NodeConfig(archive=tmp_path, ae_title="SCANNER", tls=settings(secured.folder, "scanner"))

    echo(peer, node=node)

    assert _common_name(secured) == "renewed"


def _common_name(secured: Secured) -> str:
    context = ssl.create_default_context(cafile=str(secured.folder / "authority.pem"))
    context.check_hostname = False
    context.load_cert_chain(secured.folder / "scanner.pem", secured.folder / "scanner.key")
    with (
        socket.create_connection(("127.0.0.1", secured.node.port)) as plain,
        context.wrap_socket(plain) as connection,
    ):
        subject = connection.getpeercert()
    assert subject is not None
    return str(dict(pair[0] for pair in subject["subject"])["commonName"])  # type: ignore[misc]


def test_results_are_sent_to_dcmtk_within_tls(secured: Secured, tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "series", slices=3)
    node = NodeConfig(archive=tmp_path, tls=settings(secured.folder))
    with dcmtk_storescp(tmp_path / "scp", *secured.options("scanner")) as pacs:
        peer = PeerConfig(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs.port, tls=True)

        outcomes = list(send(peer, paths, node=node, trail=silent_trail()))

        assert [it.verdict for it in outcomes] == [Verdict.DELIVERED] * 3
        assert len(pacs.files()) == 3


def test_nothing_is_sent_to_who_shows_a_certificate_of_nobody(secured: Secured, tmp_path: Path) -> None:
    node = NodeConfig(archive=tmp_path, tls=settings(secured.folder), acse_timeout_seconds=3)
    with dcmtk_storescp(tmp_path / "scp", *secured.options("stranger")) as pacs:
        peer = PeerConfig(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs.port, tls=True)

        with pytest.raises(TransientPeerError):
            echo(peer, node=node)


def test_a_certificate_that_is_just_being_renewed_is_no_reason_to_give_up(tmp_path: Path) -> None:
    node = NodeConfig(archive=tmp_path, tls=settings(tmp_path))  # no file is there
    peer = PeerConfig(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, tls=True)
    (path,) = mr_series(tmp_path / "series", slices=1)

    (outcome,) = send(peer, [path], node=node, trail=silent_trail())

    assert outcome.verdict is Verdict.TRANSIENT
    assert "[tls] in node.toml" in outcome.text


def test_a_certificate_that_is_none_stops_the_start(tmp_path: Path) -> None:
    for name in ("bad.pem", "bad.key", "authority.pem"):
        (tmp_path / name).write_text("no certificate", encoding="ascii")

    with (
        pytest.raises(ConfigurationError, match="cannot be used"),
        receiving(tmp_path, tls=settings(tmp_path, "bad")),
    ):
        pass
