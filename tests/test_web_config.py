"""The settings of [web]: nobody beyond this machine may ask without showing who they are."""

from pathlib import Path

import pytest

from gpnet_node.config import load
from gpnet_node.errors import ConfigurationError
from gpnet_node.web_config import WebConfig
from tests.test_config import config_folder, fault


def test_it_is_off_and_for_this_machine_alone_unless_someone_says_otherwise() -> None:
    web = WebConfig()

    assert (web.enabled, web.host, web.may_store, web.allowed_origins) == (False, "127.0.0.1", False, ())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_beyond_loopback_without_token_or_certificates_the_start_is_refused_with_file_key_and_line(
    tmp_path: Path, host: str
) -> None:
    text = fault(config_folder(tmp_path, node=f'[web]\nenabled = true\nhost = "{host}"\n'))

    assert text.startswith(f"{tmp_path}/node.toml, line 5: web.host: without token_file or client_ca ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_loopback_needs_neither(tmp_path: Path, host: str) -> None:
    assert load(config_folder(tmp_path, node=f'[web]\nhost = "{host}"\n')).node.web.host == host


def test_a_token_opens_other_addresses_whatever_the_order_of_the_keys(tmp_path: Path) -> None:
    folder = config_folder(
        tmp_path, node='[web]\nhost = "0.0.0.0"\nenabled = true\ntoken_file = "web.tokens"\n'
    )
    (tmp_path / "web.tokens").write_text("0123456789abcdef\n")
    (tmp_path / "web.tokens").chmod(0o600)

    web = load(folder).node.web

    assert (web.host, web.token_file) == ("0.0.0.0", tmp_path / "web.tokens")


def test_a_token_file_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    folder = config_folder(tmp_path, node='[web]\nenabled = true\ntoken_file = "web.tokens"\n')
    (tmp_path / "web.tokens").write_text("0123456789abcdef\n")
    (tmp_path / "web.tokens").chmod(0o640)

    text = fault(folder)

    assert text.startswith(f"{tmp_path}/node.toml, line 5: web.token_file: ")
    assert "chmod 600" in text
    assert "0123456789abcdef" not in text


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('token_file = "web.tokens"', "line 5: web.token_file: there is no file"),
        ('tls_certificate = "a.pem"', "tls_certificate and tls_key belong together"),
        ('client_ca = "a.pem"', "client_ca needs tls_certificate"),
        ('host = "localhost"', "line 5: web.host: 'localhost' is not an IP address"),
        ('url = "node.example/dicom-web"', "line 5: web.url: it begins with http"),
        ('allowed_origins = ["https://viewer.example/"]', "line 5: web.allowed_origins: "),
        ('allowed_origins = ["*"]', "line 5: web.allowed_origins: "),
        ("prot = 1", "line 5: web.prot: unknown key"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, lines: str, named: str) -> None:
    assert named in fault(config_folder(tmp_path, node=f"[web]\nenabled = true\n{lines}\n"))


def test_files_of_a_web_that_is_off_need_not_be_there(tmp_path: Path) -> None:
    assert not load(config_folder(tmp_path, node='[web]\ntoken_file = "web.tokens"\n')).node.web.enabled


def test_no_fault_repeats_a_value_of_the_section(tmp_path: Path) -> None:
    folder = config_folder(tmp_path, node="[web]\ntoken_file = 123456\n")
    with pytest.raises(ConfigurationError) as raised:
        load(folder)
    assert "123456" not in str(raised.value)
