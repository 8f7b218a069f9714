"""The CPU device of every instruction set and precision, against the numpy model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_checkpoint import SIZES, write

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices import cpu, packed
from whisper_npu.devices.cores import Threads
from whisper_npu.devices.cpu import CpuDevice
from whisper_npu.devices.numpy_device import NumpyDevice
from whisper_npu.devices.opening import open_device
from whisper_npu.errors import OptionError
from whisper_npu.kernels import status
from whisper_npu.messages import warn_once
from whisper_npu.options import DeviceOptions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

native = pytest.importorskip("whisper_npu.kernels._native")  # installed without a compiler
every_isa = pytest.mark.parametrize("isa", status().instruction_sets)

# widths, heads and lengths that are no multiple of anything
ODD = replace(
    SIZES["micro"],
    n_mels=20, n_audio_ctx=75, n_audio_state=120, n_text_state=120, n_audio_head=6, n_text_head=4,
    n_audio_layer=2, n_text_layer=2, n_text_ctx=70,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(write(tmp_path_factory.mktemp("models") / "odd", ODD))


def window(checkpoint: Checkpoint, seed: int = 0) -> Float:
    dims = checkpoint.dims
    rng = np.random.default_rng(seed)
    mel = rng.standard_normal((dims.n_mels, 2 * dims.n_audio_ctx), np.float32)
    mel[:, dims.n_audio_ctx :] = 0
    return mel


def play(device: Any, checkpoint: Checkpoint, *, align: bool = False) -> list[Float]:
    """A prompt, beams that fork, cross and merge, a second prompt: all logits."""
    rng = np.random.default_rng(1)
    vocabulary = checkpoint.dims.n_vocab

    def tokens(*shape: int) -> Any:
        return rng.integers(0, vocabulary, shape)

    session = device.session(device.encode(window(checkpoint)), beams=4, align=align)
    results = [session.step(tokens(1, 5))]
    for sources in ([0, 0, 0], [2, 0, 2, 1], [3, 2, 1, 0], [1, 1], [1]):
        session.reorder(sources)
        results.append(session.step(tokens(len(sources), 1)))
    results.append(session.step(tokens(1, 9), every_position=True))
    if align:
        results.append(session.attention())
    session.close()
    return results


def assert_close(results: list[Float], expected: list[Float], tolerance: float) -> None:
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@every_isa
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", ["odd", "micro"])
def test_f32_equals_the_model(
    isa: str, threads: int, size: str, odd: Checkpoint, random_model: Any
) -> None:
    checkpoint = odd if size == "odd" else Checkpoint(random_model(size))
    device = CpuDevice(checkpoint, isa, "f32", "f32", Threads(threads, ()))
    expected = play(NumpyDevice(checkpoint), checkpoint, align=True)
    assert_close(play(device, checkpoint, align=True), expected, 1e-4)
    device.close()


@every_isa
@pytest.mark.parametrize(
    ("encoder", "decoder", "tolerance"),
    [("f16", "f16", 0.03), ("f16", "int8", 0.06), ("int8", "int8", 0.1)],
)
def test_the_error_of_a_precision(
    isa: str, encoder: str, decoder: str, tolerance: float, odd: Checkpoint
) -> None:
    device = CpuDevice(odd, isa, encoder, decoder, Threads(2, ()))
    assert_close(play(device, odd, align=True), play(NumpyDevice(odd), odd, align=True), tolerance)


def test_threads_change_nothing(odd: Checkpoint) -> None:
    isa = status().instruction_sets[0]
    one, many = (play(CpuDevice(odd, isa, "f16", "int8", Threads(n, ())), odd) for n in (1, 5))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_any_order_of_beams(odd: Checkpoint, orders: list[list[int]]) -> None:
    isa = status().instruction_sets[0]
    ours: Any = _open(odd, isa).session(_encoded(odd, isa), beams=4)
    numpy = NumpyDevice(odd)
    theirs = numpy.session(numpy.encode(window(odd)))
    rng = np.random.default_rng(len(orders))
    rows = 1
    for order in orders:
        tokens = rng.integers(0, odd.dims.n_vocab, (rows, 1))
        a, b = ours.step(tokens), theirs.step(tokens)
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())
        sources = [source % rows for source in order]
        ours.reorder(sources)
        theirs.reorder(sources)
        rows = len(sources)


_opened: dict[str, Any] = {}


def _open(checkpoint: Checkpoint, isa: str) -> Any:
    if "device" not in _opened:
        _opened["device"] = CpuDevice(checkpoint, isa, "f32", "f32", Threads(2, ()))
        _opened["encoded"] = _opened["device"].encode(window(checkpoint))
    return _opened["device"]


def _encoded(checkpoint: Checkpoint, isa: str) -> Any:
    _open(checkpoint, isa)
    return _opened["encoded"]


def test_windows_do_not_disturb_each_other(odd: Checkpoint) -> None:
    device = open_device(odd, DeviceOptions("cpu", "f32", threads=2))
    first, second = device.encode(window(odd, 0)), device.encode(window(odd, 1))
    tokens = np.array([[1, 2, 3]])
    sessions = [device.session(encoded) for encoded in (first, second, first)]
    logits = [session.step(tokens) for session in sessions]
    np.testing.assert_array_equal(logits[0], logits[2])
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


@pytest.mark.parametrize(("bits", "floats"), [(0x3C00, "fp16"), (0x3F80, "bf16")])
def test_the_cache_is_keyed_by_what_is_packed(
    monkeypatch: pytest.MonkeyPatch, bits: int, floats: str
) -> None:
    """Arm packs IEEE halves for each of its instruction sets, x86 bfloat16."""

    def pack(weight: Float, kind: int) -> tuple[NDArray[np.uint8], None, None]:
        return np.full(weight.size, bits, np.uint16).view(np.uint8), None, None

    assert packed.order(packed.F16, packed.INT8).split("-")[1] in ("fp16", "bf16")
    monkeypatch.setattr(packed, "native", SimpleNamespace(pack=pack))
    assert packed.order(packed.F16, packed.INT8) == f"cpu-{floats}-12"


@pytest.mark.parametrize("n_positions", [75, 40, 1])
def test_keys_and_values_from_elsewhere(odd: Checkpoint, n_positions: int) -> None:
    """Also of a shorter window."""
    numpy = NumpyDevice(odd)
    pairs = [(k[:n_positions], v[:n_positions]) for k, v in numpy.encode(window(odd))]
    device = CpuDevice(odd, status().instruction_sets[0], "f32", "f32", Threads(2, ()))
    ours, theirs = device.session(device.keep(pairs), align=True), numpy.session(pairs, align=True)
    tokens = np.array([[7, 8]])
    np.testing.assert_allclose(ours.step(tokens), theirs.step(tokens), atol=1e-4)
    np.testing.assert_allclose(ours.attention(), theirs.attention(), atol=1e-3)
    with pytest.raises(ValueError, match="one pair"):
        device.keep(pairs[:1])


@every_isa
@pytest.mark.parametrize("n_positions", [75, 49, 48, 3])
def test_shorter_windows_are_less_work_and_leave_nothing_behind(
    odd: Checkpoint, isa: str, n_positions: int
) -> None:
    device = CpuDevice(odd, isa, "f32", "f32", Threads(2, ()))
    mel, tokens = window(odd)[:, : 2 * n_positions], np.array([[7, 8]])
    first = device.session(device.encode(mel)).step(tokens)
    device.encode(window(odd, 1))
    np.testing.assert_array_equal(device.session(device.encode(mel)).step(tokens), first)
    numpy = NumpyDevice(odd)
    exact = numpy.session(numpy.encode(mel)).step(tokens)
    np.testing.assert_allclose(first, exact, atol=1e-3)
    shown: dict[str, Float] = {}
    device.encode(mel, observe=shown.__setitem__)
    assert shown["model.encoder.layer_norm"].shape == (n_positions, 120)


def test_windows_of_half_a_position_are_refused(odd: Checkpoint) -> None:
    device = CpuDevice(odd, status().instruction_sets[0], "f32", "f32", Threads(1, ()))
    for n_frames in (0, 3, 152):
        with pytest.raises(ValueError, match="even number of frames"):
            device.encode(np.zeros((odd.dims.n_mels, n_frames), np.float32))


@every_isa
@pytest.mark.parametrize("precision", ["f32", "f16", "int8"])
def test_what_is_shown_is_what_is_computed(odd: Checkpoint, isa: str, precision: str) -> None:
    """Comparisons measure the very steps that people transcribe with."""
    device = CpuDevice(odd, isa, precision, precision, Threads(2, ()))
    tokens = np.array([[7, 8]])
    unseen = device.session(device.encode(window(odd))).step(tokens)
    shown: dict[str, Float] = {}
    encoded = device.encode(window(odd), observe=shown.__setitem__)
    np.testing.assert_array_equal(device.session(encoded).step(tokens), unseen)
    features = device._engine.features(window(odd))
    np.testing.assert_array_equal(shown["model.encoder.layer_norm"], features[:, :120])


def test_observed_layers_are_those_of_the_model(odd: Checkpoint) -> None:
    seen: dict[str, Float] = {}
    exact: dict[str, Float] = {}
    device = CpuDevice(odd, status().instruction_sets[0], "f16", "f16", Threads(1, ()))
    device.encode(window(odd), observe=seen.__setitem__)
    NumpyDevice(odd).encode(window(odd), observe=exact.__setitem__)
    assert list(seen) == list(exact)
    for name, value in exact.items():
        assert np.abs(seen[name] - value).max() < 0.03 * np.abs(value).max() + 1e-3


def test_misuse_is_refused(odd: Checkpoint) -> None:
    device = open_device(odd, DeviceOptions("cpu", "f32", threads=1))
    session = device.session(device.encode(window(odd)), beams=2)
    with pytest.raises(ValueError, match="out of range"):
        session.step(np.array([[odd.dims.n_vocab]]))
    with pytest.raises(ValueError, match="one row"):
        session.step(np.array([[1], [2]]))
    with pytest.raises(ValueError, match="beams"):
        session.reorder([0, 0, 0])
    with pytest.raises(ValueError, match="not a row"):
        session.reorder([1])
    with pytest.raises(ValueError, match="positions"):
        session.step(np.zeros((1, odd.dims.n_text_ctx + 1), np.int64))
    session.step(np.zeros((1, odd.dims.n_text_ctx), np.int64))
    with pytest.raises(ValueError, match="positions"):
        session.step(np.zeros((1, 1), np.int64))
    with pytest.raises(ValueError, match="mel"):
        device.encode(np.zeros((3, 150), np.float32))


def test_weights_of_another_size_are_refused(odd: Checkpoint) -> None:
    from whisper_npu.model import Whisper

    model = Whisper(odd)
    sizes, arrays = packed.sizes(model), dict(packed.arrays(model, packed.F32, packed.F32))
    isa = status().instruction_sets[0]
    for name in ("vocabulary.panels", "encoder.1.fc1.bias", "audio_positions", "embedding"):
        with pytest.raises(ValueError, match=name):
            native.Engine(isa, sizes, arrays | {name: arrays[name][:-1]}, 0, 1, [])
    other = dict(packed.arrays(model, packed.F16, packed.INT8))
    mixed = arrays | {name: value for name, value in other.items() if "encoder.1" in name}
    with pytest.raises(ValueError, match="formats"):
        native.Engine(isa, sizes, mixed, 0, 1, [])


def test_packing_keeps_one_layer_at_a_time(odd: Checkpoint) -> None:
    from whisper_npu.model import Linear, Whisper

    model = Whisper(odd)
    packing = packed.arrays(model, packed.INT8, packed.INT8)
    name = ""
    while not name.startswith("decoder_norm"):
        name, _ = next(packing)
    heads = [part for x in model.decoder_layers for part in (x.attention, x.cross) if part]
    linears = [layer for x in heads for layer in vars(x).values() if isinstance(layer, Linear)]
    linears += [layer for x in model.encoder_layers for layer in (x.fc1, x.fc2)]
    assert linears
    assert not any("weight" in vars(layer) for layer in linears)


def test_options() -> None:
    with pytest.raises(OptionError, match="precision: 'fp8' is not one of auto, f32"):
        DeviceOptions(precision="fp8")
    with pytest.raises(OptionError, match="threads: 0 is less than 1"):
        DeviceOptions(threads=0)


def test_without_native_kernels_numpy_takes_over(
    odd: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "native", None)
    warn_once.cache_clear()
    devices = [cpu.open_cpu(odd) for _ in range(2)]
    assert [device.info.name for device in devices] == ["cpu f32, numpy"] * 2
    assert [record.message for record in caplog.records] == [
        "no compiled kernels: numpy does their work, far more slowly (whisper-npu doctor)"
    ]
    with pytest.raises(OptionError, match="compiled kernels"):
        cpu.open_cpu(odd, precision="int8")
