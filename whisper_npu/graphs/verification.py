"""How near a graph is to our float32 encoder, output by output and layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.closeness import closeness
from whisper_npu.model import Whisper, cross_keys_values, encode
from whisper_npu.reference import NumpyOps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_npu.model import Linear

    Float = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How near one output of a graph is to our float32 encoder."""

    name: str
    cosine: float
    error: float  # largest difference, relative to the largest value

    def __str__(self) -> str:
        return f"{self.name}: cosine {self.cosine:.6f}, largest relative error {self.error:.2e}"


def agreement(name: str, actual: Float, expected: Float) -> Agreement:
    """Compare two arrays of one shape; whatever is not finite counts as no agreement."""
    found = closeness(actual, expected)
    return Agreement(name, found.cosine, found.largest_relative)


def worst(found: list[Agreement], name: str) -> Agreement:
    """The lowest cosine and the highest error of several outputs."""
    return Agreement(name, min(a.cosine for a in found), max(a.error for a in found))


class _Watched(NumpyOps):
    """Keeps what passes between the encoder's layers, under the names that export.py gives."""

    def __init__(self) -> None:
        self.seen: dict[str, Float] = {}

    def add(self, x: Float, rows: Float) -> Float:
        self.seen["embedded"] = y = super().add(x, rows)
        return y

    def linear(
        self, x: Float, linear: Linear, *, gelu: bool = False, residual: Float | None = None
    ) -> Float:
        y = super().linear(x, linear, gelu=gelu, residual=residual)
        if linear.role == "fc2":
            self.seen[f"layer_{len(self.seen) - 1}"] = y
        return y


def reference_outputs(model: Whisper, mel: Float) -> dict[str, Float]:
    """Our float32 encoder on one window.

    mel     (n_mels, F)       float32  log-mel; F sets the window
    return  name -> (1, C, D) float32  the graph's outputs in their order, then what lies between
    """
    ops = _Watched()
    features = encode(model, ops, np.ascontiguousarray(mel.T), n_positions=mel.shape[1] // 2)
    outputs: dict[str, Float] = {}
    for i, (key, value) in enumerate(cross_keys_values(model, ops, features)):
        outputs |= {f"key_{i}": key, f"value_{i}": value}
    outputs |= ops.seen | {"features": features}
    return {name: value[None] for name, value in outputs.items()}
