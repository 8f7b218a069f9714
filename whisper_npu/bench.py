"""One device, one window, again and again -> time by stage, and how near to the machine's limits.

The window is noise and the tokens are arbitrary: no stage's time depends on what they say.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu import probe
from whisper_npu.devices.npu import NpuDevice
from whisper_npu.devices.opening import open_device
from whisper_npu.figures import Figure, Origin
from whisper_npu.stages import recording, stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whisper_npu.checkpoint import Checkpoint, Dimensions
    from whisper_npu.devices.device import Device, DeviceInfo
    from whisper_npu.options import DeviceOptions
    from whisper_npu.options.measuring import BenchOptions

BEAMS = 5
BANDWIDTH, MATMUL = "memory bandwidth of this machine", "float32 matmul of this machine"
_TOKENS = 100  # of text in 30 s: fast speech
_PROMPT = 4  # tokens, as <|startoftranscript|><|en|><|transcribe|><|0.00|>
_WEIGHT_BYTES = {"f32": 4, "f16": 2, "int8": 1}


@dataclass(frozen=True)
class StageTime:
    """One stage, measured several times."""

    stage: str
    median: Figure
    least: Figure
    most: Figure


@dataclass(frozen=True)
class Benchmark:
    """What was measured, and what follows from it."""

    model: str
    device: str
    machine: str
    repeats: int
    timings: tuple[StageTime, ...]
    figures: dict[str, Figure]
    plan: tuple[str, ...]  # of an NPU: which layers run where


def bench(
    checkpoint: Checkpoint,
    device: DeviceOptions,
    options: BenchOptions,
    say: Callable[[str], object] = str,
) -> Benchmark:
    """Measure a device. Raises what it raises."""
    probe.forget_peak_memory()
    noise = np.random.default_rng(0).standard_normal((checkpoint.dims.n_mels, 3000))
    mel = noise.astype(np.float32)
    with recording() as opening:
        opened = open_device(checkpoint, device)
        opened.encode(mel)  # what is prepared on first use belongs to opening
    with closing(opened):
        info = opened.info
        say(f"{info.name}: {options.repeats} times")
        source = info.origin
        runs = [_run(opened, mel, options) for _ in range(options.warm_up + options.repeats)]
        timings = _timings(runs[options.warm_up :], source)
        peak = probe.peak_memory()
        figures = _speeds(info, checkpoint.dims, timings)
        if isinstance(opened, NpuDevice) and source == "emulated":
            figures |= _emulated(opened, mel)
            figures |= _board(opened, checkpoint.dims)
            figures |= _host(opened, checkpoint, device, mel, options.repeats)
    figures["opening"] = Figure(opening.total, "s", source)
    if peak is not None:
        figures["peak memory"] = Figure(peak / 1e6, "MB", source)
    say("limits of this machine")
    figures[BANDWIDTH] = Figure(probe.bandwidth() / 1e9, "GB/s")
    figures[MATMUL] = Figure(probe.matmul_rate() / 1e9, "GFLOP/s")
    figures |= _shares(figures)
    name = checkpoint.name
    return Benchmark(name, info.name, probe.name(), options.repeats, timings, figures, info.plan)


def _run(device: Device, mel: Any, options: BenchOptions) -> dict[str, float]:
    """Seconds by stage of one window."""
    with recording() as stages:
        with stage("encoder"):
            encoded = device.encode(mel)
        with stage("prompt"), closing(device.session(encoded)) as session:
            session.step(np.zeros((1, _PROMPT), np.int64))
            with stage("token"):
                for _ in range(options.tokens):
                    session.step(np.zeros((1, 1), np.int64))
        with closing(device.session(encoded, beams=BEAMS)) as session:
            session.step(np.zeros((1, _PROMPT), np.int64))
            session.reorder([0] * BEAMS)
            with stage(f"token, {BEAMS} beams"):
                for _ in range(options.tokens):
                    session.step(np.zeros((BEAMS, 1), np.int64))
    per_token = {name: seconds / options.tokens for name, seconds in stages.seconds.items()}
    return {
        name: per_token[name] if name.startswith("token") else seconds
        for name, seconds in stages.seconds.items()
        if name in ("encoder", "K/V", "prompt", "token", f"token, {BEAMS} beams")
    }


def _timings(runs: Sequence[dict[str, float]], source: Origin) -> tuple[StageTime, ...]:
    def figure(seconds: float) -> Figure:
        return Figure(1e3 * seconds, "ms", source)

    return tuple(
        StageTime(name, *(figure(f([run[name] for run in runs])) for f in (median, min, max)))
        for name in runs[0]
    )


def _speeds(
    device: DeviceInfo, dims: Dimensions, timings: Sequence[StageTime]
) -> dict[str, Figure]:
    """Rates that follow from the medians."""
    seconds = {timing.stage: timing.median.value / 1e3 for timing in timings}
    source, window = device.origin, seconds["encoder"] + seconds["K/V"]
    figures = {
        "window of 30 s": Figure(1e3 * window, "ms", source),
        "tokens": Figure(1 / seconds["token"], "1/s", source),
        "encoder and K/V": Figure(encoder_operations(dims) / window / 1e9, "GFLOP/s", source),
    }
    if device.kind == "cpu":
        n_bytes = decoder_weights(dims) * _WEIGHT_BYTES[device.decoder_precision]
        rate = n_bytes / seconds["token"] / 1e9
        figures["decoder, weights alone"] = Figure(rate, "GB/s", source)
    return figures


def _shares(figures: dict[str, Figure]) -> dict[str, Figure]:
    """What is achieved, as a share of what this machine was measured to be capable of."""
    pairs = [
        ("encoder and K/V", "of the matmul", MATMUL),
        ("decoder, weights alone", "of the bandwidth", BANDWIDTH),
    ]
    return {
        f"{achieved}, {of}": Figure(100 * figures[achieved].value / figures[limit].value, "%")
        for achieved, of, limit in pairs
        if achieved in figures and figures[achieved].origin == "measured"
    }


def _emulated(device: NpuDevice, mel: Any) -> dict[str, Figure]:
    """The calls of a window, and what the model says of the chip's time."""
    library = device.library
    library.emulator_set("null", 1)  # no arithmetic: what is left is this program's work
    library.emulator_reset()
    device.encode(mel)
    chip = sum(library.emulator_get(f"seconds{core}") for core in range(3))
    busiest = max(library.emulator_get(f"seconds{core}") for core in range(3))
    library.emulator_set("null", 0)
    moved = library.emulator_get("bytes_to_device") + library.emulator_get("bytes_from_device")
    return {
        "busiest NPU core": Figure(1e3 * busiest, "ms", "modelled"),
        "all NPU cores": Figure(1e3 * chip, "ms", "modelled"),
        "calls of the library": Figure(library.emulator_get("calls"), "", "emulated"),
        "matmuls": Figure(library.emulator_get("runs"), "", "emulated"),
        "synchronised memory": Figure(moved / 1e6, "MB", "emulated"),
    }


