"""A checkpoint -> a verified .rknn graph of its encoder in the cache.

Nothing is stored that has not been run in the vendor's simulator: the words heard with it must be
those heard with our float32 encoder. The simulator computes in float16 for every chip: it proves
the graph, not the board.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu import cache
from whisper_npu.compilation.words import Ear, WordAgreement
from whisper_npu.errors import OptionError, ToleranceError
from whisper_npu.graphs.calibration import windows
from whisper_npu.graphs.echo import N_ECHO, echo_bits, read_echo
from whisper_npu.graphs.placement import read_placement
from whisper_npu.graphs.recipe import FORMAT, GRAPH, LOG, MANIFEST, Recipe, graphs_folder
from whisper_npu.graphs.toolchain import Toolchain, environment
from whisper_npu.graphs.verification import Agreement, agreement, reference_outputs, worst
from whisper_npu.model import Whisper
from whisper_npu.sample_recordings import RECORDINGS, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.options.compiling import CompileOptions

    Float = NDArray[np.float32]
    Say = Callable[[str], None]

N_CALIBRATION = 20  # windows from which int8 learns its scales
N_VERIFICATION = 3  # windows each graph is run on; a simulated run takes seconds to minutes
# a build is refused below this cosine of an output, or when more than this share of the words
# differ. The cosine finds a wrong graph where nobody speaks (one is below 0.5); words decide
LIMITS = {"fp16": (0.999, 0.02), "int8": (0.9, 0.1)}


def encoder_tensors(model: Whisper) -> dict[str, NDArray[Any]]:
    """What the graph is made of, under the published names."""
    wanted: list[Any] = [model.conv1, model.conv2, model.encoder_norm]
    for layer in model.encoder_layers:
        heads = layer.attention
        wanted += [heads.norm, heads.query, heads.key, heads.value, heads.out]
        wanted += [layer.mlp_norm, layer.fc1, layer.fc2]
    for layer in model.decoder_layers:
        assert layer.cross is not None  # noqa: S101  decoder layers have it
        wanted += [layer.cross.key, layer.cross.value]
    tensors = {"model.encoder.embed_positions.weight": model.audio_positions}
    for part in wanted:
        tensors[f"{part.name}.weight"] = part.weight
        if f"{part.name}.bias" in model.checkpoint:
            tensors[f"{part.name}.bias"] = part.bias
    return tensors


@dataclass
class Compilation:
    """One checkpoint being compiled, for any number of recipes.

    mels         (n_mels, 3000) float32 each: windows on which every graph is verified
    signal       what they are, for people
    calibration  windows from which int8 learns its scales; empty for fp16
    """

    checkpoint: Checkpoint
    toolchain: Toolchain
    mels: list[Float]
    signal: str
    calibration: list[Float]
    say: Say

    def __post_init__(self) -> None:
        self._model = Whisper(self.checkpoint)
        self._ear = Ear(self.checkpoint)
        self._expected: dict[tuple[int, int], dict[str, Float]] = {}
        self._fingerprint = self.checkpoint.fingerprint

    def folder(self, recipe: Recipe) -> Path:
        """Where the graph of a recipe is, or will be."""
        inputs = hashlib.sha256()
        for part in (FORMAT, self._fingerprint, asdict(recipe), self.toolchain.version):
            inputs.update(json.dumps(part, sort_keys=True).encode())
        if recipe.precision == "int8":
            for mel in self.calibration:
                inputs.update(np.ascontiguousarray(mel).tobytes())
        name = f"{recipe.target}-{recipe.precision}-{recipe.window}s-{inputs.hexdigest()[:16]}"
        return graphs_folder() / name

    def compile(self, recipe: Recipe, *, layers: bool = False, again: bool = False) -> Path:
        """The verified graph's folder: from the cache, else built.

        layers  compare every encoder layer as well, in a second build that is thrown away
        again   build even if it is in the cache

        Raises OptionError (int8 without calibration), DeviceError (the toolchain failed),
        ToleranceError (the graph computes something else), OutputError.
        """
        if recipe.precision == "int8" and not self.calibration:
            raise OptionError("int8 needs recordings to learn its scales from: --calibrate FOLDER")
        folder = self.folder(recipe)
        if not again and not layers and (folder / MANIFEST).exists():
            self.say(f"{folder} is there already")
            return folder
        with cache.replacing(folder) as new:
            new.mkdir()
            manifest = self._build(recipe, new / GRAPH)
            self._verify(recipe, manifest)
            if layers:
                self._build(recipe, None)
                self._verify_layers(recipe, manifest)
            manifest["verified"]["peak_bytes"] = self.toolchain.peak_bytes
            manifest |= {"sha256": cache.sha256(new / GRAPH)}
            (new / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            (new / LOG).write_bytes(self.toolchain.log.read_bytes())
        self.say(f"written to {folder}")
        return folder

    def _build(self, recipe: Recipe, rknn: Path | None) -> dict[str, Any]:
        """Export and build; without a file to write, with the layers as further outputs."""
        dims, n_positions = self.checkpoint.dims, recipe.n_frames // 2
        self.say(f"building {recipe.target} {recipe.precision}, window {recipe.window} s ...")
        onnx = self.toolchain.export(
            encoder_tensors(self._model),
            {
                "kind": "encoder",
                "n_heads": dims.n_audio_head,
                "n_layers": dims.n_audio_layer,
                "n_decoder_layers": dims.n_text_layer,
                "n_frames": recipe.n_frames,
                "n_echo": N_ECHO,
                "layers": rknn is None,
            },
        )
        calibration = None
        if recipe.precision == "int8":
            calibration = [_inputs(m, recipe, i) for i, m in enumerate(self.calibration)]
        seen = self.toolchain.log.stat().st_size
        seconds = self.toolchain.build(onnx, recipe.target, calibration=calibration, rknn=rknn)
        placement = read_placement(self.toolchain.log.read_bytes()[seen:].decode(errors="replace"))
        self.say(f"{recipe.target.upper()}: {placement or 'the log names no placement'}")
        keys_values = [f"{kind}_{i}" for i in range(dims.n_text_layer) for kind in ("key", "value")]
        return {
            "format": FORMAT,
            "checkpoint": self._fingerprint,
            **asdict(recipe),
            "toolchain": self.toolchain.version,
            "inputs": {"mel": [1, dims.n_mels, recipe.n_frames], "echo": [1, 1, N_ECHO]},
            "outputs": {
                **{name: [1, n_positions, dims.n_text_state] for name in keys_values},
                "echoed": [1, 1, 2 * N_ECHO],
            },
            "bytes": rknn.stat().st_size if rknn else 0,
            "build_seconds": round(seconds, 1),
            "build_peak_bytes": self.toolchain.peak_bytes,
            "placement": asdict(placement) if placement else None,
        }

    def _verify(self, recipe: Recipe, manifest: dict[str, Any]) -> None:
        """Every window through the simulator; the worst agreement of each output is kept."""
        names = list(manifest["outputs"])[:-1]  # without the echo
        found: dict[str, list[Agreement]] = {name: [] for name in names}
        words = []
        for i, mel in enumerate(self.mels):
            outputs = self._simulate(recipe, mel, i, list(manifest["outputs"]))
            expected = self._reference(recipe, i)
            for name in names:
                found[name].append(agreement(name, outputs[name], expected[name]))
            if all(each[-1].cosine > 0 for each in found.values()):  # else there is no decoding it
                words.append(self._ear.compare(outputs, expected))
        self._judge(recipe, manifest, [worst(each, name) for name, each in found.items()], words)

    def _reference(self, recipe: Recipe, number: int) -> dict[str, Float]:
        """What our encoder makes of a window, computed once for all recipes of its length."""
        key = number, recipe.n_frames
        if key not in self._expected:
            mel = self.mels[number][:, : recipe.n_frames]
            self._expected[key] = reference_outputs(self._model, mel)
        return self._expected[key]

    def _verify_layers(self, recipe: Recipe, manifest: dict[str, Any]) -> None:
        """Layer by layer, on the first window, in the graph built with its layers shown."""
        expected = self._reference(recipe, 0)
        names = list(manifest["outputs"])
        between = [name for name in expected if name not in names]
        outputs = self._simulate(recipe, self.mels[0], 0, names + between)
        found = [agreement(name, outputs[name], expected[name]) for name in between]
        for each in found:
            self.say(f"  {each}")
        manifest["layers"] = [asdict(each) for each in found]

    def _simulate(
        self, recipe: Recipe, mel: Float, number: int, names: list[str]
    ) -> Mapping[str, Float]:
        inputs = _inputs(mel, recipe, number)
        outputs = dict(zip(names, self.toolchain.simulate(inputs), strict=True))
        if read_echo(outputs["echoed"]) != number:
            raise ToleranceError(f"{recipe.target}: the graph's echo does not come back")
        return outputs

    def _judge(
        self,
        recipe: Recipe,
        manifest: dict[str, Any],
        found: list[Agreement],
        words: list[WordAgreement],
    ) -> None:
        least, most = LIMITS[recipe.precision]
        for each in (*found, *words):
            self.say(f"  {each}")
        manifest["verified"] = {
            "by": f"the simulator of rknn-toolkit2 {self.toolchain.version}, not a board",
            "signal": self.signal,
            "limits": {"cosine": least, "words": most},
            "outputs": [asdict(each) for each in found],
            "words": [asdict(each) for each in words],
        }
        cosine = min(each.cosine for each in found)
        n_words = sum(each.n_words for each in words)
        n_different = sum(each.n_different for each in words)
        if cosine < least:
            reason = f"an output has cosine {cosine:.4f} with our encoder's (at least {least})"
        elif n_different > most * n_words:
            reason = f"{n_different} of {n_words} words differ (at most {most:.0%})"
        else:
            return
        instead = "--npu-precision fp16, or no graph" if recipe.precision == "int8" else "no graph"
        raise ToleranceError(
            f"the {recipe.target} {recipe.precision} graph is refused: {reason}; use {instead}: "
            f"--npu-path layers runs this model without one. The vendor's log: {self.toolchain.log}"
        )


def _inputs(mel: Float, recipe: Recipe, number: int) -> list[Float]:
    return [np.ascontiguousarray(mel[None, :, : recipe.n_frames]), echo_bits(number)]


def compile_graphs(
    checkpoint: Checkpoint, recipes: list[Recipe], options: CompileOptions, say: Say
) -> list[Path]:
    """Compile all, with one toolchain; the folders of the graphs.

    Raises as `Compilation.compile` does, and AudioError.
    """
    n_mels = checkpoint.dims.n_mels
    source = options.audio or options.calibrate
    sources = [source] if source else [SAMPLES / name for name in RECORDINGS]
    mels = [mel for each in sources for mel in windows(each, n_mels, N_VERIFICATION)]
    calibration = []
    if options.calibrate:
        calibration = windows(options.calibrate, n_mels, N_CALIBRATION)
    log = cache.folder() / "compile.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    toolchain = Toolchain(options.toolchain_python or environment(say), log)
    try:
        signal = f"{len(mels)} windows of {source.name if source else 'our samples'}"
        compilation = Compilation(checkpoint, toolchain, mels, signal, calibration, say)
        return [
            compilation.compile(recipe, layers=options.layers, again=options.again)
            for recipe in recipes
        ]
    finally:
        toolchain.close()
