"""Chromium without a window, driven by playwright, for the pages that this program writes."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def chromium() -> str:
    """The system's; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium to look at pages with")
    return program


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; tests skip where it or playwright is missing."""
    program = chromium()
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives chromium")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        running.close()


class Reader:
    """One open page, and what went wrong on it."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser = browser
        self._folder = folder
        self.troubles: list[str] = []  # errors, blocked content, dialogs
        self.requests: list[str] = []  # addresses other than the page's own

    def open(self, html: str, *, width: int = 1000, dark: bool = False) -> Page:
        """Write the HTML to a file and open it, as a person does."""
        path = self._folder / "page.html"
        path.write_text(html, encoding="utf-8")
        context = self._browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", lambda message: self.troubles.append(message.text))
        page.on("dialog", lambda dialog: self.troubles.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        self.requests.remove(path.as_uri())
        return page


@pytest.fixture
def reader(browser: Browser, tmp_path: Path) -> Iterator[Reader]:
    """Opens pages; closes them after the test."""
    yield Reader(browser, tmp_path)
    for context in browser.contexts:
        context.close()


def until(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression holds. The page's policy forbids playwright's own way."""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never: {expression}"
        page.wait_for_timeout(20)
