"""The benchmark on a device made of clockwork, and its counts against the layers themselves."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from whisper_npu import bench as measuring
from whisper_npu import probe
from whisper_npu.bench import bench, decoder_weights, encoder_operations
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.cli import app
from whisper_npu.devices.device import DeviceInfo
from whisper_npu.devices.npu import NpuDevice
from whisper_npu.devices.plan import Plan
from whisper_npu.errors import OptionError
from whisper_npu.model import Whisper, cross_keys_values, encode
from whisper_npu.options import DeviceOptions
from whisper_npu.options.measuring import BenchOptions
from whisper_npu.rknpu.soc import SOCS
from whisper_npu.stages import stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.model import Conv, Linear, Norm


class Clock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0


class Library:
    """What the emulator tells."""

    is_emulated = True
    null = 0

    def emulator_set(self, name: str, value: int) -> None:
        assert name == "null"
        self.null = value

    def emulator_reset(self) -> None:
        pass

    def emulator_get(self, name: str) -> float:
        readings = {"seconds0": 0.2, "seconds1": 0.1, "seconds2": 0.3, "calls": 7, "runs": 5}
        return readings.get(name, 1e6)


class Clockwork:
    """Encoding takes a second longer each time, K/V 0.5 s, a step 10 ms and 5 ms per beam."""

    def __init__(self, clock: Clock, info: DeviceInfo) -> None:
        self.info = info
        self.library = Library()
        self._clock = clock
        self._n = 0
        self._rows = 1

    def encode(self, mel: Any, *, observe: None = None) -> None:
        assert mel.shape == (80, 3000)
        self._n += 1
        self._clock.now += 0.125 if self.library.null else self._n
        with stage("K/V"):
            self._clock.now += 0.5

    def session(self, encoded: None, *, beams: int = 1) -> Clockwork:
        return self

    def step(self, tokens: NDArray[np.int64]) -> None:
        self._clock.now += 0.01 + 0.005 * (len(tokens) - 1)

    def reorder(self, sources: Sequence[int]) -> None:
        pass

    def close(self) -> None:
        pass


class EmulatedClockwork(Clockwork, NpuDevice):  # type: ignore[misc]
    """The same, and what only an NPU tells."""

    def __init__(self, clock: Clock, info: DeviceInfo) -> None:
        Clockwork.__init__(self, clock, info)
        self.plan, self.soc = Plan("", (), {}, (0.25, 0.5)), SOCS["rk3588"]


@pytest.fixture
def on(
    random_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], measuring.Benchmark]:
    """Benchmark a clockwork device with this decoder, or an emulated NPU."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(probe, "bandwidth", lambda: 8e9)
    monkeypatch.setattr(probe, "matmul_rate", lambda: 5e9)

    def open_clockwork(decoder: str) -> Clockwork:
        if decoder == "emulated":
            plan = ("all on the NPU (modelled)",)
            return EmulatedClockwork(
                clock, DeviceInfo("npu", "npu", "fp16", "int8", "rk3588", "emulated", plan)
            )
        return Clockwork(clock, DeviceInfo("cpu", "cpu", "f32", decoder))

    def run(decoder: str) -> measuring.Benchmark:
        opened = iter([decoder, "int8"])  # the second is held against an emulated NPU
        monkeypatch.setattr(measuring, "open_device", lambda *_: open_clockwork(next(opened)))
        options = BenchOptions(warm_up=1, repeats=3, tokens=4)
        return bench(Checkpoint(random_model("micro")), DeviceOptions(), options)

    return run


def test_medians_and_rates(on: Callable[[str], measuring.Benchmark]) -> None:
    found = on("int8")
    timings = {timing.stage: timing for timing in found.timings}
    assert list(timings) == ["encoder", "K/V", "prompt", "token", "token, 5 beams"]
    # opening and warming up have taken the first two
    encoder = timings["encoder"]
    assert [encoder.least.value, encoder.median.value, encoder.most.value] == pytest.approx(
        [3000, 4000, 5000]
    )
    assert timings["K/V"].median.value == pytest.approx(500)
    assert timings["token"].median.value == pytest.approx(10)
    assert timings["token, 5 beams"].median.value == pytest.approx(30)
    figures = {name: figure.value for name, figure in found.figures.items()}
    assert figures["tokens"] == pytest.approx(100)
    assert figures["opening"] == pytest.approx(1.5)
    assert {figure.origin for figure in found.figures.values()} == {"measured"}
    assert figures["memory bandwidth of this machine"] == 8
    rate = figures["decoder, weights alone"]
    assert figures["decoder, weights alone, of the bandwidth"] == pytest.approx(100 * rate / 8)


