"""A real browser, in front of real servers with the embedded pack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import serving, serving_one_caller
from page_rig import DESK, Open
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from faceavatar import AvatarEngine
from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.settings import Limits, Settings

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def toon() -> AvatarEngine:
    return AvatarEngine.load("toon", provider="cpu", threads=1)


@pytest.fixture(scope="module")
def url(toon: AvatarEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without tokens, for callers on this machine."""
    settings = Settings(outputs=tmp_path_factory.mktemp("outputs"), limits=Limits(per_minute=600))
    with serving(create_app(settings, engines={"toon": toon})) as running:
        yield running


@pytest.fixture
def guarded(toon: AvatarEngine, tmp_path: Path) -> Iterator[str]:
    with serving_one_caller({"toon": toon}, tmp_path / "outputs") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Open]:
    """Opens the page in a browser that knows nothing yet; what that complains of fails the test."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def heard(message: ConsoleMessage) -> None:
        # The browser logs every answer of 4xx by itself; the page tells those in its own words.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def open_page(at: str = url, viewport: Any = DESK, **options: Any) -> Page:
        context = browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        opened = context.new_page()
        opened.on("console", heard)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto(f"{at}/")
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
