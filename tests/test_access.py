"""Who may ask: tokens, certificates, this machine; and what a browser on another page may."""

import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gpnet_node.errors import ConfigurationError
from gpnet_node.web.access import read_tokens
from tests.certificates import certificate
from tests.factories import mr_series
from tests.web import Web, ask, path_of, web_service

TOKEN = "correct-horse-battery-staple"


def token_file(folder: Path, text: str = f"# viewers\n{TOKEN}\nanother-token-0123456789\n") -> Path:
    path = folder / "web.tokens"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        ("Bearer another-token-0123456789", 200),
        ("", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer # viewers", 401),
        ("Bearer ", 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN.upper()}", 401),
        ("Bearer \xff\xfe", 401),
    ],
)
def test_only_who_bears_a_token_is_answered(tmp_path: Path, authorization: str, status: int) -> None:
    with web_service(tmp_path, token_file=token_file(tmp_path)) as web:
        answer = web.ask("/studies", headers={"Authorization": authorization} if authorization else {})

    assert answer.status == status
    assert (answer.headers["WWW-Authenticate"] == "Bearer") is (status == 401)


def test_every_resource_asks_for_the_token_but_health(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "s", slices=1)
    with web_service(tmp_path, path, token_file=token_file(tmp_path)) as web:
        one = path_of(path)
        for resource in (one, f"{one}/metadata", f"{one}/frames/1", f"{one}/rendered", "/series", "/nothing"):
            assert web.ask(resource).status == 401, resource
        assert web.ask("/studies", method="POST", body=b"").status == 401
        assert ask(web.port, "/health").json == {"status": "ok"}


@pytest.mark.parametrize("text", ["", "# none\n", "short\n", "two words that are long enough\n", "ключ" * 10])
def test_a_file_without_good_tokens_stops_the_start_and_is_not_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_tokens(token_file(tmp_path, text))

    assert text.strip() == "" or text.strip() not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:8080", 200), ("[::1]:80", 200), ("evil.example", 421), ("", 421)],
)
def test_without_a_token_only_requests_to_this_machine_by_its_own_name_are_answered(
    tmp_path: Path, host: str, status: int
) -> None:
    with web_service(tmp_path) as web:
        assert web.ask("/studies", headers={"Host": host}).status == status


def test_the_name_that_a_proxy_gives_is_known_and_stands_in_addresses(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "s", slices=1)
    with web_service(tmp_path, path, url="https://pacs.example/dicom-web") as web:
        answer = web.ask("/studies", headers={"Host": "pacs.example"})

    assert answer.json[0]["00081190"]["Value"][0].startswith("https://pacs.example/dicom-web/studies/")


def test_other_pages_may_ask_only_if_their_origin_is_listed_and_the_browser_may_find_out_first(
    tmp_path: Path,
) -> None:
    listed, other = "https://viewer.example", "https://evil.example"
    with web_service(tmp_path, token_file=token_file(tmp_path), allowed_origins=(listed,)) as web:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        for origin, allowed in ((listed, listed), (other, None)):
            first = web.ask("/studies", method="OPTIONS", headers={"Origin": origin, **asked})
            then = web.ask("/studies", headers={"Origin": origin, **bearer})
            assert first.headers["Access-Control-Allow-Origin"] == allowed
            assert then.headers["Access-Control-Allow-Origin"] == allowed
            assert (first.status == 200) is (allowed is not None)


def test_no_origin_is_allowed_unless_configured(tmp_path: Path) -> None:
    with web_service(tmp_path) as web:
        answer = web.ask("/studies", headers={"Origin": "http://127.0.0.1:3000"})

    assert answer.headers["Access-Control-Allow-Origin"] is None


# -- mutual TLS ----------------------------------------------------------------------------------------------


def https(web: Web, folder: Path, *, client: str | None) -> int:
    context = ssl.create_default_context(cafile=str(folder / "server.pem"))
    if client is not None:
        context.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    url = web.url.replace("http://", "https://") + "/studies"
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        status: int = answer.status
        return status


def test_only_clients_with_a_certificate_of_the_authority_are_answered(tmp_path: Path) -> None:
    certificate(tmp_path, "authority")
    certificate(tmp_path, "viewer", signed_by="authority")
    certificate(tmp_path, "stranger")
    certificate(tmp_path, "server")
    with web_service(
        tmp_path,
        tls_certificate=tmp_path / "server.pem",
        tls_key=tmp_path / "server.key",
        client_ca=tmp_path / "authority.pem",
    ) as web:
        assert https(web, tmp_path, client="viewer") == 200
        for client in (None, "stranger"):
            with pytest.raises((ssl.SSLError, urllib.error.URLError, ConnectionError)):
                https(web, tmp_path, client=client)


def test_a_certificate_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    with (
        pytest.raises(ConfigurationError, match="certificate"),
        web_service(tmp_path, tls_certificate=tmp_path / "bad.pem", tls_key=tmp_path / "bad.pem"),
    ):
        pass
