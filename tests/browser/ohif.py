"""OHIF in Chromium: opened on a study, told what to show as a person tells it, and photographed."""

import io
import json
import re
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page

from tests.browser.place_and_colour import Picture

# WebGL without a graphics card, and no calls home.
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
TOURS_SEEN = "localStorage.setItem('shownTours', '[\"basicViewerTour\"]')"
DISPLAY_SET = """seriesUid => services.displaySetService.getActiveDisplaySets()
    .find(set => set.SeriesInstanceUID === seriesUid)?.displaySetInstanceUID"""
# Resolves when this image has been drawn: loaded, then rendered with what lies on it, then rendered once
# more, since a segmentation follows its image by a render of its own.
SHOW_IMAGE = """async uid => {
    const viewport = cornerstone.getEnabledElements()[0].viewport;
    const index = viewport.getImageIds().findIndex(id => id.split('/').includes(uid));
    if (index < 0) throw new Error(`no image ${uid} in the viewport`);
    await viewport.setImageIdIndex(index);
    for (let times = 0; times < 2; times++) {
        const drawn = new Promise(done =>
            viewport.element.addEventListener(cornerstone.Enums.Events.IMAGE_RENDERED, done, {once: true}));
        viewport.render();
        await drawn;
        await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    }
}"""
# Whether the image fills the canvas as far as it can: not yet, while the canvas gives way to the legend.
FITTED = """() => {
    const viewport = cornerstone.getEnabledElements()[0].viewport;
    const canvas = viewport.canvas.getBoundingClientRect();
    const {origin, direction, dimensions, spacing} = viewport.getImageData();
    const corner = (i, j) => viewport.worldToCanvas([0, 1, 2].map(axis => origin[axis]
        + direction[axis] * spacing[0] * i + direction[3 + axis] * spacing[1] * j));
    const first = corner(-0.5, -0.5), last = corner(dimensions[0] - 0.5, dimensions[1] - 0.5);
    const spare = [canvas.width - Math.abs(last[0] - first[0]), canvas.height - Math.abs(last[1] - first[1])];
    return Math.abs(Math.min(...spare)) < 1.5;
}"""
CURRENT_IMAGE = "cornerstone.getEnabledElements()[0].viewport.getCurrentImageId()"
WORLD_TO_CANVAS = "point => cornerstone.getEnabledElements()[0].viewport.worldToCanvas(point)"
CANVAS = "canvas.cornerstone-canvas"
WAIT_MS = 120_000
MOST_PHOTOGRAPHS = 20


def app_config(root: str) -> str:
    """The script by which OHIF learns where DICOMweb is: a path at its own address, or a whole address.

    A prompt before a segmentation is loaded is left out; all else is as OHIF ships it.
    """
    source = {
        "friendlyName": "archive",
        "name": "archive",
        "qidoRoot": root,
        "wadoRoot": root,
        "wadoUriRoot": root,
        "qidoSupportsIncludeField": True,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "omitQuotationForMultipartRequest": True,
    }
    settings = {
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "maxNumberOfWebWorkers": 2,
        "disableConfirmationPrompts": True,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "dicomweb",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "dicomweb",
                "configuration": source,
            }
        ],
    }
    return f"window.config = {json.dumps(settings)};"


@dataclass(frozen=True, kw_only=True)
class Legend:
    """One line of the list of segments: name and colour of its mark."""

    name: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Ohif:
    """A page of OHIF that shows one study."""

    page: Page

    def load_segmentation(self, series_uid: str) -> None:
        """Open the legend, and load a segmentation by a double click on its line in the list of series."""
        self.page.locator('[data-cy="panelSegmentation-btn"]').click()
        self._line_of(series_uid).dblclick()
        self.page.locator('[data-cy="data-row-title"]').first.wait_for()
        self.page.wait_for_function(FITTED)

    def refusal_of(self, series_uid: str) -> str:
        """Ask for a segmentation that OHIF cannot load, and return what it says of it on its console."""
        line = self._line_of(series_uid)
        with self.page.expect_console_message(lambda message: "failed to load" in message.text) as said:
            line.dblclick()
        return said.value.text

    def hide_segmentation(self) -> None:
        """Close the eye above the list of segments."""
        self.page.locator('[data-cy="all-segments-visibility-toggle"]').click()

    def legend(self) -> list[Legend]:
        """Return the lines of the list of segments, from the top."""
        rows = self.page.locator('[data-cy="data-row"]').all()
        return [
            Legend(
                name=row.locator('[data-cy="data-row-title"]').inner_text().strip(),
                colour=_rgb(
                    row.locator('[data-cy="data-row-colorhex"]').evaluate(
                        "e => getComputedStyle(e).backgroundColor"
                    )
                ),
            )
            for row in rows
        ]

    def picture(self, sop_instance_uid: str) -> Picture:
        """Show a source image and photograph the canvas, until two photographs in a row are the same.

        OHIF may go elsewhere meanwhile, to the first slice of what it has just loaded: then all over again.
        """
        self.page.evaluate(SHOW_IMAGE, sop_instance_uid)
        before = b""
        for _ in range(MOST_PHOTOGRAPHS):
            if sop_instance_uid not in self.page.evaluate(CURRENT_IMAGE).split("/"):
                self.page.evaluate(SHOW_IMAGE, sop_instance_uid)
                before = b""
            photograph = self._photograph()
            if photograph == before:
                with Image.open(io.BytesIO(photograph)) as image:
                    return np.asarray(image.convert("RGB"))
            before = photograph
        pytest.fail(f"the picture of {sop_instance_uid} does not come to rest")

    def believes(self, point_mm: tuple[float, float, float]) -> tuple[float, float]:
        """Where OHIF's own tools would put a mark at a point of the patient, in pixels of the picture."""
        x, y = self.page.evaluate(WORLD_TO_CANVAS, list(point_mm))
        return float(x), float(y)

    def left_edge(self) -> str:
        """What OHIF writes at the left edge of the picture: a direction of the patient."""
        return self.page.locator(".left-mid").first.inner_text().strip()

    def canvas_size(self) -> tuple[int, int]:
        """Width and height of the picture, in pixels."""
        box = self.page.locator(CANVAS).first.bounding_box()
        assert box is not None
        return round(box["width"]), round(box["height"])

    def _line_of(self, series_uid: str) -> Locator:
        self.page.wait_for_function(f"uid => ({DISPLAY_SET})(uid)", arg=series_uid)
        name = self.page.evaluate(DISPLAY_SET, series_uid)
        return self.page.locator(f'[id="thumbnail-{name}"]')

    def _photograph(self) -> bytes:
        box = self.page.locator(CANVAS).first.bounding_box()
        assert box is not None
        return self.page.screenshot(clip={**box})


def open_study(context: BrowserContext, origin: str, study_uid: str) -> Ohif:
    """Open a study in a page of its own, and wait for its first image."""
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.add_init_script(TOURS_SEEN)
    page.goto(f"{origin}/viewer?StudyInstanceUIDs={study_uid}", wait_until="commit")
    page.locator(CANVAS).first.wait_for()
    return Ohif(page=page)


def _rgb(css: str) -> tuple[int, int, int]:
    red, green, blue = re.findall(r"\d+", css)[:3]
    return int(red), int(green), int(blue)
