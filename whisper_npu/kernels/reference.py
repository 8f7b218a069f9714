"""Whisper's layers in numpy float32: the definition of correct for every other kernel.

Written for clarity; the fallback where no compiled kernels are installed.
Axes: T rows, D width, H heads, K inputs, N outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float32]

EPSILON = 1e-5  # layer norm, as in torch


def erf(x: Float) -> Float:
    """Error function to 2e-7 (Abramowitz and Stegun 7.1.26).

    x       (...)  float32
    return  (...)  float32  in [-1, 1]
    """
    z = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * np.float32(1.061405429) - np.float32(1.453152027)
    series = (series * t + np.float32(1.421413741)) * t - np.float32(0.284496736)
    series = (series * t + np.float32(0.254829592)) * t
    return np.copysign(1 - series * np.exp(-z * z), x)


def gelu(x: Float) -> Float:
    """X * P(N(0, 1) < x), the exact form that Whisper was trained with."""
    return np.float32(0.5) * x * (1 + erf(x * np.float32(np.sqrt(0.5))))


def layer_norm(x: Float, weight: Float, bias: Float) -> Float:
    """Normalise each row to mean 0 and variance 1, then scale and shift.

    x             (..., D)  float32
    weight, bias  (D,)      float32
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(np.square(centred), axis=-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(EPSILON)) * weight + bias


def linear(x: Float, weight: Float, bias: Float | None = None) -> Float:
    """X       (..., K)  float32
    weight  (N, K)    float32
    bias    (N,)      float32
    return  (..., N)  float32
    """
    y: Float = x @ weight.T
    return y if bias is None else y + bias


def rotated(x: Float, *, back: bool = False) -> Float:
    """What an int8 linear layer multiplies in place of x: rows after a rotation.

    Both the inputs and the weights of a layer go through it, so their products stay the same, and
    a channel that is far larger than the others is spread over many: one scale then fits them
    all. Channels 16 apart are added and subtracted (a Hadamard matrix, scaled to keep the norm):
    the largest power of two of them from the first on, then as many up to the last, with signs
    (the Rudin-Shapiro sequence) lest the second time undo the first. What is beyond the last
    multiple of 16 stays. Source: QuaRot, arXiv 2404.00456.

    x       (..., K)  float32
    back              the inverse
    return  (..., K)  float32
    """
    n = x.shape[-1] // 16
    y = x.copy()
    if n < 2:
        return y
    block = 1 << (n.bit_length() - 1)
    turns = [(slice(0, block), _hadamard(block))]
    if block < n:
        signs = [(-1) ** (i & i >> 1).bit_count() for i in range(n - block, n)]
        turns.append((slice(n - block, n), _hadamard(block) * np.array(signs, np.float32)))
    chunks = y[..., : 16 * n].reshape(*x.shape[:-1], n, 16)
    for part, turn in reversed(turns) if back else turns:
        chunks[..., part, :] = (turn.T if back else turn) @ chunks[..., part, :]
    y[..., : 16 * n] = chunks.reshape(*x.shape[:-1], 16 * n)
    return y


def _hadamard(n: int) -> Float:
    """(N, N) float32: Sylvester's matrix, a rotation and its own inverse; n is a power of two."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(np.float32(n))


def conv1d(x: Float, weight: Float, bias: Float, stride: int) -> Float:
    """Convolution of width 3 over time, one frame of zero padding on each side.

    x       (T, K)             float32  time first
    weight  (N, K, 3)          float32
    return  (T // stride, N)   float32
    """
    n_frames = len(x)
    padded = np.pad(x, ((1, 1), (0, 0)))
    # im2col: the three taps side by side -> (T // stride, 3 * K)
    taps = [padded[tap : tap + n_frames : stride] for tap in range(3)]
    columns = np.concatenate(taps, axis=1)
    return linear(columns, weight.transpose(0, 2, 1).reshape(len(weight), -1), bias)


def softmax(x: Float) -> Float:
    """Over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_sum_exp(x: Float) -> Float:
    """(B, V) float32 -> (B,); a row of nothing but -inf gives -inf."""
    peak = x.max(axis=1, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, np.float32(0))
    with np.errstate(divide="ignore"):
        total: Float = np.log(np.exp(x - peak).sum(axis=1))
    return total + peak[:, 0]


def largest(x: Float, count: int) -> tuple[Float, NDArray[np.int64]]:
    """The largest values of each row, best first, and their columns.

    x       (B, V)                           float32
    return  (B, count) float32, (B, count) int64  -inf has no column of its own
    """
    columns = np.sort(np.argpartition(-x, count - 1, axis=1)[:, :count], axis=1)  # (B, count)
    values = np.take_along_axis(x, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(columns, order, axis=1)


def split_heads(x: Float, n_heads: int) -> Float:
    """(..., T, D) -> (..., H, T, D / H)."""
    return np.moveaxis(x.reshape(*x.shape[:-1], n_heads, -1), -2, -3)


def attention_scores(query: Float, key: Float, n_heads: int) -> Float:
    """Query   (..., T, D)     float32
    key     (..., S, D)     float32
    return  (..., H, T, S)  float32  scaled dot products, before the softmax
    """
    scale = np.float32((query.shape[-1] // n_heads) ** -0.5)
    return split_heads(query * scale, n_heads) @ split_heads(key, n_heads).swapaxes(-1, -2)


def attention(query: Float, key: Float, value: Float, n_heads: int, *, causal: bool) -> Float:
    """Multi-head attention.

    query       (..., T, D)  float32
    key, value  (..., S, D)  float32
    causal                   the T queries are the last of the S positions and see no later one
    return      (..., T, D)  float32
    """
    n_queries, n_keys = query.shape[-2], key.shape[-2]
    scores = attention_scores(query, key, n_heads)  # (..., H, T, S)
    if causal and n_queries > 1:
        future = np.triu(np.ones((n_queries, n_keys), bool), k=n_keys - n_queries + 1)
        scores = np.where(future, np.float32(-np.inf), scores)
    mixed = softmax(scores) @ split_heads(value, n_heads)  # (..., H, T, D / H)
    return np.moveaxis(mixed, -3, -2).reshape(query.shape)
