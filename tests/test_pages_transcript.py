"""The transcript page in a real browser: sound, clicks, keys, search; markup stays text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from browser import until

from whisper_npu.pages.transcript import EMBEDDED, audio_source, page, position
from whisper_npu.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from browser import Reader
    from playwright.sync_api import Page


ATTACKS = [
    "<script>alert(1)</script>",
    "</span></script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "<svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</title></style><iframe srcdoc='<script>alert(1)</script>'>",
    "javascript:alert(1)",
    "&lt;b&gt; \u202e \x00 ]]>",
]


def segment(i: int, words: Sequence[tuple[str, float]], start: float) -> Segment:
    """Half a second a word."""
    spoken = tuple(
        Word(text, start + j / 2, start + j / 2 + 0.4, probability)
        for j, (text, probability) in enumerate(words)
    )
    text = "".join(text for text, _ in words)
    return Segment(i, 0, start, start + len(words) / 2, text, (), 0.0, -0.2, 1.2, 0.01, spoken)


def transcript(*texts: str, sure: float = 0.9) -> Transcript:
    """A segment every 2 s; a word that ends in ? is unsure."""
    segments = tuple(
        segment(i, [(f" {w}", 0.31 if w.endswith("?") else sure) for w in text.split()], 2 * i)
        for i, text in enumerate(texts)
    )
    return Transcript(" ".join(texts), segments, "en", 0.97, 2.0 * len(texts))


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Ten seconds of sound."""
    path = tmp_path / "tone of ü#1.wav"
    samples = 0.1 * np.sin(np.arange(80_000) * 0.3)
    soundfile.write(path, samples.astype(np.float32), 8000)
    return path


def now(shown: Page) -> str:
    """The word marked as being spoken."""
    shown.wait_for_selector(".word.now")
    return shown.locator(".word.now").inner_text().strip()


TALK = transcript("ask not what", "your country? can do", "for you ask", "what you can?")


def test_words_follow_the_sound_and_jump_on_click(reader: Reader, tone: Path) -> None:
    shown = reader.open(page(TALK, "talk.wav", audio_source(tone, tone.parent)))
    shown.get_by_text("country").click()
    assert now(shown) == "country?"
    assert 2.5 <= shown.evaluate("player.currentTime") < 3.5
    assert shown.evaluate("!player.paused")
    until(shown, "document.querySelector('.word.now').textContent.trim() === 'can'")
    shown.get_by_role("button", name="Play from 0:04").click()
    assert now(shown) == "for"
    assert shown.locator("[aria-current=true]").count() == 1
    assert reader.troubles == []
    assert all(url.startswith("data:audio/") for url in reader.requests)


