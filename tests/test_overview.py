"""What the operator sees of the configuration."""

from pathlib import Path

import pytest

from gpnet_node.config import PeerConfig
from gpnet_node.overview import check, look
from gpnet_node.parts import build
from gpnet_node.retention_config import RetentionConfig
from gpnet_node.web_config import WebConfig
from tests.nodes import configuration_of
from tests.stores import arrival

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


def test_what_becomes_of_the_old_is_told_where_it_is_not_kept_for_good(tmp_path: Path) -> None:
    plain = build(configuration_of(tmp_path), owner="test")
    keeping = configuration_of(tmp_path, retention=RetentionConfig(keep_days=30))
    parts = build(keeping, owner="test")
    parts.index.record([arrival()])  # in 2024; it is still being received

    assert look(plain, uid=None, limit=1).retention is None
    assert look(parts, uid=None, limit=1).retention == (
        "of what is older than 30 days, 0 series go within the hour, "
        "1 stay: something is left to do for them, or was done since"
    )


def test_check_names_every_right_of_a_peer(tmp_path: Path) -> None:
    plain = configuration_of(tmp_path, pacs=104)
    station = PeerConfig(name="station", ae_title="STATION", may_query=True, may_retrieve=True)
    configuration = plain.model_copy(update={"peers": (*plain.peers, station)})

    scanner, pacs, asking = check(configuration, echo=False)["peers"]

    assert scanner["rights"] == ["may store", "all classes"]
    assert pacs["rights"] == ["is sent seg, sr"]
    assert asking["rights"] == ["may query", "may retrieve"]