def test_the_weights_of_the_decoder_count(on: Callable[[str], measuring.Benchmark]) -> None:
    rates = {
        precision: on(precision).figures["decoder, weights alone"].value
        for precision in ("int8", "f16", "f32")
    }
    assert list(rates.values()) == pytest.approx(np.array([1, 2, 4]) * rates["int8"])


def test_what_is_emulated_or_modelled_says_so(on: Callable[[str], measuring.Benchmark]) -> None:
    found = on("emulated")
    assert {t.median.origin for t in found.timings} == {"emulated"}
    figures = {name: str(figure) for name, figure in found.figures.items()}
    assert figures["busiest NPU core"] == "300 ms modelled"
    assert figures["all NPU cores"] == "600 ms modelled"
    assert figures["window on the board, at best"] == "250 ms modelled"
    assert figures["window on the board, at worst"] == "500 ms modelled"
    assert figures["window with 100 tokens, at worst"].endswith(" ms modelled")
    assert figures["faster than real time, at best"].endswith(" times modelled")
    assert figures["calls of the library"] == "7 emulated"
    assert figures["host time of a window"] == "625 ms"
    assert figures["our CPU encoder in the same run"] == "3,500 ms"
    assert figures["host time / CPU encoder"] == "0.179"
    assert found.plan == ("all on the NPU (modelled)",)


def test_counts_are_those_of_the_layers(random_model: Callable[[str], Path]) -> None:
    checkpoint = Checkpoint(random_model("micro"))
    ops = Counting()
    model = Whisper(checkpoint)
    features = encode(model, ops, (3000, checkpoint.dims.n_mels))
    cross_keys_values(model, ops, features)
    assert encoder_operations(checkpoint.dims) == ops.operations

    names = [name for name in checkpoint.names if name.startswith("model.decoder")]
    linear = [n for n in names if n.endswith(("proj.weight", "fc1.weight", "fc2.weight"))]
    read = [n for n in linear if "encoder_attn.k" not in n and "encoder_attn.v" not in n]
    weights = sum(
        checkpoint.read(name).size for name in [*read, "model.decoder.embed_tokens.weight"]
    )
    assert decoder_weights(checkpoint.dims) == weights


class Counting:
    """`Ops` over shapes."""

    operations = 0

    def conv_gelu(self, x: tuple[int, int], conv: Conv) -> tuple[int, int]:
        rows = x[0] // conv.stride
        self.operations += 2 * rows * 3 * conv.n_in * conv.n_out
        return rows, conv.n_out

    def add(self, x: tuple[int, int], rows: Any) -> tuple[int, int]:
        return x

    def layer_norm(self, x: tuple[int, int], norm: Norm) -> tuple[int, int]:
        return x

    def linear(self, x: tuple[int, int], linear: Linear, **_: Any) -> tuple[int, int]:
        self.operations += 2 * x[0] * linear.n_in * linear.n_out
        return x[0], linear.n_out

    def attention(
        self, query: tuple[int, int], key: tuple[int, int], value: tuple[int, int], n_heads: int
    ) -> tuple[int, int]:
        self.operations += 2 * 2 * query[0] * key[0] * query[1]
        return query


def test_command(
    on: Callable[[str], measuring.Benchmark],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    random_model: Callable[[str], Path],
) -> None:
    found = on("emulated")
    asked: list[DeviceOptions] = []

    def remember(_: Checkpoint, device: DeviceOptions, *__: Any) -> measuring.Benchmark:
        asked.append(device)
        return found

    monkeypatch.setattr(measuring, "bench", remember)
    arguments = ["bench", str(random_model("micro")), "--device", "npu-int8", "--emulate", "rk3566"]
    page = tmp_path / "bench.html"
    result = CliRunner().invoke(app, [*arguments, "--json", "--report", str(page)])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert asked == [DeviceOptions("npu", npu_precision="int8", emulate="rk3566")]
    html = page.read_text("utf-8")
    for name, figure in told["figures"].items():
        assert name in html
        assert figure["origin"] == "measured" or figure["origin"] in html
    plain = CliRunner().invoke(app, arguments)
    assert "window on the board" in plain.stdout
    assert "250 ms modelled" in plain.stdout
    assert "all on the NPU (modelled)" in plain.stdout


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warm_up": -1}, {"tokens": 0}, {"tokens": 401}])
def test_options(wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError):
        BenchOptions(**wrong)


def test_probes_measure_something() -> None:
    assert 1e7 < probe.bandwidth(1 << 22, 1) < 1e13
    assert 1e7 < probe.matmul_rate(128, 1) < 1e14
    assert "cores" in probe.name()
    probe.forget_peak_memory()
    peak = probe.peak_memory()
    assert peak is not None
    assert peak > 10e6
