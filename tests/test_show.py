"""What is said while a batch runs: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import re
import sys
from typing import TYPE_CHECKING

import fake_speech
import pytest
from faults import make_texts

from whisper_npu.batch import Batch, workers
from whisper_npu.batch.recordings import find
from whisper_npu.cli.show import Show
from whisper_npu.options import BatchOptions, SubtitleOptions

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _show(inputs: Path, out: Path | None, form: str, *, live: bool = True) -> None:
    recordings = find([inputs])
    show = Show(recordings, form, SubtitleOptions(), live=live)
    batch = Batch(recordings, BatchOptions(out), {}, fake_speech.prepare, show)
    workers.run(batch, lambda *_: fake_speech.Engine())
    show.close()


def test_a_bar_over_seconds_of_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_texts(tmp_path / "in", 6)
    (folder / "bad.wav").write_text("bad")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    _show(folder, tmp_path / "out", "")
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.getvalue())
    bars = re.findall(r"(\d+)% \S+ +(\d+)/(\d+) s ", plain)
    assert bars[-1] == ("100", "630", "630")  # 21 windows of 30 s
    assert "RTF 0.0" in terminal.getvalue()
    assert [int(n) for _, n, _ in bars] == sorted(int(n) for _, n, _ in bars)


def test_a_line_a_recording_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_texts(tmp_path / "in", 2)
    (folder / "r2.wav").write_text("bad")
    _show(folder, tmp_path / "out", "")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = sorted(captured.err.splitlines())
    assert [line.split()[0] for line in lines] == ["done", "done", "failed"]
    assert re.search(r"r00.wav \(30\.0 s, RTF 0\.\d\d\): r00.txt$", lines[0])
    assert lines[2].endswith("r2.wav: not audio")


@pytest.mark.parametrize("live", [True, False])
def test_stdout_is_the_transcript(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, live: bool
) -> None:
    _show(make_texts(tmp_path / "in", 2), None, "txt", live=live)
    out = capsys.readouterr().out
    assert out.splitlines() == [f"recording {i} window {j}" for i, j in [(0, 0), (1, 0), (1, 1)]]


def test_one_recording_says_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _show(make_texts(tmp_path / "in", 1), None, "srt")
    captured = capsys.readouterr()
    assert captured.out == "1\n00:00:00,000 --> 00:00:29,990\nrecording 0 window 0\n\n"
    assert captured.err == ""
