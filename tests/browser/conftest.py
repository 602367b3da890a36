"""What the tests in the browser share: Chromium, OHIF's files, archives with their studies.

All of it lives for the length of this package and no longer: Playwright's event loop must be gone before
other tests start one of their own.
"""

import os
import re
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, sync_playwright

from gpnet_node.model.card import ModelCard, read_card
from tests.browser.ohif import CHROMIUM_FLAGS
from tests.browser.place_and_colour import Picture
from tests.conftest import REPOSITORY
from tests.peers import program

PICTURES = REPOSITORY / "build" / "browser"
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on the test whether it has failed, for the picture that is then kept."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def album(request: pytest.FixtureRequest, chromium: BrowserContext) -> Iterator[dict[str, Picture]]:
    """Pictures by name; of a test that fails they are kept under build/browser/, with the pages as left."""
    pictures: dict[str, Picture] = {}
    yield pictures
    folder = PICTURES / re.sub(r"[^\w-]+", "-", request.node.name).strip("-")
    shutil.rmtree(folder, ignore_errors=True)
    failed = request.node.stash.get(FAILED, False)
    if failed:
        folder.mkdir(parents=True)
        for name, picture in pictures.items():
            Image.fromarray(picture).save(folder / f"{name}.png")
    for number, page in enumerate(chromium.pages):
        if failed:
            page.screenshot(path=folder / f"page-{number}.png")
        page.close()


@pytest.fixture(scope="package")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture(scope="package")
def dist() -> Path:
    """OHIF as its makers built it."""
    folder = REPOSITORY / "build" / "peers" / "ohif" / "dist"
    if not (folder / "index.html").is_file():
        message = f"OHIF is not at {folder}: deploy/install-test-peers fetches it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="package")
def chromium() -> Iterator[BrowserContext]:
    """One Chromium, whose pages share the files that it has loaded once."""
    path = program("/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        context = browser.new_context(viewport={"width": 1100, "height": 640}, service_workers="block")
        yield context
        context.close()
        browser.close()
