"""Whisper as layers: the encoder and the decoder, written once over `devices.Ops`.

Weights are read from the checkpoint when a layer is first used, so that a device with its own
packed copy never touches them. Radford et al. 2022, figure 1; openai/whisper model.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from whisper_npu.kernels import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices import Ops

    Float = NDArray[np.float32]

A = TypeVar("A")


@dataclass(frozen=True, eq=False)
class Linear:
    """y = x W^T + b. Keys have no bias in Whisper; it reads as zero."""

    checkpoint: Checkpoint
    name: str
    n_in: int
    n_out: int

    @cached_property
    def weight(self) -> Float:
        """(N, K) float32."""
        return _float32(self.checkpoint, f"{self.name}.weight", self.n_out, self.n_in)

    @cached_property
    def bias(self) -> Float:
        """(N,) float32."""
        if f"{self.name}.bias" not in self.checkpoint:
            return np.zeros(self.n_out, np.float32)
        return _float32(self.checkpoint, f"{self.name}.bias", self.n_out)


@dataclass(frozen=True, eq=False)
class Norm:
    """Layer norm with its scale and shift."""

    checkpoint: Checkpoint
    name: str
    width: int

    @cached_property
    def weight(self) -> Float:
        """(D,) float32."""
        return _float32(self.checkpoint, f"{self.name}.weight", self.width)

    @cached_property
    def bias(self) -> Float:
        """(D,) float32."""
        return _float32(self.checkpoint, f"{self.name}.bias", self.width)


@dataclass(frozen=True, eq=False)
class Conv:
    """Convolution of width 3 over time."""

    checkpoint: Checkpoint
    name: str
    n_in: int
    n_out: int

    @cached_property
    def weight(self) -> Float:
        """(N, K, 3) float32."""
        return _float32(self.checkpoint, f"{self.name}.weight", self.n_out, self.n_in, 3)

    @cached_property
    def bias(self) -> Float:
        """(N,) float32."""
        return _float32(self.checkpoint, f"{self.name}.bias", self.n_out)


def forget(*layers: Linear | Conv) -> None:
    """Give the memory of their weights back; they are read again when asked for."""
    for layer in layers:
        layer.__dict__.pop("weight", None)


def _float32(checkpoint: Checkpoint, name: str, *shape: int) -> Float:
    return checkpoint.tensor(name, shape).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Attention:
    """The four projections of one multi-head attention, and the norm before it."""

    norm: Norm
    query: Linear
    key: Linear
    value: Linear
    out: Linear


@dataclass(frozen=True, eq=False)
class Layer:
    """One transformer layer; `cross` only in the decoder."""

    attention: Attention
    cross: Attention | None
    mlp_norm: Norm
    fc1: Linear
    fc2: Linear


class Whisper:
    """The layers of one checkpoint, by their place in the network."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.dims = dims = checkpoint.dims
        encoder, decoder = "model.encoder", "model.decoder"
        width = dims.n_audio_state
        self.conv1 = Conv(checkpoint, f"{encoder}.conv1", dims.n_mels, width)
        self.conv2 = Conv(checkpoint, f"{encoder}.conv2", width, width)
        self.encoder_layers = [
            self._layer(f"{encoder}.layers.{i}", cross=False) for i in range(dims.n_audio_layer)
        ]
        self.encoder_norm = Norm(checkpoint, f"{encoder}.layer_norm", width)
        self.decoder_layers = [
            self._layer(f"{decoder}.layers.{i}", cross=True) for i in range(dims.n_text_layer)
        ]
        self.decoder_norm = Norm(checkpoint, f"{decoder}.layer_norm", dims.n_text_state)

    def _layer(self, name: str, *, cross: bool) -> Layer:
        width = self.dims.n_text_state if cross else self.dims.n_audio_state
        return Layer(
            attention=self._attention(f"{name}.self_attn", width),
            cross=self._attention(f"{name}.encoder_attn", width) if cross else None,
            mlp_norm=Norm(self.checkpoint, f"{name}.final_layer_norm", width),
            fc1=Linear(self.checkpoint, f"{name}.fc1", width, 4 * width),
            fc2=Linear(self.checkpoint, f"{name}.fc2", 4 * width, width),
        )

    def _attention(self, name: str, width: int) -> Attention:
        def projection(part: str) -> Linear:
            return Linear(self.checkpoint, f"{name}.{part}_proj", width, width)

        return Attention(
            Norm(self.checkpoint, f"{name}_layer_norm", width),
            projection("q"), projection("k"), projection("v"), projection("out"),
        )  # fmt: skip

    @cached_property
    def audio_positions(self) -> Float:
        """(C, D) float32: sinusoids, stored in the checkpoint."""
        name = "model.encoder.embed_positions.weight"
        return _float32(self.checkpoint, name, self.dims.n_audio_ctx, self.dims.n_audio_state)

    @cached_property
    def text_positions(self) -> Float:
        """(T, D) float32: learnt."""
        name = "model.decoder.embed_positions.weight"
        return _float32(self.checkpoint, name, self.dims.n_text_ctx, self.dims.n_text_state)

    @cached_property
    def embedding(self) -> Float:
        """(V, D) float32: token embeddings, and the output projection as well."""
        name = "model.decoder.embed_tokens.weight"
        return _float32(self.checkpoint, name, self.dims.n_vocab, self.dims.n_text_state)


def encode(model: Whisper, ops: Ops[A], mel: A, *, n_positions: int | None = None) -> A:
    """Log-mel -> audio features.

    mel          (F, n_mels)  activation  time first
    n_positions               C of a shorter window; default: the model's own
    return       (C, D)       activation  C = F / 2
    """
    n_heads = model.dims.n_audio_head
    x = ops.conv_gelu(mel, model.conv1, 1)
    x = ops.conv_gelu(x, model.conv2, 2)
    x = ops.add(x, model.audio_positions[:n_positions])
    for layer in model.encoder_layers:
        heads = layer.attention
        y = ops.layer_norm(x, heads.norm)
        query, key, value = (ops.linear(y, p) for p in (heads.query, heads.key, heads.value))
        x = ops.linear(ops.attention(query, key, value, n_heads), heads.out, residual=x)
        y = ops.linear(ops.layer_norm(x, layer.mlp_norm), layer.fc1, gelu=True)
        x = ops.linear(y, layer.fc2, residual=x)
    return ops.layer_norm(x, model.encoder_norm)


def cross_keys_values(model: Whisper, ops: Ops[A], features: A) -> list[tuple[A, A]]:
    """What each decoder layer attends to: projected once per window, (C, D) each."""
    pairs = []
    for layer in model.decoder_layers:
        assert layer.cross is not None  # noqa: S101  decoder layers have it
        pairs.append(
            (ops.linear(features, layer.cross.key), ops.linear(features, layer.cross.value))
        )
    return pairs


class NumpyOps:
    """`Ops` over plain float32 arrays (..., T, D), by the reference kernels."""

    def conv_gelu(self, x: Float, conv: Conv, stride: int) -> Float:
        return reference.gelu(reference.conv1d(x, conv.weight, conv.bias, stride))

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
    """The decoder with its key/value cache, in numpy; a `devices.Session`.

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
