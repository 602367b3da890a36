"""The archive's disk, as it fills up."""

import sys
from pathlib import Path

import pytest

from gpnet_node.log import configure
from gpnet_node.parts import Role
from gpnet_node.store.archive import Archive
from gpnet_node.store.disk import DiskWatch
from tests.nodes import configuration_of, running_node
from tests.peers import wait_until

WARNING = "the archive's disk is filling up"


def test_a_disk_that_fills_up_is_warned_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(style="json", level="info", stream=sys.stderr)
    disk = DiskWatch(Archive(tmp_path), warn_free_bytes=1 << 62)
    for _ in range(3):
        disk.look()

    assert capsys.readouterr().err.count(WARNING) == 1


def test_a_node_warns_of_a_disk_that_fills_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = ""

    def warned() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return WARNING in said

    with running_node(configuration_of(tmp_path, pacs=None, warn_free_bytes=1 << 62), Role.RECEIVER):
        wait_until(warned, what="a warning")
