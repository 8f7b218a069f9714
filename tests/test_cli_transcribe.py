"""whisper-npu transcribe as a person runs it, on a model with random weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from whisper_npu.cli import app

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ["--temperature-increment-on-fallback", "none", "--without-timestamps", "--sample-len", "3"]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, 0.1 * rng.standard_normal(16000), 16000)
    return folder


def _run(*arguments: object) -> Result:
    from whisper_npu.errors import WhisperNpuError

    result = CliRunner().invoke(app, ["transcribe", *map(str, arguments), *QUICK])
    if isinstance(result.exception, WhisperNpuError):  # what `main` does with it
        result.exit_code = result.exception.exit_code
    return result


def test_a_folder_and_then_nothing_more_to_do(model: str, recordings: Path, tmp_path: Path) -> None:
    (recordings / "c.wav").write_bytes(b"no recording")
    out = tmp_path / "out"
    result = _run(recordings, "-m", model, "-o", out, "-f", "txt,srt", "--report", out / "r.json")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "2 done, 0 skipped, 1 failed" in result.stderr
    assert sum(line.startswith("done ") for line in result.stderr.splitlines()) == 2
    assert {path.name for path in out.glob("[!.]*")} == {
        "a.txt",
        "a.srt",
        "b.txt",
        "b.srt",
        "r.json",
    }
    summary = json.loads((out / "r.json").read_text())["summary"]
    assert (summary["done"], summary["failed"], summary["audio_seconds"]) == (2, 1, 2.0)
    assert "cpu" in summary["device"]
    again = _run(recordings, "-m", model, "-o", out, "-f", "txt,srt")
    assert "0 done, 2 skipped, 1 failed" in again.stderr


def test_pages_and_timings(model: str, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = _run(
        recordings, "-m", model, "-o", out, "-f", "html", "--timings", "--report", out / "r.html"
    )
    assert result.exit_code == 0
    for stage in ("audio", "features", "encoder", "K/V", "decoder", "word times", "other"):
        assert f"{stage} " in result.stderr
        assert f"{stage}: " in (out / "r.html").read_text("utf-8")
    page = (out / "a.html").read_text("utf-8")
    assert "<title>a.wav</title>" in page
    assert 'src="data:audio/' in page
    assert page.count('class="word') > 1  # each word has its time, though nobody asked


@pytest.mark.parametrize("style", ["whisper", "broadcast"])
def test_a_format_changes_no_other(
    model: str, recordings: Path, tmp_path: Path, style: str
) -> None:
    """Pages and styled subtitles need word times; with them openai/whisper moves its segments."""
    arguments = (recordings / "a.wav", "-m", model, "--subtitle-style", style)
    written = {}
    for formats in ("txt,tsv,json,csv,lrc", "srt", "vtt", "html", "all"):
        folder = tmp_path / formats
        assert _run(*arguments, "-f", formats, "-o", folder).exit_code == 0
        written[formats] = {path.name: path.read_bytes() for path in folder.glob("a.*")}
    together = written.pop("all")
    assert {name: text for files in written.values() for name, text in files.items()} == together
    assert b'"words"' not in together["a.json"]


def test_nothing_is_invented_where_nobody_speaks(
    model: str, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(recordings / "a.wav", "-m", model, "--no-skip-silence").stdout.strip()
    monkeypatch.delenv("WHISPER_NPU_SKIP_SILENCE")
    skipped = _run(recordings / "a.wav", "-m", model)
    assert (skipped.exit_code, skipped.stdout.strip(), skipped.stderr) == (0, "", "")


def test_stdout_is_the_transcript(model: str, recordings: Path) -> None:
    plain = _run(recordings / "a.wav", "-m", model)
    assert plain.exit_code == 0
    assert plain.stderr == ""
    events = [
        json.loads(line) for line in _run(recordings, "-m", model, "--json").stdout.splitlines()
    ]
    assert {event["input"] for event in events} == {str(recordings / n) for n in ("a.wav", "b.wav")}
    texts = [" ".join(event["text"].split()) for event in events if event["event"] == "segment"]
    assert " ".join(plain.stdout.split()) == texts[0]
    several = _run(recordings, "-m", model, "--workers", "2")
    assert sorted(several.stdout.split("\n")) == sorted(
        _run(recordings, "-m", model).stdout.split("\n")
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["gone.wav"], 4, "gone.wav: no such file"),
        (["{in}", "--include", "*.xyz"], 2, "no recordings"),
        (["{in}/*.xyz"], 2, "nothing matches"),
        (["{in}", "-f", "txt,srt"], 2, "need a folder"),
        (["{in}", "-f", "srt"], 2, "needs a folder"),
        (["{in}", "--output-name", "x"], 2, "single recording"),
        (["{in}", "--max-memory", "lots"], 2, "not a size"),
        (["{in}", "--workers", "0", "-o", "{in}/out"], 2, "0 is less than 1"),
        (["{in}", "--watch"], 2, "needs a folder"),
        (["{in}/a.wav", "-o", "{in}/a.wav"], 8, "cannot write"),
        (["{in}/a.wav", "--clip-timestamps", "90"], 2, "clip begins"),
        (["{in}/a.wav", "-m", "./no-model"], 5, "no model folder"),
        (["{in}/a.wav", "-m", "{in}"], 5, "config.json is missing"),
        (["{in}/a.wav", "-m", "{in}/a.wav"], 5, "is not a Whisper model"),
        (["{in}/a.wav", "-m", "smal"], 5, "did you mean small"),
        (["{in}/a.wav", "-m", "owner/name", "--offline"], 5, "we are offline"),
    ],
)
def test_exit_codes(
    model: str, recordings: Path, arguments: list[str], code: int, told: str
) -> None:
    arguments = [argument.format(**{"in": recordings}) for argument in arguments]
    result = _run(*([] if "-m" in arguments else ["-m", model]), *arguments)
    assert result.exit_code == code
    assert told in result.stderr + str(result.exception)
    assert result.stdout == ""


def test_one_recording_is_told_once(model: str, recordings: Path, tmp_path: Path) -> None:
    for out, told in {
        (): "whisper-npu: gone.wav: no such file",
        (
            "-o",
            tmp_path / "out",
        ): "whisper-npu: gone.wav: cannot be read: No such file or directory",
    }.items():
        failed = _run("gone.wav", "-m", model, *out)
        assert failed.stderr.splitlines() == [told]
    for told in ("done ", "skipped "):
        result = _run(recordings / "a.wav", "-m", model, "-o", tmp_path / "out")
        assert result.stderr.startswith(told)
        assert len(result.stderr.splitlines()) == 1


def _start(model: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "whisper_npu", "transcribe", "-m", model, *map(str, arguments)]
    return subprocess.Popen(
        [*command, *QUICK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_in_order(
    model: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 600, np.int16), 16000)
    out = tmp_path / "out"
    process = _start(model, tmp_path / "long.wav", "-o", out)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        b'"state"' in part.read_bytes() for part in (out / ".whisper-npu").glob("*.jsonl")
    ):
        time.sleep(0.05)
    process.send_signal(number)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == code, talk
    assert "finishing what is in work" in talk
    assert "Traceback" not in talk
    assert not (out / "long.txt").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110  a constant
def test_a_stdout_that_is_full(model: str, recordings: Path) -> None:
    command = [sys.executable, "-m", "whisper_npu", "transcribe", "-m", model]
    with open("/dev/full", "w") as full:  # noqa: PTH123  a device
        done = subprocess.run(
            [*command, *QUICK, "--json", str(recordings)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 8
    assert "cannot write to standard output: No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_watching_until_told_to_stop(model: str, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    os.utime(recordings / "a.wav", (1, 1))
    process = _start(model, recordings, "-o", out, "--watch")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out / "b.txt").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 143, talk
    assert (out / "a.txt").exists()
    assert (out / "b.txt").exists()
