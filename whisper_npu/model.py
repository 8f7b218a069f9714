"""Whisper as layers, and its encoder over any device's `Ops`.

Weights are read from the checkpoint when a layer is first used, so that a device with its own
packed copy never touches them. Radford et al. 2022, figure 1; openai/whisper model.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint

    Float = NDArray[np.float32]

Role = Literal["query", "key", "value", "out", "fc1", "fc2"]  # of a linear layer in its own

ATTENTION = "attention"  # all heads of one layer, among the names of other layers

A = TypeVar("A")  # an activation in a device's own order: row-major, NPU tiles, ...


@dataclass(frozen=True, eq=False)
class Linear:
    """y = x W^T + b. Keys have no bias in Whisper; it reads as zero.

    cross  of attention from the decoder to the encoder
    """

    checkpoint: Checkpoint
    name: str
    role: Role
    n_in: int
    n_out: int
    cross: bool = False

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
    stride: int

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
        self.conv1 = Conv(checkpoint, f"{encoder}.conv1", dims.n_mels, width, 1)
        self.conv2 = Conv(checkpoint, f"{encoder}.conv2", width, width, 2)
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
            attention=self._attention(f"{name}.self_attn", width, cross=False),
            cross=self._attention(f"{name}.encoder_attn", width, cross=True) if cross else None,
            mlp_norm=Norm(self.checkpoint, f"{name}.final_layer_norm", width),
            fc1=Linear(self.checkpoint, f"{name}.fc1", "fc1", width, 4 * width),
            fc2=Linear(self.checkpoint, f"{name}.fc2", "fc2", 4 * width, width),
        )

    def _attention(self, name: str, width: int, *, cross: bool) -> Attention:
        def projection(part: str, role: Role) -> Linear:
            return Linear(self.checkpoint, f"{name}.{part}_proj", role, width, width, cross)

        return Attention(
            Norm(self.checkpoint, f"{name}_layer_norm", width),
            projection("q", "query"), projection("k", "key"),
            projection("v", "value"), projection("out", "out"),
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


class Ops(Protocol[A]):
    """The layers a Whisper encoder is made of, over activations in the device's own order.

    Whoever calls owns the object: one call at a time, and layers in the order of `encode` and
    `cross_keys_values`. Buffers belong to the ops and are used again, so that

    - `add` and `linear` with a residual may overwrite `x` and `residual`: only what they return
      is good afterwards;
    - what a layer returns is good until a layer of the same role is run again: the next norm, the
      next query, key or value, the next hidden layer, each layer's own cross key and value;
    - nothing is good after the next window has begun.
    """

    def conv_gelu(self, x: A, conv: Conv) -> A:
        """GELU of a convolution: (F, K) -> (F / stride, N)."""
        ...

    def add(self, x: A, rows: Float) -> A:
        """Add rows (M, D) float32, the same in every window; may overwrite x."""
        ...

    def layer_norm(self, x: A, norm: Norm) -> A:
        """Normalise each row: (M, D) -> (M, D)."""
        ...

    def linear(self, x: A, linear: Linear, *, gelu: bool = False, residual: A | None = None) -> A:
        """(M, K) -> (M, N), then GELU, or the residual added to it; may overwrite the residual."""
        ...

    def attention(self, query: A, key: A, value: A, n_heads: int) -> A:
        """Attention without a mask: (M, D) each -> (M, D); may overwrite its inputs."""
        ...


def encode(model: Whisper, ops: Ops[A], mel: A, *, n_positions: int | None = None) -> A:
    """Log-mel -> audio features.

    mel          (F, n_mels)  activation  time first
    n_positions               C of a shorter window; default: the model's own
    return       (C, D)       activation  C = F / 2
    """
    n_heads = model.dims.n_audio_head
    x = ops.conv_gelu(mel, model.conv1)
    x = ops.conv_gelu(x, model.conv2)
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
