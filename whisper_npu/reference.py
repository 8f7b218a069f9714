"""Whisper in numpy, over the reference kernels: what every other way is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.kernels import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whisper_npu.model import Attention, Conv, Layer, Linear, Norm, Whisper

    Float = NDArray[np.float32]


class NumpyOps:
    """`Ops` over plain float32 arrays (..., T, D), by the reference kernels."""

    def conv_gelu(self, x: Float, conv: Conv) -> Float:
        return reference.gelu(reference.conv1d(x, conv.weight, conv.bias, conv.stride))

    def add(self, x: Float, rows: Float) -> Float:
        return x + rows

    def layer_norm(self, x: Float, norm: Norm) -> Float:
        return reference.layer_norm(x, norm.weight, norm.bias)

    def linear(
        self, x: Float, linear: Linear, *, gelu: bool = False, residual: Float | None = None
    ) -> Float:
        y = reference.linear(x, linear.weight, linear.bias)
        if gelu:
            y = reference.gelu(y)
        return y if residual is None else y + residual

    def attention(
        self, query: Float, key: Float, value: Float, n_heads: int, *, causal: bool = False
    ) -> Float:
        return reference.attention(query, key, value, n_heads, causal=causal)


class NumpySession:
    """The decoder with its key/value cache, in numpy; a `Session`.

    cross  per layer: key and value (C, D) float32, from `cross_keys_values`
    """

    def __init__(
        self, model: Whisper, cross: Sequence[tuple[Float, Float]], *, align: bool = False
    ) -> None:
        self._model = model
        self._cross = cross
        self._ops = NumpyOps()
        empty = np.zeros((1, 0, model.dims.n_text_state), np.float32)
        self._cache = [(empty, empty) for _ in model.decoder_layers]  # key, value (B, T, D)
        heads = model.checkpoint.alignment_heads if align else ()
        self._alignment: dict[tuple[int, int], list[Float]] = {head: [] for head in heads}

    def step(self, tokens: NDArray[np.int64], *, every_position: bool = False) -> Float:
        model, ops = self._model, self._ops
        past = self._cache[0][0].shape[1]
        positions = model.text_positions[past : past + tokens.shape[1]]
        x = model.embedding[tokens] + positions  # (B, T, D)
        for i, layer in enumerate(model.decoder_layers):
            x = self._self_attention(i, layer.attention, x)
            x = self._cross_attention(i, layer, x)
            y = ops.linear(ops.layer_norm(x, layer.mlp_norm), layer.fc1, gelu=True)
            x = ops.linear(y, layer.fc2, residual=x)
        if not every_position:
            x = x[:, -1]  # (B, D): the vocabulary is by far the widest layer
        return reference.linear(ops.layer_norm(x, model.decoder_norm), model.embedding)

    def _self_attention(self, i: int, heads: Attention, x: Float) -> Float:
        ops = self._ops
        y = ops.layer_norm(x, heads.norm)
        query, key, value = (ops.linear(y, p) for p in (heads.query, heads.key, heads.value))
        old_key, old_value = self._cache[i]
        key = np.concatenate([old_key, key], axis=1)  # (B, past + T, D)
        value = np.concatenate([old_value, value], axis=1)
        self._cache[i] = key, value
        y = ops.attention(query, key, value, self._model.dims.n_text_head, causal=True)
        return ops.linear(y, heads.out, residual=x)

    def _cross_attention(self, i: int, layer: Layer, x: Float) -> Float:
        heads, ops = layer.cross, self._ops
        assert heads is not None  # noqa: S101  decoder layers have it
        key, value = self._cross[i]
        query = ops.linear(ops.layer_norm(x, heads.norm), heads.query)
        self._keep_alignment(i, query[0], key)
        y = ops.attention(query, key, value, self._model.dims.n_text_head)
        return ops.linear(y, heads.out, residual=x)

    def _keep_alignment(self, i: int, query: Float, key: Float) -> None:
        wanted = [head for layer, head in self._alignment if layer == i]
        if not wanted:
            return
        scores = reference.attention_scores(query, key, self._model.dims.n_text_head)  # (H, T, C)
        for head in wanted:
            self._alignment[i, head].append(scores[head])

    def reorder(self, sources: Sequence[int]) -> None:
        rows = list(sources)
        self._cache = [(key[rows], value[rows]) for key, value in self._cache]

    def attention(self) -> Float:
        return np.stack([np.concatenate(scores) for scores in self._alignment.values()])

    def close(self) -> None:
        self._cache = []
