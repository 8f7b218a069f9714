"""Pages about comparisons and batches in a real browser: markup stays text, phones need no luck."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from test_pages_transcript import ATTACKS

from whisper_npu.batch.report import DONE, FAILED, Report, Result
from whisper_npu.comparison.accuracy import Errors, difference
from whisper_npu.comparison.divergence import Choice, Divergence
from whisper_npu.comparison.layers import LayerError
from whisper_npu.comparison.verdict import (
    Accuracy,
    Comparison,
    DeviceResult,
    Drift,
    Findings,
    RecordingResult,
)
from whisper_npu.figures import Figure
from whisper_npu.reports import batch, comparison
from whisper_npu.transcript import Transcript

if TYPE_CHECKING:
    from browser import Reader


BAD = " ".join(ATTACKS)
LAYERS = ("conv1", "layers.0.fc1", "layers.1.fc1", "layer_norm")


def device(name: str, errors: list[float]) -> DeviceResult:
    """A device whose last layer is to blame."""
    layers = tuple(
        LayerError(f"model.encoder.{layer}", error, error, 1 - error)
        for layer, error in zip(LAYERS, errors, strict=False)
    )
    words = Errors(hits=8, substitutions=1, deletions=1)
    seconds = {"encoder": Figure(1.5, "s", "emulated"), "decoder": Figure(0.5, "s", "emulated")}
    return DeviceResult(
        name, seconds, Figure(0.2, "", "emulated"), Figure(2, "x", "emulated"), 10**8,
        Accuracy(words, words, words), layers, layers[-1] if layers else None,
        safe=not layers, verdict=f"fault suspected in {BAD}",
    )  # fmt: skip


def heard(text: str) -> Comparison:
    choices = tuple(Choice(i, attack, 0.1) for i, attack in enumerate(ATTACKS[:5]))
    return Comparison(
        Transcript(text, (), "en", 1.0, 30.0),
        difference("one two three", text, "en"),
        difference("one too three", text, "en"),
        Divergence(30.0, 7, BAD, (ATTACKS[0], ATTACKS[1]), (choices, choices[:2])),
        Drift(5, 0.125, 2.5),
    )


FINDINGS = Findings(
    model=BAD,
    machine=BAD,
    seconds_of_audio=30.0,
    failures={BAD: BAD},
    devices=(
        device("cpu f32", []),
        device("npu fp16 (emulated rk3588)", [1e-4, 3e-4, np.inf, 0.5]),
        device(BAD, [0.0, 1e-9, 50.0, 1e-2]),
    ),
    recordings=(
        RecordingResult(BAD, BAD, (heard("one two three"), heard("one tooth"), heard(BAD))),
    ),
)


def test_a_comparison_is_text(reader: Reader) -> None:
    shown = reader.open(comparison.page(FINDINGS, 0.01))
    for summary in shown.locator("summary").all():
        summary.click()
    text = shown.inner_text("main")
    assert all(attack in text for attack in ATTACKS[:-1])
    assert shown.locator("img, iframe, script").count() == 0
    assert shown.locator("svg").count() == 3 + 1 + 2 + 2  # bars, a chart, and their legends
    assert shown.locator("circle.blamed").count() == 2
    assert shown.locator("del").first.inner_text().startswith("missing:")
    assert "1.5 s emulated" in shown.locator("rect title").first.inner_html()
    assert shown.locator("svg[role=img]").first.get_attribute("aria-label")
    assert reader.troubles == reader.requests == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_sideways_scrolling(reader: Reader, dark: bool) -> None:
    shown = reader.open(comparison.page(FINDINGS, 0.01), width=360, dark=dark)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    marks = shown.evaluate(
        "[...document.querySelectorAll('circle')].map(c => +c.getAttribute('cy'))"
    )
    assert all(0 <= y <= 240 for y in marks)


def test_a_batch_is_text(reader: Reader) -> None:
    report = Report(device=f"cpu {BAD}", total=2)
    with report.timing():
        pass
    report.add(Result(BAD, FAILED, BAD, 4))
    report.add(Result("a.wav", DONE, seconds=3, elapsed=1, outputs=(BAD,), warnings=(BAD,)))
    shown = reader.open(batch.page(report), width=360)
    text = shown.inner_text("body")
    assert all(text.count(attack) >= 4 for attack in ATTACKS[:-1])
    assert "1 done, 0 skipped, 1 failed" in text
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    assert shown.locator("img, iframe, script").count() == 0
    assert reader.troubles == reader.requests == []
