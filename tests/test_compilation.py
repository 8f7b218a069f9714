"""Compiling, over a toolchain that computes with our encoder; test_vendor.py has the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.compilation import Compilation, compile_graphs, encoder_tensors
from whisper_npu.compilation.words import WordAgreement, differing, units
from whisper_npu.errors import DeviceError, OptionError, ToleranceError
from whisper_npu.graphs.recipe import Recipe, find_graph, graphs_folder
from whisper_npu.graphs.verification import agreement, reference_outputs, worst
from whisper_npu.model import Whisper
from whisper_npu.options.compiling import CompileOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

TABLE = """Network Layer Information Table
D RKNN: [10:00:00.000] 0   Conv   FLOAT16  NPU    (1)  (1)  0/0/0  0
"""
RECIPE = Recipe("rk3588", "fp16", 2)


class Toolchain:
    """Stands in for `toolchain.Toolchain`; `spoil` is what its simulator does wrong."""

    version = "2.3.2"
    peak_bytes = 1 << 20

    def __init__(self, log: Path, model: Path) -> None:
        self.log = log
        self.spoil: Callable[[Float], Float] = lambda x: x
        self.echoes = True
        self.jobs: list[Mapping[str, Any]] = []
        self.calibration: list[list[Float]] | None = None
        self._model = Whisper(Checkpoint(model))
        log.write_text("")

    def export(self, tensors: Mapping[str, Float], job: Mapping[str, Any]) -> Path:
        self.jobs.append(job)
        return self.log

    def build(
        self,
        onnx: Path,
        target: str,
        *,
        calibration: list[list[Float]] | None = None,
        rknn: Path | None = None,
    ) -> float:
        with self.log.open("a") as log:
            log.write(TABLE)
        self.calibration = calibration
        if rknn:
            rknn.write_bytes(b"RKNN")
        return 1.5

    def simulate(self, inputs: list[Float]) -> list[Float]:
        mel, echo = inputs
        outputs = reference_outputs(self._model, mel[0])
        n = 2 * len(self._model.decoder_layers)
        keys_values, between = list(outputs.values())[:n], list(outputs.values())[n:]
        echoed = (
            np.concatenate([echo, echo], axis=-1)
            if self.echoes
            else np.zeros((1, 1, 32), np.float32)
        )
        results: list[Float] = [*(self.spoil(x) for x in keys_values), echoed]
        return results + between if self.jobs[-1]["layers"] else results


@pytest.fixture
def compilation(
    random_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Compilation:
    monkeypatch.setenv("WHISPER_NPU_CACHE", str(tmp_path / "cache"))
    model = random_model("micro")
    toolchain: Any = Toolchain(tmp_path / "log", model)
    mel = np.random.default_rng(0).standard_normal((80, 3000), np.float32)
    return Compilation(Checkpoint(model), toolchain, [mel, -mel], "two", [], lambda _: None)


def fake(compilation: Compilation) -> Any:
    return compilation.toolchain


def test_a_verified_graph_is_stored_and_found(compilation: Compilation) -> None:
    folder = compilation.compile(RECIPE)
    found, manifest = find_graph(compilation.checkpoint, RECIPE)
    assert found == folder
    assert sorted(p.name for p in folder.iterdir()) == [
        "encoder.rknn",
        "manifest.json",
        "toolchain.log",
    ]
    assert manifest["inputs"] == {"mel": [1, 80, 200], "echo": [1, 1, 16]}
    assert list(manifest["outputs"]) == ["key_0", "value_0", "key_1", "value_1", "echoed"]
    assert manifest["outputs"]["value_1"] == [1, 100, 64]
    assert manifest["placement"] == {"npu": 1, "elsewhere": {}}
    assert "not a board" in manifest["verified"]["by"]
    assert [each["name"] for each in manifest["verified"]["outputs"]] == [
        "key_0",
        "value_0",
        "key_1",
        "value_1",
    ]


def test_the_cache_is_used_until_told_otherwise(compilation: Compilation) -> None:
    assert compilation.compile(RECIPE) == compilation.compile(RECIPE)
    assert len(fake(compilation).jobs) == 1
    compilation.compile(RECIPE, again=True)
    assert len(fake(compilation).jobs) == 2


def test_the_key_is_what_goes_in(compilation: Compilation) -> None:
    other = Recipe("rk3588", "int8", 2)
    folders = {compilation.folder(r) for r in (RECIPE, Recipe("rk3566", "fp16", 2), other)}
    compilation.calibration = [compilation.mels[0]]
    folders.add(compilation.folder(other))
    fake(compilation).version = "2.5.0"
    folders.add(compilation.folder(RECIPE))
    assert len(folders) == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x[:, ::-1],
        lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, np.nan, x),
        lambda x: x * 0,
        lambda x: x[:, 1:],
    ],
)
def test_a_graph_that_computes_something_else_is_refused(
    compilation: Compilation, spoil: Any
) -> None:
    fake(compilation).spoil = spoil
    with pytest.raises(ToleranceError, match="rk3588 fp16 graph is refused"):
        compilation.compile(RECIPE)
    assert list(graphs_folder().iterdir()) == []


def test_one_large_error_is_told_and_no_reason_to_refuse(compilation: Compilation) -> None:
    fake(compilation).spoil = lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, 0.1, x)
    manifest = json.loads((compilation.compile(RECIPE) / "manifest.json").read_text())
    assert max(each["error"] for each in manifest["verified"]["outputs"]) > 0.01
    assert len(manifest["verified"]["words"]) == 2


@pytest.mark.parametrize(("precision", "n_different"), [("fp16", 2), ("int8", 6)])
def test_words_decide(
    compilation: Compilation, monkeypatch: pytest.MonkeyPatch, precision: str, n_different: int
) -> None:
    """Of 50 words in two windows, one fewer is what the precision may change."""
    recipe = Recipe("rk3588", precision, 2)
    compilation.calibration = compilation.mels
    counts = iter([n_different, 0, n_different - 1, 0])

    def compare(*_: object) -> WordAgreement:
        return WordAgreement("one two", "one too", 25, next(counts), 3)

    monkeypatch.setattr(compilation._ear, "compare", compare)
    with pytest.raises(ToleranceError, match=rf"{n_different} of 50 words differ.*layers"):
        compilation.compile(recipe)
    assert list(graphs_folder().iterdir()) == []
    compilation.compile(recipe)


def test_words_that_differ() -> None:
    assert units("It's 12,  Isn't it?", "en") == ["it", "s", "12", "isn", "t", "it"]
    assert units("今天 好。", "zh") == ["今", "天", "好"]
    assert differing([], []) == differing(["a"], ["a"]) == 0
    assert differing(["a", "b", "c"], ["a", "x", "c", "d"]) == 2


def test_a_graph_without_its_echo_is_refused(compilation: Compilation) -> None:
    fake(compilation).echoes = False
    with pytest.raises(ToleranceError, match="echo"):
        compilation.compile(RECIPE)


def test_layers_are_compared_in_a_build_of_their_own(compilation: Compilation) -> None:
    manifest = json.loads((compilation.compile(RECIPE, layers=True) / "manifest.json").read_text())
    assert [job["layers"] for job in fake(compilation).jobs] == [False, True]
    names = [each["name"] for each in manifest["layers"]]
    assert names == ["embedded", "layer_0", "layer_1", "features"]
    assert all(each["error"] == 0 for each in manifest["layers"])


def test_int8_learns_from_recordings(compilation: Compilation) -> None:
    with pytest.raises(OptionError, match="--calibrate"):
        compilation.compile(Recipe("rk3588", "int8", 2))
    compilation.calibration = compilation.mels
    compilation.compile(Recipe("rk3588", "int8", 2))
    shapes = [[a.shape for a in each] for each in fake(compilation).calibration]
    assert shapes == [[(1, 80, 200), (1, 1, 16)]] * 2


@pytest.mark.parametrize("calibrate", [False, True])
def test_without_recordings_of_the_users_samples_are_heard(
    compilation: Compilation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, calibrate: bool
) -> None:
    toolchain = fake(compilation)
    toolchain.close = lambda: None
    monkeypatch.setattr("whisper_npu.compilation.Toolchain", lambda *_: toolchain)
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    soundfile.write(recordings / "noise.wav", np.ones(16000) * 0.1, 16000)
    options = CompileOptions(
        toolchain_python=Path("python"), calibrate=recordings if calibrate else None
    )
    (folder,) = compile_graphs(compilation.checkpoint, [RECIPE], options, lambda _: None)
    verified = json.loads((folder / "manifest.json").read_text())["verified"]
    expected = "1 windows of recordings" if calibrate else "2 windows of our samples"
    assert (verified["signal"], len(verified["words"])) == (expected, 1 if calibrate else 2)


def test_the_toolchains_failure_leaves_nothing(
    compilation: Compilation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceError("out of memory")

    monkeypatch.setattr(fake(compilation), "build", fail)
    with pytest.raises(DeviceError, match="out of memory"):
        compilation.compile(RECIPE)
    assert list(graphs_folder().iterdir()) == []


def test_the_tensors_are_the_encoders_and_the_cross_attentions(compilation: Compilation) -> None:
    tensors = encoder_tensors(Whisper(compilation.checkpoint))
    encoder = {name for name in compilation.checkpoint.names if "model.encoder." in name}
    assert encoder <= set(tensors)
    others = set(tensors) - encoder
    assert sorted(others)[:3] == [
        "model.decoder.layers.0.encoder_attn.k_proj.weight",
        "model.decoder.layers.0.encoder_attn.v_proj.bias",
        "model.decoder.layers.0.encoder_attn.v_proj.weight",
    ]


def test_agreement() -> None:
    x = np.array([[1, -2], [3, 4]], np.float32)
    assert agreement("x", x, x).error == 0
    off = agreement("x", x + np.array([[0, 0], [0, 1]], np.float32), x)
    assert off.error == 0.25
    assert off.cosine == pytest.approx(34 / np.sqrt(30 * 39))
    zero = np.zeros_like(x)
    assert agreement("0", zero, zero).cosine == 1
    assert agreement("0", x, zero).cosine == 0
    total = worst([off, agreement("x", x, x)], "both")
    assert (total.cosine, total.error) == (off.cosine, off.error)
