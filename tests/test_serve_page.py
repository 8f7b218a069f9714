"""The page of the server in a real browser: files, words as they come, downloads, keys."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import until
from serving import serving, upload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from whisper_npu.serve.server import Server

ROOT = Path(__file__).parent.parent
SPEECH = ROOT / "samples" / "two_sentences.flac"


@pytest.fixture(scope="module")
def server(tiny_en: Path) -> Iterator[Server]:
    with serving(tiny_en) as running:
        yield running


@pytest.fixture
def troubles() -> Iterator[list[str]]:
    """Errors and blocked content; there must be none."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def opened(browser: Browser, server: Server, troubles: list[str]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.goto(f"http://127.0.0.1:{server.port}/")
    yield page
    context.close()


def test_a_file_becomes_words_and_files(opened: Page) -> None:
    opened.set_input_files("#file", SPEECH)
    until(opened, "document.querySelectorAll('#segments li').length == 2")
    until(opened, "!document.getElementById('results').hidden")
    assert "coffee is ready" in opened.inner_text("#segments")
    assert opened.inner_text("#state") == "Done."
    for format_ in ("txt", "srt", "json", "html"):
        with opened.expect_download() as download:
            opened.click(f".download[data-format={format_}]")
        assert download.value.suggested_filename == f"two_sentences.{format_}"
        content = Path(download.value.path()).read_text("utf-8")
        assert "umbrella" in content
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_dropped_file(opened: Page) -> None:
    opened.evaluate(
        """async (data) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "<img src=x onerror=alert(1)>.flac"));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
        }""",
        base64.b64encode(SPEECH.read_bytes()).decode(),
    )
    until(opened, "!document.getElementById('results').hidden")
    assert "umbrella" in opened.inner_text("#segments")


def test_no_recording(opened: Page, tmp_path: Path, troubles: list[str]) -> None:
    path = tmp_path / "<b>no<b>.wav"
    path.write_text("nothing")
    opened.set_input_files("#file", path)
    until(opened, "document.getElementById('state').classList.contains('bad')")
    assert "<b>no<b>.wav: is not a recording" in opened.inner_text("#state")
    assert opened.is_hidden("#stop")
    troubles[:] = [text for text in troubles if "status of 400" not in text]


def test_stop_by_key(opened: Page, server: Server) -> None:
    gate = threading.Event()
    server.service.queue._thread.submit(gate.wait)
    try:
        opened.set_input_files("#file", SPEECH)
        until(opened, "!document.getElementById('stop').hidden")
        opened.keyboard.press("Escape")
        until(opened, "document.getElementById('state').textContent == 'Stopped.'")
    finally:
        gate.set()
    until(opened, "document.getElementById('stop').hidden")


def test_everything_is_reached_by_tab(opened: Page) -> None:
    reached = []
    for _ in range(3):
        opened.keyboard.press("Tab")
        reached.append(opened.evaluate("document.activeElement.id"))
    assert reached[:2] == ["file", "speak"]


def test_the_token_is_asked_for_once(browser: Browser, tiny_en: Path) -> None:
    with serving(tiny_en, token="secret") as guarded:
        known = {"username": "anybody", "password": "secret"}
        context = browser.new_context(http_credentials=known)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{guarded.port}/")
        page.set_input_files("#file", SPEECH)
        until(page, "!document.getElementById('results').hidden")
        opened = page.evaluate(
            """() => new Promise((tell) => {
              const socket = new WebSocket(location.href.replace("http", "ws"));
              socket.onopen = () => { socket.close(); tell(true); };
              socket.onerror = () => tell(false);
            })"""
        )
        assert opened
        context.close()


def test_what_the_page_reads(server: Server) -> None:
    found = upload(server, "/transcribe", {"file": ("a.flac", SPEECH.read_bytes())})
    events = [json.loads(line) for line in found.text.splitlines()]
    assert [event["event"] for event in events] == ["segment", "segment", "progress", "done"]
    assert set(events[-1]["files"]) == {"txt", "srt", "vtt", "tsv", "json", "csv", "lrc", "html"}