def test_a_large_recording_is_linked(
    reader: Reader, tone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whisper_npu.pages.transcript.EMBEDDED", 1000)
    source = audio_source(tone, tone.parent)
    assert source == "tone%20of%20%C3%BC%231.wav"
    shown = reader.open(page(TALK, "talk.wav", source))
    until(shown, "player.duration === 10")
    assert reader.troubles == []
    assert EMBEDDED > 1 << 20


def test_a_reader_without_the_recording_can_choose_it(reader: Reader, tone: Path) -> None:
    shown = reader.open(page(TALK, "talk.wav", "gone.wav"))
    shown.wait_for_selector("#choose:visible")
    reader.troubles.clear()  # the browser tells that gone.wav is gone
    shown.set_input_files("#choose input", tone)
    until(shown, "player.duration === 10")
    shown.get_by_text("country").click()
    assert now(shown) == "country?"
    assert reader.troubles == []


def test_keyboard(reader: Reader, tone: Path) -> None:
    shown = reader.open(page(TALK, "talk.wav", audio_source(tone, tone.parent)))
    keys = shown.keyboard
    keys.press("j")
    assert now(shown) == "ask"
    keys.press("j")
    assert now(shown) == "your"
    keys.press("Space")
    until(shown, "player.paused")
    keys.press("k")
    until(shown, "!player.paused && player.currentTime < 2")
    keys.press("Space")
    keys.press("ArrowRight")
    until(shown, "player.currentTime >= 5")
    keys.press("ArrowLeft")
    until(shown, "player.currentTime < 3")
    keys.press("u")
    assert shown.locator(".word.chosen").inner_text().strip() == "country?"
    keys.press("u")
    keys.press("u")
    assert shown.locator(".word.chosen").inner_text().strip() == "country?"
    keys.press("/")
    keys.type("j k")
    assert shown.locator("input[type=search]").input_value() == "j k"
    keys.press("Escape")
    assert shown.evaluate("document.activeElement === document.body")
    assert reader.troubles == []


def test_search_across_words(reader: Reader) -> None:
    shown = reader.open(page(TALK, "talk.wav"))
    search, found = shown.get_by_role("searchbox", name="Search the transcript"), "#found"
    search.fill("YOU")
    assert shown.inner_text(found) == "1 of 3"
    search.press("Enter")
    shown.get_by_role("button", name="Next match").click()
    assert shown.inner_text(found) == "3 of 3"
    search.fill("not  what")
    assert shown.inner_text(found) == "1 of 1"
    marked = shown.evaluate("[...CSS.highlights.get('found')].map(String)")
    assert marked == ["not what"]
    search.fill("a.k (")
    assert shown.inner_text(found) == "not found"
    search.fill("")
    assert shown.inner_text(found) == ""
    assert reader.troubles == []


def test_markup_is_text_and_nothing_runs(reader: Reader) -> None:
    attacks = [Segment(i, 0, i, i + 1, text, (), 0, 0, 1, 0) for i, text in enumerate(ATTACKS)]
    words = tuple(Word(" " + text, 20.0, 21.0, 0.1) for text in ATTACKS)
    attacks.append(Segment(9, 0, 20.0, 21.0, "".join(ATTACKS), (), 0, 0, 1, 0, words))
    hostile = Transcript("", tuple(attacks), ATTACKS[2], 1.0, 30.0)
    for title in ATTACKS:
        shown = reader.open(page(hostile, title, audio=ATTACKS[2]))
        shown.wait_for_selector("#choose:visible")
        text = shown.inner_text("main")
        assert all(text.count(attack) >= 2 for attack in ATTACKS[:-1])
        assert shown.locator("img, iframe, svg, main script").count() == 0
        shown.locator(".word").last.hover()
        shown.locator("h1").hover()
        shown.close()
    assert [trouble for trouble in reader.troubles if "ERR_FILE_NOT_FOUND" not in trouble] == []


def test_injected_markup_would_stay_dead(reader: Reader) -> None:
    """The second wall: were anything printed unescaped, the policy would stop it."""
    hole = "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
    shown = reader.open(page(TALK, "talk.wav").replace("ask not", hole).replace("</main>", hole))
    assert shown.evaluate("typeof window.broken") == "undefined"
    assert any("Content Security Policy" in trouble for trouble in reader.troubles)


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_sideways_scrolling(reader: Reader, dark: bool) -> None:
    long = transcript("x" * 300, "short words " * 40)
    shown = reader.open(page(long, "y" * 200), width=360, dark=dark)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 384) == dark


def test_every_control_has_a_name(reader: Reader) -> None:
    shown = reader.open(page(TALK, "talk.wav"))
    for control in shown.locator("button:visible, input:visible, summary").all():
        named = '"' in control.aria_snapshot() or control.inner_text()
        assert named, control.evaluate("e => e.outerHTML")
    assert shown.locator("audio").get_attribute("aria-label")
    assert shown.locator("html").get_attribute("lang") == "en"
    assert shown.locator("main").get_attribute("lang") == "en"
    assert shown.title() == "talk.wav"


def test_segments_without_word_times(reader: Reader, tone: Path) -> None:
    whole = (Segment(0, 0, 0.0, 2.0, " hello there", (), 0, 0, 1, 0),
             Segment(1, 0, 3.0, 5.0, " and bye", (), 0, 0, 1, 0))  # fmt: skip
    html = page(Transcript("", whole, "en", None, 5.0), "a", audio_source(tone, tone.parent))
    shown = reader.open(html)
    shown.get_by_text("and bye").click()
    assert now(shown) == "and bye"
    assert shown.locator("#next-unsure").count() == 0


def test_silence(reader: Reader) -> None:
    shown = reader.open(page(Transcript("", (), "en", None, 5.0), "silence.wav"))
    assert "No speech was heard." in shown.inner_text("main")
    shown.keyboard.press("j")
    assert reader.troubles == []


def test_position() -> None:
    assert [position(0), position(59.99), position(60), position(3661)] == [
        "0:00",
        "0:59",
        "1:00",
        "1:01:01",
    ]


def test_the_page_is_one_file() -> None:
    html = page(TALK, "talk.wav")
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html
    assert io.StringIO(html).readline() == "<!doctype html>\n"
