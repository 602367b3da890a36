"""The archive's disk, as it fills up."""

import sys
from pathlib import Path

import pytest

from gpnet_node.log import configure
from gpnet_node.store.archive import Archive
from gpnet_node.store.disk import DiskWatch


def test_a_disk_that_fills_up_is_warned_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(style="json", level="info", stream=sys.stderr)
    disk = DiskWatch(Archive(tmp_path), warn_free_bytes=1 << 62)
    for _ in range(3):
        disk.look()

    assert capsys.readouterr().err.count("the archive's disk is filling up") == 1


def test_a_disk_with_room_is_not_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(style="json", level="info", stream=sys.stderr)
    DiskWatch(Archive(tmp_path), warn_free_bytes=1).look()

    assert capsys.readouterr().err == ""
