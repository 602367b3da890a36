"""What the operator sees of the configuration."""

from pathlib import Path

import pytest

from gpnet_node.config import PeerConfig
from gpnet_node.overview import check
from gpnet_node.web_config import WebConfig
from tests.nodes import configuration_of

TOKENS = Path("web.tokens")


@pytest.mark.parametrize(
    ("web", "told"),
    [
        (WebConfig(), "not enabled"),
        (WebConfig(enabled=True, port=8080), "http://127.0.0.1:8080/dicom-web, open to this machine"),
        (
            WebConfig(enabled=True, token_file=TOKENS, host="192.0.2.1", port=80, may_store=True),
            "http://192.0.2.1:80/dicom-web, asks for a token, may be stored to; "
            "WITHOUT TLS THE TOKEN CAN BE OVERHEARD",
        ),
        (
            WebConfig(
                enabled=True,
                tls_certificate=Path("web.pem"),
                tls_key=Path("web.key"),
                client_ca=Path("ca.pem"),
                port=443,
            ),
            "https://127.0.0.1:443/dicom-web, asks for a client certificate",
        ),
    ],
    ids=["off", "loopback", "token", "certificates"],
)
def test_check_says_where_dicomweb_is_and_who_may_ask(tmp_path: Path, web: WebConfig, told: str) -> None:
    assert check(configuration_of(tmp_path, web=web), echo=False)["web"] == told


def test_check_names_every_right_of_a_peer(tmp_path: Path) -> None:
    plain = configuration_of(tmp_path, pacs=104)
    station = PeerConfig(name="station", ae_title="STATION", may_query=True, may_retrieve=True)
    configuration = plain.model_copy(update={"peers": (*plain.peers, station)})

    scanner, pacs, asking = check(configuration, echo=False)["peers"]

    assert scanner["rights"] == ["may store", "all classes"]
    assert pacs["rights"] == ["is sent seg, sr"]
    assert asking["rights"] == ["may query", "may retrieve"]
