"""What lies between two NPU matmuls, from the order of a result to that of an operand, in numpy.

The definition and the fallback of the compiled kernels of the same names and arguments. Nothing
here becomes row-major on its way, except in `rows`, which leaves the NPU.

Orders, all C-contiguous in their last axis (widths s, n, k: `rknpu.soc`):
    product  (N/4, M, 4)       float32 or int32  what a matmul left (C)
    stream   (D/4, M, 4)       float32           the residual stream, in the order of C
    strips   (K/s, M, s)       float16 or int8   operand of the next matmul (A); scores
    tiles    (N/n, K/k, n, k)  float16           operand made at run time (B)

Any array may be a slice along its first axis (channels) or its second (rows), so callers divide
work among threads by slicing all of them alike. Functions write into `out` and return nothing.

A product of int32 carries scales: y = product * row_scale[m] * channel_scale[n] + bias[n]; a
product of float32 has no channel_scale, and a row_scale where its rows need one. None is 1, and 0
for a bias.
Strips of int8 are rotated, as int8 weights are (`reference.rotated`), and quantised by row: the
function writes out_scale (M,) float32, max |y| / 127 (1 for a row of zeros), so one call must see
all channels of its rows; for float16 and float32 outputs out_scale is None. Float16 saturates at
65504: an infinity would become NaN later.

Axes: M rows, N outputs, K inputs, D width, H heads, C audio positions.
"""

# ruff: noqa: PLR0913, PLR0917  the compiled kernels take these arguments by position

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.kernels import reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Float = NDArray[np.float32]
    Float16 = NDArray[np.float16]


def convert(
    product: Array,
    row_scale: Float | None,
    channel_scale: Float | None,
    bias: Float | None,
    out: Array,
    out_scale: Float | None,
) -> None:
    """A linear layer's result -> the next matmul's operand.

    product        (N/4, M, 4)  float32, int32
    row_scale      (M,)         float32  or None
    channel_scale  (N,)         float32  or None
    bias           (N,)         float32  or None
    out            (N/s, M, s)  float16, int8, or float32 (with s = 4), also in place
    out_scale      (M,)         float32  written for int8, else None
    """
    _store(_values(product, row_scale, channel_scale, bias), out, out_scale)


def gelu(
    product: Array,
    row_scale: Float | None,
    channel_scale: Float | None,
    bias: Float | None,
    out: Array,
    out_scale: Float | None,
) -> None:
    """The same, through the exact GELU.

    out  (N/s, M, s)  float16, int8, or float32 (with s = 4: a stream)
    """
    y = _values(product, row_scale, channel_scale, bias)
    _store(reference.gelu(y), out, out_scale)


def add(
    product: Array,
    row_scale: Float | None,
    channel_scale: Float | None,
    bias: Float | None,
    stream: Float,
) -> None:
    """Add a linear layer's result to the residual stream, in place.

    stream  (N/4, M, 4)  float32
    """
    _store(
        _rows(stream) + _values(product, row_scale, channel_scale, bias),
        stream,
        None,
    )


def layer_norm(
    stream: Float, weight: Float, bias: Float, out: Array, out_scale: Float | None
) -> None:
    """Normalise each row over all channels, then scale and shift.

    stream        (D/4, M, 4)  float32
    weight, bias  (D,)         float32
    out           (D/s, M, s)  float16, int8
    out_scale     (M,)         float32  written for int8, else None

    Statistics are in float32: with float16 sums of squares a row of large values overflows.
    """
    _store(reference.layer_norm(_rows(stream), weight, bias), out, out_scale)


def softmax(scores: Float16, n_keys: int, out: Float16, total: Float) -> None:
    """Attention weights of one head, each row a multiple of what it should be.

    scores  (N/w, M, w)  float16  scaled dot products; columns from n_keys on are padding; spoilt
    out     (N/s, M, s)  float16  e^(score - largest of the row), in [0, 1], the padding zero; may
                                  be `scores`
    total   (M,)         float32  written: what each row sums to; divide the products by it

    Widths are 4 or 8. The arithmetic is float32; the scores are as the NPU rounds them.
    """
    rows = _rows(scores)[:, :n_keys].astype(np.float32)
    weights = np.zeros((scores.shape[1], scores.shape[0] * scores.shape[2]), np.float32)
    weights[:, :n_keys] = np.exp(rows - rows.max(axis=1, keepdims=True))
    total[:] = weights.sum(axis=1)
    _store(weights, out, None)


