"""What every test may ask for."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from gpnet_node.config import SHIPPED_MODEL

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real DICOM and atlases, kept outside the project.

    ``GPNET_SHARED_DATA`` names it; otherwise it is looked for beside the checkout. Without it the
    test is skipped, but fails under CI, where it is a needed peer.
    """
    folder = Path(os.environ.get("GPNET_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if folder.is_dir():
        return folder
    message = f"real data not found at {folder}: set GPNET_SHARED_DATA"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The shipped model: card and weights."""
    return REPOSITORY / "model_weights" / SHIPPED_MODEL


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """A command sets up the log of its whole process; here that ends with the test, as its stream does."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
