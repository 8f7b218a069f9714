"""The NPU from the command line: emulated and said so, exit codes, a device that dies mid-file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from manners import words

from whisper_npu.rknpu import emulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

QUICK = ["--temperature-increment-on-fallback", "none", "--without-timestamps", "--sample-len", "3"]


@pytest.fixture
def run(
    random_model: Callable[[str], Path], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    model = random_model("micro.en")

    def go(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """With all bad manners of the chip that is emulated."""
        chip = next((chip for chip in emulator.CHIPS if chip in arguments), None)
        if chip is not None:
            precision = "int8" if "int8" in arguments else "fp16"
            environment = {emulator.MANNERS: words("all", chip, model, precision)} | environment
        command = [sys.executable, "-m", "whisper_npu", "transcribe", *map(str, arguments), *QUICK]
        own = {"WHISPER_NPU_CACHE": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path)}
        return subprocess.run(
            [*command, "-m", str(model)],
            env=os.environ | own | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return go


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two windows."""
    path = tmp_path / "a.wav"
    noise = 0.1 * np.random.default_rng(1).standard_normal(35 * 16000)
    soundfile.write(path, noise, 16000)
    return path


def test_no_npu_is_exit_code_6_and_one_line(run: Run, recording: Path) -> None:
    done = run(recording, "--device", "npu")
    assert done.returncode == 6
    assert done.stdout == ""
    assert done.stderr.startswith("whisper-npu: no NPU here")
    assert len(done.stderr.splitlines()) == 1


def test_a_window_that_does_not_fit_says_what_to_do(run: Run, recording: Path) -> None:
    emulated = ["--device", "npu", "--emulate", "rk3566"]
    done = run(recording, *emulated, WHISPER_NPU_EMULATOR="memory_limit=12000000")
    assert (done.returncode, done.stdout) == (6, "")
    assert re.search(
        r"^whisper-npu: npu: layer \S+: rknn_create_mem failed: no memory \(null\); this model "
        "does not fit into the memory that the NPU reaches: whisper-npu doctor",
        done.stderr,
        re.MULTILINE,
    )


def test_auto_says_why_once_and_goes_on(run: Run, recording: Path) -> None:
    done = run(recording)
    assert done.returncode == 0
    assert done.stderr.count("using the CPU: no NPU here") == 1


def test_emulated_is_said_in_plan_and_report(run: Run, recording: Path, tmp_path: Path) -> None:
    report, name = tmp_path / "report.json", "npu int8 (emulated rk3566)"
    done = run(
        recording, "--device", "npu", "--emulate", "rk3566", "--npu-precision", "int8", "--plan",
        "--report", report, "-o", tmp_path, "-f", "all", "--json",
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.count(f"whisper-npu: {name}\n") == 1
    assert "plan for emulated rk3566, int8, modelled" in done.stderr
    said = json.loads(report.read_text())
    assert said["summary"]["device"] == said["recordings"][0]["device"] == name
    assert all(json.loads(line)["device"] == name for line in done.stdout.splitlines())
    assert json.loads((tmp_path / "a.json").read_text())["device"] == name
    for form in ("html", "vtt", "lrc"):
        assert name in (tmp_path / f"a.{form}").read_text()
    journal = (tmp_path / ".whisper-npu/journal.jsonl").read_text().splitlines()
    assert json.loads(journal[-1])["device"] == name


def test_one_worker_an_npu_core_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        noise = 0.1 * np.random.default_rng(i).standard_normal(2 * 16000)
        soundfile.write(folder / f"{i}.wav", noise, 16000)
    outputs = []
    for name, workers in (("one", ["--workers", "1"]), ("each", [])):
        done = run(
            folder, "--device", "npu", "--emulate", "rk3588", "-o", tmp_path / name, "-f", "json",
            "--report", tmp_path / f"{name}.json", *workers,
            WHISPER_NPU_EMULATOR="late_evict,view_nosync,descriptors,refuse=16",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "RTF" in done.stderr
        assert not re.search(r"RTF \d+.\d+(?! emulated)[,)]", done.stderr)
        outputs.append([path.read_bytes() for path in sorted((tmp_path / name).glob("*.json"))])
    assert len(outputs[0]) == 4
    assert outputs[0] == outputs[1]


FAULT = "rknn_matmul_run:40:-1:-3"  # every run from the 40th on: the second window


def test_a_device_that_dies_keeps_what_is_finished(
    run: Run, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    emulated = ["--device", "npu", "--emulate", "rk3588"]
    died = run(recording, "-o", out, *emulated, WHISPER_NPU_EMULATOR_FAULT=FAULT)
    assert died.returncode == 6
    assert "rknn_matmul_run failed: device unavailable (code -3)" in died.stderr
    assert "npu: layer" in died.stderr
    assert not list(out.glob("*.txt"))
    resumed = run(recording, "-o", out, *emulated)
    assert resumed.returncode == 0
    assert (out / "a.txt").is_file()


def test_auto_finishes_on_the_cpu(run: Run, recording: Path) -> None:
    whole = run(recording, "--device", "cpu")
    done = run(recording, "--emulate", "rk3588", WHISPER_NPU_EMULATOR_FAULT=FAULT)
    assert done.returncode == 0
    assert "the NPU failed, going on with the CPU: npu: layer" in done.stderr
    assert len(done.stdout.splitlines()) == len(whole.stdout.splitlines()) > 0
