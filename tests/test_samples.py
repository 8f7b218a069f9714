"""The sample recordings are what their manifest says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import soundfile

if TYPE_CHECKING:
    from command_line import CommandLine

SAMPLES = Path(__file__).parent.parent / "samples"
ROWS: list[dict[str, Any]] = json.loads((SAMPLES / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_length_and_rate(row: dict[str, Any]) -> None:
    info = soundfile.info(SAMPLES / row["file"])
    assert info.samplerate == row["rate"]
    assert info.duration == pytest.approx(row["seconds"], abs=0.01)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_segments_make_up_the_text(row: dict[str, Any]) -> None:
    segments = row["segments"]
    times = [time for start, end, _ in segments for time in (start, end)]
    assert times == sorted(times)
    assert " ".join(text for _, _, text in segments) == row["text"]


def test_none_is_missing_and_all_are_small() -> None:
    assert {path.name for path in SAMPLES.glob("*.flac")} == {row["file"] for row in ROWS}
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) <= 700_000


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_real_weights_hear_them_word_for_word(
    row: dict[str, Any], command_line: CommandLine, tiny_en: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing where nobody speaks, too: the command as it is, without our tests' settings."""
    monkeypatch.delenv("WHISPER_NPU_SKIP_SILENCE")
    result = command_line("transcribe", SAMPLES / row["file"], "-m", tiny_en, "--device", "cpu")
    assert (result.code, " ".join(result.out.split())) == (0, row["text"])
