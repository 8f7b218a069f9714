"""Activations on the NPU: three forms, and nothing becomes row-major between two layers.

Stream   the residual stream, float32, in the order of a result (C)
Operand  what the next matmul reads (A), float16, or int8 rotated and with a scale per row, in NPU
         memory
Product  what a matmul left (C) with how to read it; whoever uses it finishes it

Nothing here is written by the host where the NPU writes: a line that the host has changed may
reach memory after the NPU's result and spoil it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.kernels import glue, reference
from whisper_npu.rknpu import tiling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_npu.rknpu.librknnrt import Memory

    Array = NDArray[Any]
    Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Stream:
    """values (D/4, M, 4) float32."""

    values: Float


@dataclass(frozen=True, eq=False)
class Operand:
    """values (K/s, M, s) float16 or int8, in NPU memory; scale (M,) float32 for int8."""

    memory: Memory
    values: Array
    scale: Float | None


@dataclass(frozen=True, eq=False)
class Product:
    """What the cores left, outputs side by side; y = values * row_scale * channel_scale + bias.

    parts  (n/4, M, 4) float32 or int32 each, in memory of their own
    """

    parts: tuple[Array, ...]
    row_scale: Float | None
    channel_scale: Float | None
    bias: Float | None
    factor: float = 1.0  # y is this times what the layer means

    @property
    def n_rows(self) -> int:
        return int(self.parts[0].shape[1])

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The first output of each part, and the first one behind it."""
        ends = list(accumulate(4 * len(part) for part in self.parts))
        return list(pairwise([0, *ends]))

    def channels(self, first: int, last: int) -> tuple[Array, Float | None, Float | None, Any]:
        """Arguments of the glue for some of the outputs, all of one part."""
        i = next(i for i, (_, end) in enumerate(self.bounds) if first < end)
        start = self.bounds[i][0]
        scale, bias = self.channel_scale, self.bias
        return (
            self.parts[i][(first - start) // 4 : (last - start) // 4],
            self.row_scale,
            None if scale is None else scale[first:last],
            None if bias is None else bias[first:last],
        )


@dataclass(frozen=True, eq=False)
class Heads:
    """An operand made at run time: values (H, N/n, K/k, n, k) float16, in NPU memory."""

    memory: Memory
    values: NDArray[np.float16]


Activation = Any  # Stream, Operand, Product, or rows (M, N) float32 that have left the NPU


def read(x: Activation) -> Float:
    """Any activation as rows, what the layer means: for observers and for layers on the CPU."""
    if isinstance(x, Stream):
        return tiling.untile(x.values, 4 * len(x.values))
    if isinstance(x, Operand):
        y = tiling.untile(x.values, x.values.shape[0] * x.values.shape[2]).astype(np.float32)
        return y if x.scale is None else reference.rotated(y * x.scale[:, None], back=True)
    if isinstance(x, Product):
        out = np.empty((x.n_rows, x.bounds[-1][1]), np.float32)
        for first, last in x.bounds:
            glue.rows(*x.channels(first, last), out[:, first:last])
        return out / np.float32(x.factor)
    return np.asarray(x)
