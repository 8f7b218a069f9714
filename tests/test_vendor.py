"""The vendor's own compiler and simulator; `scripts/check-toolchain` makes its environment.

The simulator computes in float16 for any chip: this proves graphs and our encoder, not boards.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from whisper_npu import sources
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.compilation import LIMITS, Compilation, compile_graphs
from whisper_npu.devices.cpu import open_cpu
from whisper_npu.devices.device import DeviceInfo
from whisper_npu.devices.graph import GraphDevice
from whisper_npu.errors import DeviceError, ModelError
from whisper_npu.graphs.calibration import windows
from whisper_npu.graphs.echo import echo_bits
from whisper_npu.graphs.recipe import MANIFEST, Recipe
from whisper_npu.graphs.toolchain import Toolchain
from whisper_npu.options.compiling import CompileOptions
from whisper_npu.sample_recordings import SAMPLES
from whisper_npu.transcribe import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from whisper_npu.devices.device import Device

    Float = NDArray[np.float32]

PYTHON = Path(os.environ.get("WHISPER_NPU_TOOLCHAIN_PYTHON", "/nowhere"))

pytestmark = [
    pytest.mark.skipif(
        not PYTHON.exists(), reason="scripts/check-toolchain makes the vendor's environment"
    ),
    pytest.mark.timeout(1200),  # a simulated window takes a second, or ten on a busy machine
]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path))


def compiled(model: Path, recipe: Recipe, **options: Any) -> dict[str, Any]:
    chosen = CompileOptions(toolchain_python=PYTHON, **options)
    (folder,) = compile_graphs(Checkpoint(model), [recipe], chosen, print)
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return manifest


PLACED = {
    "rk3588": set(),
    "rk3566": {"softmax", "reshape", "transpose"},
}


def real(name: str) -> Path:
    """The folder of a published model; skips where no package has brought it."""
    try:
        return sources.find(name, offline=True)
    except ModelError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("target", PLACED)
def test_float16(shared: Path, target: str) -> None:
    """Real weights on real speech: every word is the one that our encoder gives."""
    speech = shared / "data" / "real_speech" / "jfk.flac"
    manifest = compiled(real("tiny.en"), Recipe(target), audio=speech)
    verified = manifest["verified"]
    assert min(each["cosine"] for each in verified["outputs"]) > 0.9999
    (heard,) = verified["words"]
    assert "ask not what your country can do for you" in heard["heard"]
    assert heard["first_token"] is None
    assert set(manifest["placement"]["elsewhere"]) <= PLACED[target]
    assert ("softmax" in manifest["placement"]["elsewhere"]) == (target == "rk3566")


def test_int8_calibrated_on_speech(
    random_model: Callable[[str], Path], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "int8", (0.9, 1000))  # random weights have no words to keep
    speech = shared / "data" / "public_samples"
    manifest = compiled(
        random_model("micro"), Recipe("rk3588", "int8", 10), calibrate=speech, layers=True
    )
    outputs = manifest["verified"]["outputs"]
    assert 0.001 < max(each["error"] for each in outputs) < 0.2  # it is int8, and not noise
    assert manifest["verified"]["signal"] == "3 windows of public_samples"


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toolchain]:
    chain = Toolchain(PYTHON, tmp_path_factory.mktemp("vendor") / "log")
    yield chain
    chain.close()


def test_the_vendors_errors_are_ours(toolchain: Toolchain) -> None:
    with pytest.raises(DeviceError, match="the vendor's compiler: build: "):
        toolchain.build(Path("/nowhere.onnx"), "rk3588")
    with pytest.raises(DeviceError, match="as ONNX: KeyError"):
        toolchain.export({}, {"kind": "encoder", "n_heads": 1, "n_frames": 2, "n_echo": 1})


class Simulated:
    """The graph that a toolchain has just built, run by the vendor's simulator."""

    def __init__(self, toolchain: Toolchain, n_layers: int) -> None:
        self._toolchain = toolchain
        self._names = [f"{kind}_{i}" for i in range(n_layers) for kind in ("key", "value")]
        self.n_runs = 0

    def run(self, mel: Float) -> dict[str, Float]:
        self.n_runs += 1
        *outputs, _ = self._toolchain.simulate([mel[None], echo_bits(self.n_runs)])
        return {name: x[0] for name, x in zip(self._names, outputs, strict=True)}

    def close(self) -> None:
        pass


def test_weights_in_a_second_file(
    random_model: Callable[[str], Path], toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for models above 2 GB, on a small one; `compile` verifies what it has built."""
    export = toolchain.export
    monkeypatch.setattr(
        toolchain, "export", lambda tensors, job: export(tensors, {**job, "protobuf_limit": 1000})
    )
    checkpoint = Checkpoint(random_model("micro"))
    mels = windows(SAMPLES / "sentence.flac", checkpoint.dims.n_mels, 1)
    compilation = Compilation(checkpoint, toolchain, mels, "a sample", [], print)
    sizes = []
    for target in ("rk3588", "rk3566"):
        compilation.compile(Recipe(target, window=10))
        sizes.append((toolchain.scratch / "x.weights").stat().st_size)
    assert sizes[0] == sizes[1] > 100_000


def test_transcripts_with_the_simulated_encoder(toolchain: Toolchain, shared: Path) -> None:
    """A whole recording of several windows: the encoder simulated, against all on the CPU.

    One chip is enough: the simulator computes the same for all.
    """
    checkpoint = Checkpoint(real("tiny.en"))
    mels = windows(SAMPLES / "sentence.flac", checkpoint.dims.n_mels, 1)
    Compilation(checkpoint, toolchain, mels, "a sample", [], print).compile(Recipe("rk3588"))
    graph = Simulated(toolchain, checkpoint.dims.n_text_layer)
    info = DeviceInfo("simulated", "graph", "fp16", "", "rk3588", "emulated")
    cpu = open_cpu(checkpoint, precision="f32")
    speech = shared / "data" / "real_speech" / "moon-two-cities.flac"
    device = GraphDevice({30: graph}, cpu, info)
    assert text(checkpoint, device, speech) == text(checkpoint, cpu, speech)
    assert graph.n_runs > 1


def text(checkpoint: Checkpoint, device: Device, recording: Path) -> str:
    return Model(checkpoint, device).transcribe(recording).text
