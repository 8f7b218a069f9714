"""Activations on the NPU: three forms, and nothing becomes row-major between two layers.

Stream   the residual stream, float32, in the order of a result (C)
Operand  what the next matmul reads (A), float16 or int8 with a scale per row, in NPU memory
Product  what a matmul left (C) with how to read it; whoever uses it finishes it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.kernels import glue
from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.cores import Piece

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

    @property
    def piece(self) -> Piece:
        return Piece(self.memory, 0, self.values.nbytes)

    def strips(self, first: int, last: int) -> Piece:
        """Columns first to last, multiples of the strip's width."""
        column = self.values.nbytes // (self.values.shape[0] * self.values.shape[2])
        return Piece(self.memory, first * column, (last - first) * column)


@dataclass(frozen=True, eq=False)
class Product:
    """values (N/4, M, 4) float32 or int32; y = values * row_scale * channel_scale + bias."""

    memory: Memory
    values: Array
    row_scale: Float | None
    channel_scale: Float | None
    bias: Float | None
    factor: float = 1.0  # y is this times what the layer means

    def channels(self, first: int, last: int) -> tuple[Array, Float | None, Float | None, Any]:
        """Arguments of the glue for some of the outputs."""
        scale, bias = self.channel_scale, self.bias
        return (
            self.values[first // 4 : last // 4],
            self.row_scale,
            None if scale is None else scale[first:last],
            None if bias is None else bias[first:last],
        )

    def rows(self, first: int, last: int) -> tuple[Array, Float | None, Float | None, Any]:
        """Arguments of the glue for some of the rows."""
        scale = None if self.row_scale is None else self.row_scale[first:last]
        return self.values[:, first:last], scale, self.channel_scale, self.bias

    def piece(self, first: int, last: int) -> Piece:
        column = 4 * self.values.shape[1]
        return Piece(self.memory, first * column, (last - first) * column)


@dataclass(frozen=True, eq=False)
class Heads:
    """An operand made at run time: values (H, N/n, K/k, n, k) float16."""

    memory: Memory
    values: NDArray[np.float16]

    def part(self, head: int) -> Piece:
        size = self.values.nbytes // len(self.values)
        return Piece(self.memory, head * size, size)


Activation = Any  # Stream, Operand, Product, or rows (M, N) float32 that have left the NPU


def read(x: Activation) -> Float:
    """Any activation as rows, what the layer means: for observers and for layers on the CPU."""
    if isinstance(x, Stream):
        return tiling.untile(x.values, 4 * len(x.values))
    if isinstance(x, Operand):
        y = tiling.untile(x.values, x.values.shape[0] * x.values.shape[2]).astype(np.float32)
        return y if x.scale is None else y * x.scale[:, None]
    if isinstance(x, Product):
        out = np.empty((x.values.shape[1], 4 * len(x.values)), np.float32)
        glue.rows(*x.rows(0, len(out)), out)
        return out / np.float32(x.factor)
    return np.asarray(x)
