"""The package as it is installed elsewhere: what runs from a checkout runs from a wheel."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

REPOSITORY = Path(__file__).resolve().parents[1]


def test_a_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        REPOSITORY / "gpnet_node", source / "gpnet_node", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path), str(source)]

    subprocess.run(command, check=True, timeout=280)

    (wheel,) = tmp_path.glob("*.whl")
    package = (path for path in (source / "gpnet_node").rglob("*") if path.is_file())
    needed = {path.relative_to(source).as_posix() for path in package}
    assert "gpnet_node/model/drawing/shape.npz" in needed
    assert needed - set(ZipFile(wheel).namelist()) == set()
