"""What the tests of the page do with it: choose, fill in, draw, download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

PHOTOS = Path(__file__).resolve().parent / "fixtures" / "photos"
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
DONE = "#stage[data-state=done]"
Open = Callable[..., Page]


def choose(page: Page, photo: str = "ardern.jpg", **options: str) -> None:
    """Chooses a photo, and radio buttons by name."""
    page.set_input_files("#photo", PHOTOS / photo)
    for name, value in options.items():
        page.locator(f"input[name={name}][value={value}]").check(force=True)


def number(page: Page, **values: object) -> None:
    """Fills fields in, unfolding what they are hidden in."""
    for name, value in values.items():
        if not page.locator(f"#{name}").is_visible():
            page.locator("details", has=page.locator(f"#{name}")).locator("summary").click()
        page.fill(f"#{name}", str(value))


def make(page: Page) -> None:
    page.click("#go")
    page.wait_for_selector(DONE)


def saved(page: Page, index: int = 0) -> tuple[str, NDArray[np.uint8]]:
    """Downloads avatar `index` by its link: the file's name, and the picture."""
    with page.expect_download() as download:
        page.get_by_role("link", name=f"Download avatar {index + 1}", exact=True).click()
    return download.value.suggested_filename, np.asarray(Image.open(download.value.path()), dtype=np.uint8)


def fits(page: Page) -> bool:
    """Whether nothing sticks out sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
