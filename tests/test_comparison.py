"""Devices held against each other: the program from its command line to its page."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from test_layers import FaultyOps
from typer.testing import CliRunner

from whisper_npu import comparison
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.cli import app
from whisper_npu.comparison import GREEDY, Task, compare, verdict
from whisper_npu.comparison.accuracy import Errors
from whisper_npu.comparison.verdict import Accuracy, require
from whisper_npu.devices.numpy_device import NumpyDevice
from whisper_npu.errors import AudioError, ToleranceError, WhisperNpuError
from whisper_npu.options import DeviceOptions
from whisper_npu.reference import NumpySession
from whisper_npu.reports.comparison import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.comparison.verdict import Findings

    Float = NDArray[np.float32]

FAULT = "model.encoder.layers.1.fc2"
CPU = DeviceOptions.named("cpu-f32")
BROKEN = DeviceOptions.named("cpu-int8")  # the one that this file breaks


class Distracted(NumpySession):
    """Hears another word at its third step."""

    n_steps = 0

    def step(self, tokens: NDArray[np.int64], *, every_position: bool = False) -> Float:
        logits = super().step(tokens, every_position=every_position)
        self.n_steps += 1
        if self.n_steps == 4:
            logits[:, 1000] += 100
        return logits


class Broken(NumpyDevice):
    """A layer with a wrong scale, and a decoder that is not itself."""

    info = replace(NumpyDevice.info, name="cpu broken")

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._ops = FaultyOps(FAULT, 40.0)

    def session(self, encoded: Any, *, beams: int = 1, align: bool = False) -> NumpySession:
        return Distracted(self._model, encoded)


def open_device(checkpoint: Checkpoint, options: DeviceOptions) -> NumpyDevice:
    return Broken(checkpoint) if options == BROKEN else NumpyDevice(checkpoint)


@pytest.fixture(scope="module")
def task(
    random_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Task]:
    """Three seconds of noise, in which a random model hears words."""
    talk = tmp_path_factory.mktemp("audio") / "talk <b>.wav"
    noise = np.random.default_rng(0).standard_normal(48000) * 0.1
    soundfile.write(talk, noise.astype(np.float32), 16000)
    bad = talk.with_name("bad.wav")
    bad.write_text("no sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "open_device", open_device)
        yield Task(
            [str(bad), str(talk)],
            Checkpoint(random_model("micro")),
            [CPU, BROKEN],
            {str(talk): "one two three"},
            replace(GREEDY, sample_len=6, language="en"),
        )


@pytest.fixture(scope="module")
def found(task: Task) -> Findings:
    return compare(task)


def test_a_planted_fault_is_found_and_named(found: Findings) -> None:
    first, broken = found.devices
    assert first.safe
    assert not broken.safe
    assert broken.suspect is not None
    assert broken.suspect.name == FAULT
    assert FAULT in broken.verdict


def test_where_the_devices_part(found: Findings) -> None:
    same, parted = found.recordings[0].devices
    assert same.divergence is None
    assert same.against_first.rate == 0
    assert same.drift is not None
    assert same.drift.worst == 0
    assert parted.divergence is not None
    assert parted.divergence.chosen[0] != parted.divergence.chosen[1]
    assert all(len(choices) == 5 for choices in parted.divergence.choices)
    assert parted.divergence.said.startswith("<|startoftranscript|>")
    assert parted.against_first.rate > 0


def test_time_and_memory(found: Findings) -> None:
    for device in found.devices:
        seconds = {stage: figure.value for stage, figure in device.seconds.items()}
        assert [stage for stage in seconds if seconds[stage] == 0] == ["word times"]
        total = sum(seconds.values())
        assert device.real_time_factor.value == pytest.approx(total / 3)
        assert device.peak_memory is not None
        assert device.peak_memory > 20e6
    assert found.devices[0].speed_up.value == 1


def test_sums_are_those_of_the_recordings(found: Findings) -> None:
    for i, device in enumerate(found.devices):
        compared = found.recordings[0].devices[i]
        assert device.accuracy.against_first == compared.against_first.words
        assert compared.against_reference is not None
        assert device.accuracy.against_reference == compared.against_reference.words


@pytest.mark.parametrize(
    ("first", "differ", "wrong", "safe", "said"),
    [
        (0, 0, 0, True, "the same words as cpu f32"),
        (5, 4, 5, True, "4.00% of the words differ from cpu f32; 5.00% are wrong by the"),
        (5, 4, 6, True, "5.00% on cpu f32"),
        (5, 4, 7, False, "7.00% are wrong by the references"),
        (60, 4, 60, False, "too many to judge by"),
    ],
)
def test_verdict(
    found: Findings, first: int, differ: int, wrong: int, safe: bool, said: str
) -> None:
    accuracy = Accuracy(*(Errors(100 - n, n) for n in (differ, wrong, first)))
    device = replace(found.devices[1], accuracy=accuracy, suspect=None)
    assert verdict._verdict(device, "cpu f32", 0.01)[0] == safe
    assert said in verdict._verdict(device, "cpu f32", 0.01)[1]


def test_recordings_that_cannot_be_read_are_told(task: Task, found: Findings) -> None:
    bad, talk = task.recordings
    assert [recording.name for recording in found.recordings] == [talk]
    assert list(found.failures) == [bad]
    with pytest.raises(AudioError, match=r"bad\.wav"):
        compare(replace(task, recordings=[bad]))


def test_tolerance(found: Findings) -> None:
    require(found, 1000)
    with pytest.raises(ToleranceError, match="cpu broken"):
        require(found, 0.01)
    alone = replace(found, devices=found.devices[:1])
    with pytest.raises(ToleranceError, match="cpu f32"):
        require(alone, 0.01)


@pytest.fixture
def command(
    task: Task, found: Findings, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str, Task]]:
    """Runs the command line up to the comparison itself; exit code, stdout, stderr, the task."""
    asked: list[Task] = []

    def remember(task: Task) -> Findings:
        asked.append(task)
        return found

    monkeypatch.setattr(comparison, "compare", remember)

    def run(*more: str) -> tuple[int, str, str, Task]:
        fixed = ["compare", *task.recordings, "-m", str(task.checkpoint.path)]
        result = CliRunner().invoke(app, [*fixed, *more])
        if isinstance(result.exception, WhisperNpuError):
            return result.exception.exit_code, result.stdout, str(result.exception), asked[-1]
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stdout, result.stderr, asked[-1]

    return run


def test_the_page_has_the_numbers_of_the_json(
    command: Callable[..., tuple[int, str, str, Task]], tmp_path: Path
) -> None:
    code, out, err, _ = command("--json", "--report", str(tmp_path / "report.html"))
    assert code == 3  # one recording could not be read
    told: dict[str, Any] = json.loads(out)
    html = " ".join((tmp_path / "report.html").read_text("utf-8").split())
    assert "report.html" in err
    for device in told["devices"]:
        for stage, figure in device["seconds"].items():
            value = figure["value"]
            time = f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
            assert not value or f"{stage}: {time}" in html
        for layer in device["layers"]:
            assert f"{layer['relative']:.3e}" in html
            assert f"{layer['max_abs']:.3e}" in html
    second = told["devices"][1]
    assert second["verdict"] in html
    assert second["suspect"]["name"] == FAULT
    assert f"{100 * second['accuracy']['against_first']['rate']:.2f} %" in html
    for side in told["recordings"][0]["devices"][1]["divergence"]["choices"]:
        for choice in side:
            assert f"{100 * choice['probability']:.2f} %" in html
    assert "talk &lt;b&gt;.wav" in html
    assert "<b>" not in html
    assert "bad.wav" in html


def test_the_terminal_shows_all_of_it(
    command: Callable[..., tuple[int, str, str, Task]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    _, out, _, _ = command()
    for part in ("UNSAFE", FAULT, "encoder", "K/V", "speed-up", "peak memory", "{+", "[-", "takes"):
        assert part in out
    assert "\x1b" not in out


def test_the_task(command: Callable[..., tuple[int, str, str, Task]], tmp_path: Path) -> None:
    (tmp_path / "talk <b>.txt").write_text("hello", "utf-8")
    task = command(
        "--word-timestamps", "--emulate", "rk3588", "-l", "de", "--reference", str(tmp_path)
    )[3]
    assert list(task.references.values()) == ["hello"]
    assert task.options.language == "de"
    assert task.options.word_timestamps
    assert task.options.temperatures == (0.0,)
    assert list(task.devices) == [
        DeviceOptions.named(name, "rk3588")
        for name in ("cpu-f32", "cpu-int8", "npu-fp16", "npu-int8")
    ]
    assert command("--devices", "npu-int8-graph, npu-fp16+f32, cpu")[3].devices == [
        DeviceOptions("npu", npu_precision="int8", npu_path="graph"),
        DeviceOptions("npu", precision="f32", npu_precision="fp16"),
        DeviceOptions("cpu"),
    ]


def test_exit_codes(command: Callable[..., tuple[int, str, str, Task]], tmp_path: Path) -> None:
    assert command("--fail-above", "0.01")[0] == 7
    assert command("--fail-above", "1000")[0] == 3
    assert command("--reference", str(tmp_path / "none"))[0] == 2


def test_infinite_errors_are_null_in_json() -> None:
    assert plain({"a": (np.inf, 1.0)}) == {"a": [None, 1.0]}
