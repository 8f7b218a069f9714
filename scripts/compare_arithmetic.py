#!/usr/bin/env python3
"""Layer by layer: our emulated NPU against the vendor's simulator, and both against float64.

    scripts/compare_arithmetic.py MODEL --toolchain-python PYTHON [--chip rk3588] [--audio PATH]

Each layer is a graph of its own, fed with what our device computed up to there. Neither side is
a board. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.opening import open_device
from whisper_npu.graphs.calibration import windows
from whisper_npu.graphs.toolchain import Toolchain
from whisper_npu.kernels import reference
from whisper_npu.model import Whisper
from whisper_npu.options import DeviceOptions
from whisper_npu.sample_recordings import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One layer: its kind in export.py, its inputs in our order, and its definition."""

    name: str  # in the checkpoint
    kind: str
    inputs: list[Array]  # (T, D) float32 each, as our device computed them
    exact: Callable[..., Array]  # in float64
    layer: Any = None  # its weights
    stride: int = 1


def cases(model: Whisper, mel: Array, seen: dict[str, Array]) -> list[Case]:
    """The stem, the first encoder layer, and the first projection for the decoder."""
    block, heads = model.encoder_layers[0], model.encoder_layers[0].attention
    embedded = seen["model.encoder.embed_positions"]
    normed, mixed = seen[heads.norm.name], seen[heads.out.name.rpartition(".")[0]]
    middle, normed2 = seen[heads.out.name], seen[block.mlp_norm.name]
    cross = model.decoder_layers[0].cross
    assert cross is not None  # noqa: S101  decoder layers have it
    scale = (model.dims.n_audio_state // model.dims.n_audio_head) ** -0.5
    query, key, value = (seen[p.name] for p in (heads.query, heads.key, heads.value))

    def linear(layer: Any) -> Callable[..., Array]:
        return lambda x: _linear(x, layer)

    def norm(layer: Any) -> Callable[..., Array]:
        return lambda x: reference.layer_norm(x, _wide(layer.weight), _wide(layer.bias))

    def conv(layer: Any) -> Callable[..., Array]:
        weight, bias = _wide(layer.weight), _wide(layer.bias)
        return lambda x: _gelu(reference.conv1d(x, weight, bias, layer.stride))

    def attention(q: Array, k: Array, v: Array) -> Array:
        return reference.attention(q / scale, k, v, model.dims.n_audio_head, causal=False)

    return [
        Case(model.conv1.name, "conv_gelu", [mel.T], conv(model.conv1), model.conv1),
        Case(
            model.conv2.name, "conv_gelu", [seen[model.conv1.name]], conv(model.conv2),
            model.conv2, 2,
        ),
        Case(heads.norm.name, "layer_norm", [embedded], norm(heads.norm), heads.norm),
        Case(heads.query.name, "linear", [normed], linear(heads.query), heads.query),
        Case(
            "model.encoder.layers.0.self_attn", "attention", [query * scale, key, value], attention
        ),
        Case(
            heads.out.name, "linear_residual", [mixed, embedded],
            lambda x, r: _linear(x, heads.out) + r, heads.out,
        ),
        Case(
            block.fc1.name, "linear_gelu", [normed2], lambda x: _gelu(_linear(x, block.fc1)),
            block.fc1,
        ),
        Case(
            block.fc2.name, "linear_residual", [seen[block.fc1.name], middle],
            lambda x, r: _linear(x, block.fc2) + r, block.fc2,
        ),
        Case(
            cross.key.name, "linear", [seen[model.encoder_norm.name]], linear(cross.key), cross.key
        ),
    ]  # fmt: skip


def _wide(x: Array) -> Array:
    return np.asarray(x, np.float64)


def _linear(x: Array, layer: Any) -> Array:
    return x @ _wide(layer.weight).T + _wide(layer.bias)


def _gelu(x: Array) -> Array:
    from math import erf

    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def simulate(case: Case, toolchain: Toolchain, chip: str, n_heads: int, shape: Any) -> Array:
    """The vendor's result for one layer, (T, D) float32."""
    tensors = {}
    if case.layer is not None:
        tensors = {"layer.weight": case.layer.weight, "layer.bias": case.layer.bias}
    inputs = [
        np.ascontiguousarray(x.T if case.kind == "conv_gelu" else x)[None] for x in case.inputs
    ]
    out = shape[::-1] if case.kind == "conv_gelu" else shape
    job = {
        "kind": case.kind,
        "n_heads": n_heads,
        "stride": case.stride,
        "inputs": [x.shape for x in inputs],
        "output": [1, *out],
    }
    toolchain.build(toolchain.export(tensors, job), chip)
    (result,) = toolchain.simulate([x.astype(np.float32) for x in inputs])
    return result[0].T if case.kind == "conv_gelu" else result[0]


def row(name: str, ours: Array, theirs: Array, exact: Array) -> str:
    """Largest differences relative to the largest value, and how many values agree in float16."""
    largest = np.abs(exact).max()

    def error(a: Array, b: Array) -> str:
        return f"{np.abs(_wide(a) - _wide(b)).max() / largest:.1e}"

    half, other = ours.astype(np.float16), theirs.astype(np.float16)
    same = 100 * np.mean(half == other)
    step = np.spacing(np.maximum(np.abs(half), np.abs(other)))
    near = 100 * np.mean(np.abs(_wide(half) - _wide(other)) <= _wide(step))
    return (
        f"| {name.removeprefix('model.')} | {error(ours, exact)} | {error(theirs, exact)} "
        f"| {error(ours, theirs)} | {same:.1f} % | {near:.1f} % |"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--toolchain-python", type=Path, required=True)
    parser.add_argument("--chip", default="rk3588")
    parser.add_argument("--audio", type=Path)
    options = parser.parse_args()
    checkpoint = Checkpoint(options.model)
    dims, model = checkpoint.dims, Whisper(checkpoint)
    (mel,) = windows(options.audio or SAMPLES / "sentence.flac", dims.n_mels, 1)
    seen: dict[str, Array] = {}
    device = open_device(checkpoint, DeviceOptions("npu", emulate=options.chip))
    device.encode(mel, observe=lambda name, x: seen.__setitem__(name, x.copy()))
    plan: Any = device
    left = [n for n in seen if n in plan.plan.step_of and not plan.plan.on_npu(n)]
    device.close()
    if left:
        print(f"On our side on the CPU, by the modelled plan: {', '.join(left)}\n")
    print("| layer | ours - exact | vendor - exact | ours - vendor | equal | within 1 step |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        toolchain = Toolchain(options.toolchain_python, Path(folder) / "log")
        try:
            for case in cases(model, mel, seen):
                ours = seen[case.name]
                exact = case.exact(*map(_wide, case.inputs))
                theirs = simulate(case, toolchain, options.chip, dims.n_audio_head, ours.shape)
                print(row(case.name, ours, theirs, exact), flush=True)
        finally:
            toolchain.close()


if __name__ == "__main__":
    main()
