"""Two devices, one window -> the error of each layer's output, and which layer is to blame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.closeness import closeness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whisper_npu.devices.device import Device

    Float = NDArray[np.float32]

N_POSITIONS = 500  # of each output are compared, the first and the last among them

# an error this many times above all errors before it is no rounding
JUMP = 6.0
# relative error that int8 rounding alone explains; below it no layer is blamed
ROUNDING = 0.02


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from the same layer's on the other device."""

    name: str  # as in the checkpoint
    max_abs: float
    relative: float  # norm of the difference over the norm of the expected output
    cosine: float


def layer_errors(expected: dict[str, Float], device: Device, mel: Float) -> list[LayerError]:
    """Errors of the layers that both show, in the order of the network.

    expected  from `outputs` of the other device on the same mel
    """
    errors: list[LayerError] = []

    def compare(name: str, output: Float) -> None:
        if name in expected:
            errors.append(layer_error(name, expected[name], _sampled(output)))

    device.encode(mel, observe=compare)
    return errors


def outputs(device: Device, mel: Float) -> dict[str, Float]:
    """Output of each layer, at most `N_POSITIONS` rows of it: (<= 500, D) float32."""
    seen: dict[str, Float] = {}

    def keep(name: str, output: Float) -> None:
        seen[name] = _sampled(output)

    device.encode(mel, observe=keep)
    return seen


def _sampled(output: Float) -> Float:
    rows = np.linspace(0, len(output) - 1, min(N_POSITIONS, len(output))).astype(int)
    return np.array(output[rows], np.float32)  # a copy: the device may use its memory again


def layer_error(name: str, expected: Float, output: Float) -> LayerError:
    """Compare two outputs of one layer; a value that is no number makes all of it infinite."""
    found = closeness(output, expected)
    return LayerError(name, found.largest, found.relative, found.cosine)


def suspect(errors: Sequence[LayerError]) -> LayerError | None:
    """The first layer whose error cannot come from rounding or from the layers before it."""
    worst = ROUNDING
    for error in errors:
        if not error.relative <= JUMP * worst:
            return error
        worst = max(worst, error.relative)
    return None
