"""The command line on recordings in every container, good and broken, with real weights.

Each row of the manifest says what to expect: ok, degraded, empty, error, or two of them. Texts are
those of recordings of single digits and letters, which tiny.en writes in its own way; what it makes
of sentences is tested with golden files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from command_line import CommandLine

SAMPLES = Path(__file__).parent.parent.parent / "shared" / "data" / "public_samples"
MANIFEST = SAMPLES / "manifest.jsonl"
ROWS: list[dict[str, Any]] = (
    [json.loads(line) for line in MANIFEST.read_text(encoding="utf-8").splitlines()]
    if MANIFEST.exists()
    else []
)
QUICK = ("--beam-size", "1", "--temperature-increment-on-fallback", "none", "--device", "cpu")


@pytest.mark.skipif(not ROWS, reason="the recordings in ../shared/data are not here")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_behaves_as_the_manifest_says(
    row: dict[str, Any], command_line: CommandLine, tiny_en: Path
) -> None:
    result = command_line("transcribe", SAMPLES / row["file"], "-m", tiny_en, *QUICK)
    expect = re.sub(r"\(.*?\)", "", row["expect"]).strip()
    text = " ".join(result.out.split())
    if result.code == 0:
        assert "Traceback" not in result.err
    else:
        assert "error" in expect
        assert result.code == 4
        assert text == ""
        assert len(result.err.splitlines()) <= 3, "one line says what failed"
        assert row["file"] in result.err
    if expect == "error":
        assert result.code == 4
    if expect == "ok" and row["text"]:
        assert text


@pytest.mark.skipif(not ROWS, reason="the recordings in ../shared/data are not here")
def test_a_sentence_comes_out_word_for_word(command_line: CommandLine, tiny_en: Path) -> None:
    result = command_line("transcribe", SAMPLES / "jfk.flac", "-m", tiny_en)
    words = re.findall(r"[a-z]+", result.out.lower())
    said = "and so my fellow americans ask not what your country can do for you ask what you can do"
    assert words == [*said.split(), "for", "your", "country"]