def normalise(weights: Float16, total: Float) -> None:
    """Make each row of softmax weights sum to 1.

    weights  (K/s, M, s)  float16  in place
    total    (M,)         float32  what each row sums to; written: 1
    """
    weights[:] = weights.astype(np.float32) / total[:, None]
    total[:] = 1


def keys(
    product: Array,
    row_scale: Float | None,
    channel_scale: Float | None,
    bias: Float | None,
    out: Float16,
) -> None:
    """Keys of some heads -> B of query x key^T: outputs are positions, inputs the head's width.

    product  (H d/4, M, 4)        float32, int32  M = C positions
    out      (H, N/n, d/k, n, k)  float16         N = C rounded up, zero beyond C
    """
    y = _values(product, row_scale, channel_scale, bias)  # (C, H d)
    n_heads, n_tiles, k_tiles, n, k = out.shape
    padded = np.zeros((n_tiles * n, n_heads * k_tiles * k), np.float32)
    padded[: len(y)] = y
    grid = padded.reshape(n_tiles, n, n_heads, k_tiles, k)
    out[:] = grid.transpose(2, 0, 3, 1, 4)


def values(
    product: Array,
    row_scale: Float | None,
    channel_scale: Float | None,
    bias: Float | None,
    out: Float16,
) -> None:
    """Values of some heads -> B of weights x values: outputs are the width, inputs positions.

    product  (H d/4, M, 4)        float32, int32  M = C positions
    out      (H, d/n, K/k, n, k)  float16         K = C rounded up, zero beyond C
    """
    y = _values(product, row_scale, channel_scale, bias)  # (C, H d)
    n_heads, n_tiles, k_tiles, n, k = out.shape
    padded = np.zeros((k_tiles * k, n_heads * n_tiles * n), np.float32)
    padded[: len(y)] = y
    grid = padded.reshape(k_tiles, k, n_heads, n_tiles, n)
    out[:] = grid.transpose(2, 3, 0, 4, 1)


def rows(
    product: Array,
    row_scale: Float | None,
    channel_scale: Float | None,
    bias: Float | None,
    out: Float,
) -> None:
    """A result that leaves the NPU.

    out  (M, N)  float32  row-major
    """
    out[:] = _values(product, row_scale, channel_scale, bias)


def strips(x: Float, out: Array, out_scale: Float | None) -> None:
    """Rows that enter the NPU.

    x          (M, K)       float32  row-major
    out        (J, M, s)    float16, int8  zero beyond K
    out_scale  (M,)         float32  written for int8, else None
    """
    padded = np.zeros((out.shape[1], out.shape[0] * out.shape[2]), np.float32)
    padded[:, : x.shape[1]] = x
    _store(padded, out, out_scale)


def tap(stream: Float, tap: int, step: int, out: Float16) -> None:
    """One of the three taps of a convolution over time, zero before the first frame and behind.

    stream  (D/4, F, 4)       float32
    tap                       0, 1 or 2
    out     (D/s, F/step, s)  float16  row m is frame m * step + tap - 1
    """
    frames = np.pad(_rows(stream), ((1, 1), (0, 0)))
    _store(frames[tap : tap + stream.shape[1] : step], out, None)


def _rows(x: Array) -> Array:
    """(J, M, s) -> (M, J s)."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def _values(
    product: Array, row_scale: Float | None, channel_scale: Float | None, bias: Float | None
) -> Float:
    """What a product stands for: (M, N) float32."""
    y: Float = _rows(product).astype(np.float32, copy=False)
    if row_scale is not None:
        y = y * row_scale[:, None]
    if channel_scale is not None:
        y = y * channel_scale
    return y if bias is None else y + bias


def _store(y: Float, out: Array, out_scale: Float | None) -> None:
    """(M, N) float32 -> out (N/s, M, s), rounded to its type."""
    if out.dtype == np.int8:
        assert out_scale is not None  # noqa: S101  the contract of int8 strips
        y = reference.rotated(y)
        peak = np.abs(y).max(axis=1)
        out_scale[:] = np.where(peak > 0, peak / np.float32(127), np.float32(1))
        y = np.rint(y / out_scale[:, None])
    elif out.dtype == np.float16:
        y = y.clip(-65504, 65504)
    n_strips, m, strip = out.shape
    out[:] = y.reshape(m, n_strips, strip).transpose(1, 0, 2)