def _board(device: NpuDevice, dims: Dimensions) -> dict[str, Figure]:
    """What 30 s of speech would take on the board, at best and at worst.

    The decoder waits for the CPU's memory; with beams it computes for several rows besides, here as
    if neither hid behind the other.
    """
    beams = BEAMS * token_operations(dims) / device.soc.cpu_operations
    figures: dict[str, Figure] = {}
    bands = zip(
        ("best", "worst"), device.plan.window_seconds, device.soc.cpu_bandwidth, strict=True
    )
    for name, window, bandwidth in bands:
        token = token_bytes(dims) / bandwidth
        whole = window + _TOKENS * token
        figures |= {
            f"window on the board, at {name}": Figure(1e3 * window, "ms", "modelled"),
            f"token on the board, at {name}": Figure(1e3 * token, "ms", "modelled"),
            f"window with {_TOKENS} tokens, at {name}": Figure(1e3 * whole, "ms", "modelled"),
            f"faster than real time, at {name}": Figure(30 / whole, "times", "modelled"),
            f"with {BEAMS} beams, at {name}": Figure(
                30 / (whole + _TOKENS * beams), "times", "modelled"
            ),
        }
    return figures


def _host(
    device: NpuDevice, checkpoint: Checkpoint, options: DeviceOptions, mel: Any, repeats: int
) -> dict[str, Figure]:
    """The host's part of a window on an emulated NPU, in turns with our own CPU encoder."""
    seconds: tuple[list[float], list[float]] = [], []
    device.library.emulator_set("null", 1)
    with closing(open_device(checkpoint, replace(options, device="cpu", emulate=None))) as cpu:
        cpu.encode(mel)
        for _ in range(repeats):
            for each, times in zip((device, cpu), seconds, strict=True):
                with recording() as stages:
                    each.encode(mel)
                times.append(stages.total)
    device.library.emulator_set("null", 0)
    host, own = map(median, seconds)
    return {
        "host time of a window": Figure(1e3 * host, "ms"),
        "our CPU encoder in the same run": Figure(1e3 * own, "ms"),
        "host time / CPU encoder": Figure(host / own, ""),
    }


def encoder_operations(dims: Dimensions) -> float:
    """Multiplications and additions of one window's encoder and cross-attention K/V."""
    c, d, n_layers = dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_layer
    stem = 2 * c * 3 * dims.n_mels * d + c * 3 * d * d
    layer = 12 * c * d * d + 2 * c * c * d
    keys_values = dims.n_text_layer * 2 * c * d * d
    return 2 * (stem + n_layers * layer + keys_values)


def token_bytes(dims: Dimensions) -> int:
    """Read for each token: int8 weights, and the float16 keys and values of cross-attention."""
    keys_values = dims.n_text_layer * 2 * dims.n_audio_ctx * dims.n_text_state
    return decoder_weights(dims) + 2 * keys_values


def token_operations(dims: Dimensions) -> int:
    """Multiplications and additions for each token of a row, as many as numbers are read."""
    keys_values = dims.n_text_layer * 2 * dims.n_audio_ctx * dims.n_text_state
    return 2 * (decoder_weights(dims) + keys_values)


def decoder_weights(dims: Dimensions) -> int:
    """Weights read for each token: the decoder but for the K/V projections, and the vocabulary."""
    d = dims.n_text_state
    return dims.n_text_layer * 14 * d * d + dims.n_vocab * d
