"""The settings of [audit]: one destination, and nobody else's file."""

from pathlib import Path

import pytest

from gpnet_node.config import load
from tests.test_config import config_folder, fault


def test_without_the_section_there_is_no_trail(tmp_path: Path) -> None:
    assert load(config_folder(tmp_path)).node.audit is None


def test_the_file_lies_in_the_archive(tmp_path: Path) -> None:
    audit = load(config_folder(tmp_path, node='[audit]\nfile = "audit.log"\n')).node.audit

    assert audit is not None
    assert audit.file == tmp_path / "archive" / "audit.log"


@pytest.mark.parametrize(
    ("syslog", "address"),
    [
        ("logs.example:514", ("logs.example", 514)),
        ("192.0.2.7:6514", ("192.0.2.7", 6514)),
        ("[2001:db8::7]:514", ("2001:db8::7", 514)),
    ],
)
def test_a_syslog_server_is_named_by_host_and_port(
    tmp_path: Path, syslog: str, address: tuple[str, int]
) -> None:
    audit = load(config_folder(tmp_path, node=f'[audit]\nsyslog = "{syslog}"\n')).node.audit

    assert audit is not None
    assert audit.address == address


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("", "line 3: audit: give file or syslog, one of the two"),
        ('file = "a.log"\nsyslog = "logs:514"', "line 3: audit: give file or syslog, one of the two"),
        ('file = "a.log"\ntls = true', "line 3: audit: tls needs syslog"),
        ('syslog = "logs:514"\ntls = true', "line 5: audit.tls: there is no [tls]"),
        ('syslog = "logs"', "line 4: audit.syslog: 'logs' is not host:port"),
        ('syslog = ":514"', "line 4: audit.syslog: ':514' is not host:port"),
        ('syslog = "logs:0"', "line 4: audit.syslog: 'logs:0' is not host:port"),
        ('syslog = "logs:99999"', "line 4: audit.syslog: 'logs:99999' is not host:port"),
        ('syslog = "udp://logs:514"', "line 4: audit.syslog: 'udp://logs:514' is not host:port"),
        ('file = "none/audit.log"', "line 4: audit.file: there is no folder"),
        ('file = "open.log"', "line 4: audit.file: "),
        ('fiel = "audit.log"', "line 4: audit.fiel: unknown key"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, lines: str, named: str) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "open.log").touch(mode=0o644)

    text = fault(config_folder(tmp_path, node=f"[audit]\n{lines}\n"))

    assert text.startswith(f"{tmp_path}/node.toml, {named}")
