"""The vendor's own compiler and simulator; `scripts/check-toolchain` makes its environment.

The simulator computes in float16 for any chip: this proves graphs and our encoder, not boards.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import soundfile

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.compilation import Compilation, CompileOptions, compile_graphs
from whisper_npu.devices.cpu import open_cpu
from whisper_npu.devices.device import DeviceInfo
from whisper_npu.devices.graph import GraphDevice
from whisper_npu.errors import DeviceError
from whisper_npu.graphs.calibration import SYNTHETIC, synthetic_window
from whisper_npu.compilation import Compilation, compile_graphs
from whisper_npu.graphs.echo import echo_bits
from whisper_npu.graphs.recipe import MANIFEST, Recipe
from whisper_npu.graphs.toolchain import Toolchain
from whisper_npu.options import TranscribeOptions
from whisper_npu.options.compiling import CompileOptions
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


# the demo model's development split (scripts/demo_speech.py)
HELD_OUT = [f"an4/{name}" for name in "fbbh fclc ffmm fjam mblw mdxs mjhp mrab mtos".split()]
HELD_OUT += ["fsdd/yweweler"]

PLACED = {
    "rk3588": set(),
    "rk3566": {"softmax", "reshape", "transpose"},
}


@pytest.mark.parametrize("target", PLACED)
@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_float16(
    random_model: Callable[[str], Path], demo_model: Path, target: str, name: str
) -> None:
    model = demo_model if name == "demo" else random_model(name)
    if not (model / "config.json").exists():
        pytest.skip("the demo model is not there")
    manifest = compiled(model, Recipe(target), layers=name == "demo")
    outputs = manifest["verified"]["outputs"]
    assert max(each["error"] for each in outputs) < 0.005
    assert min(each["cosine"] for each in outputs) > 0.99999
    assert set(manifest["placement"]["elsewhere"]) <= PLACED[target]
    assert ("softmax" in manifest["placement"]["elsewhere"]) == (target == "rk3566")


def test_int8_calibrated_on_speech(random_model: Callable[[str], Path], shared: Path) -> None:
    speech = shared / "data" / "public_samples"
    manifest = compiled(
        random_model("micro"), Recipe("rk3588", "int8", 10), calibrate=speech, layers=True
    )
    outputs = manifest["verified"]["outputs"]
    assert 0.001 < max(each["error"] for each in outputs) < 0.2  # it is int8, and not noise
    assert manifest["verified"]["signal"] == "2 windows of public_samples"


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
    mels = [synthetic_window(checkpoint.dims.n_mels)]
    compilation = Compilation(checkpoint, toolchain, mels, SYNTHETIC, [], print)
    sizes = []
    for target in ("rk3588", "rk3566"):
        compilation.compile(Recipe(target, window=10))
        sizes.append((toolchain.scratch / "x.weights").stat().st_size)
    assert sizes[0] == sizes[1] > 100_000


@pytest.fixture
def demo(demo_model: Path) -> Checkpoint:
    if not (demo_model / "config.json").exists():
        pytest.skip("the demo model is not there")
    return Checkpoint(demo_model)


def simulated(demo: Checkpoint, toolchain: Toolchain, recipe: Recipe) -> Simulated:
    mels = [synthetic_window(demo.dims.n_mels)]
    Compilation(demo, toolchain, mels, SYNTHETIC, [], print).compile(recipe)
    return Simulated(toolchain, demo.dims.n_text_layer)


def texts(demo: Checkpoint, device: Device, recordings: list[Float]) -> list[str]:
    model = Model(demo, device)
    options = TranscribeOptions(
        temperature=(0.0,), temperature_increment_on_fallback=None
    )  # sampling would differ by chance
    return [model.transcribe(samples, options).text for samples in recordings]


def held_out(shared: Path) -> list[Float]:
    """All that speakers say whom the demo model's training never heard, one recording each."""
    pack = shared / "data" / "train_pack"
    rows = [json.loads(line) for line in (pack / "manifest.jsonl").read_text().splitlines()]
    files = {row["speaker"]: row["file"] for row in rows}
    return [soundfile.read(pack / files[name], dtype="float32")[0] for name in HELD_OUT]


def test_the_demo_models_transcripts(demo: Checkpoint, toolchain: Toolchain, shared: Path) -> None:
    """The whole development split: the encoder simulated, against all of it on the CPU.

    One chip is enough: the simulator computes the same for all.
    """
    graph = simulated(demo, toolchain, Recipe("rk3588"))
    recordings = held_out(shared)
    info = DeviceInfo("simulated", "graph", "fp16", "", "rk3588", "emulated")
    device = GraphDevice({30: graph}, open_cpu(demo, precision="f32"), info)
    expected = texts(demo, open_cpu(demo, precision="f32"), recordings)
    assert texts(demo, device, recordings) == expected
    assert graph.n_runs >= 10
