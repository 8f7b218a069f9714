"""The graph device: the window it takes, and equality with the CPU device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.device import DeviceInfo
from whisper_npu.devices.graph import GraphDevice, GraphOptions, open_graph_device
from whisper_npu.devices.numpy_device import NumpyDevice
from whisper_npu.errors import DeviceError
from whisper_npu.graphs.verification import reference_outputs
from whisper_npu.model import Whisper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Float = NDArray[np.float32]


class OurGraph:
    """What a board would compute, by our float32 encoder."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = Whisper(checkpoint)
        self.n_frames: list[int] = []
        self.closed = False

    def run(self, mel: Float) -> dict[str, Float]:
        self.n_frames.append(mel.shape[1])
        n = 2 * len(self._model.decoder_layers)
        mel = mel[:, : 2 * self._model.dims.n_audio_ctx]  # a model for windows of 2 s, padded to 30
        outputs = list(reference_outputs(self._model, mel).items())[:n]
        return {name: value[0] for name, value in outputs}

    def close(self) -> None:
        self.closed = True


OURS = DeviceInfo("npu graph (ours)", "graph", "fp16", "", origin="emulated")


@pytest.fixture(scope="module")
def checkpoint(random_model: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint(random_model("micro"))


def mel(n_frames: int) -> Float:
    sound = np.random.default_rng(0).standard_normal((80, 3000), np.float32)
    sound[:, n_frames:] = 0
    return sound


def test_it_decodes_as_the_cpu_does(checkpoint: Checkpoint) -> None:
    cpu = NumpyDevice(checkpoint)
    device = GraphDevice({30: OurGraph(checkpoint)}, cpu, OURS)
    assert device.info.name == "npu graph (ours), decoder on cpu f32, numpy"
    tokens = np.array([[1, 2, 3]], np.int64)
    seen: list[str] = []
    encoded = device.encode(mel(3000), observe=lambda name, _: seen.append(name))
    expected = cpu.session(cpu.encode(mel(3000))).step(tokens)
    np.testing.assert_allclose(device.session(encoded).step(tokens), expected, atol=1e-5)
    assert device.info.origin == "emulated"
    assert device.info.decoder_precision == "f32"
    assert seen[1::2] == [f"model.decoder.layers.{i}.encoder_attn.v_proj" for i in range(2)]


def test_keys_and_values_are_taken_once(checkpoint: Checkpoint) -> None:
    """Language detection, each fallback and alignment decode the same window."""

    class Counting(NumpyDevice):
        n_kept = 0

        def keep(self, pairs: Sequence[tuple[Float, Float]]) -> Sequence[tuple[Float, Float]]:
            self.n_kept += 1
            return super().keep(pairs)

    cpu = Counting(checkpoint)
    device = GraphDevice({30: OurGraph(checkpoint)}, cpu, OURS)
    encoded = device.encode(mel(3000))
    for _ in range(3):
        device.session(encoded, align=True)
    assert cpu.n_kept == 1


@pytest.mark.parametrize(
    ("content", "taken"),
    [(0, 1000), (1, 1000), (1000, 1000), (1001, 2000), (2000, 2000), (2001, 3000), (3000, 3000)],
)
def test_the_shortest_window_that_holds_the_sound(
    checkpoint: Checkpoint, content: int, taken: int
) -> None:
    graph = OurGraph(checkpoint)
    device = GraphDevice({30: graph, 10: graph, 20: graph}, NumpyDevice(checkpoint), OURS)
    encoded = device.encode(mel(content))
    ((key, _), *_) = encoded
    assert graph.n_frames == [taken]
    assert key.shape == (taken // 2, 64)
    device.session(encoded).step(np.array([[1]], np.int64))
    device.close()
    assert graph.closed


def test_without_short_windows_the_length_is_always_30_s(checkpoint: Checkpoint) -> None:
    graph = OurGraph(checkpoint)
    GraphDevice({30: graph}, NumpyDevice(checkpoint), OURS).encode(mel(10))
    assert graph.n_frames == [3000]


def test_no_board_and_no_graph(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    cpu = NumpyDevice(checkpoint)
    with pytest.raises(DeviceError, match="no Rockchip board"):
        open_graph_device(checkpoint, cpu, GraphOptions(), tmp_path)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_bytes(b"rockchip,rk3566\0")
    with pytest.raises(DeviceError, match=r"no fp16 graph of micro for rk3566.* 30 s"):
        open_graph_device(checkpoint, cpu, GraphOptions(), tmp_path)
