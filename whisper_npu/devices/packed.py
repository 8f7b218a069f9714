"""Whisper -> the named arrays that the native engine reads (kernels/engine.cpp).

Widths are padded with zeros as the engine wants them: rows of activations to a multiple of 64, each
head and the mels to a multiple of 16. Queries are scaled by log2(e) / sqrt(head width), so that the
softmax is a power of two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whisper_npu.kernels import native
from whisper_npu.model import forget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from whisper_npu.devices.device import Observer
    from whisper_npu.model import Attention, Conv, Layer, Linear, Norm, Whisper

    Array = NDArray[Any]
    Float = NDArray[np.float32]

VERSION = 4  # of the order of everything below
F32, F16, INT8 = range(3)  # kinds of kernels.h; F16 is bfloat16 on x86, float16 on Arm
_PANELS = {F32: np.float32, F16: np.uint16, INT8: np.int8}  # 16-bit floats by their bits


class _Heads(NamedTuple):
    n: int
    width: int  # padded


def sizes(model: Whisper) -> dict[str, int]:
    """What the engine wants to know besides the arrays."""
    dims = model.dims
    return {
        "n_mels": dims.n_mels,
        "n_ctx": dims.n_audio_ctx,
        "width": dims.n_audio_state,
        "audio_heads": dims.n_audio_head,
        "text_heads": dims.n_text_head,
        "head": _round_up(dims.n_audio_state // min(dims.n_audio_head, dims.n_text_head), 16),
        "n_text_ctx": dims.n_text_ctx,
        "n_vocab": dims.n_vocab,
        "audio_layers": dims.n_audio_layer,
        "text_layers": dims.n_text_layer,
    }


def order(encoder: int, decoder: int) -> str:
    """What tells apart the orders of `arrays` for linear layers of these kinds.

    16-bit floats differ from processor to processor: the native module is asked, by packing a one.
    """
    assert native is not None  # noqa: S101  the engine is asked for first
    panels, _, _ = native.pack(np.ones((64, 16), np.float32), F16)
    floats = {0x3C00: "fp16", 0x3F80: "bf16"}[int(panels.view(np.uint16)[0])]
    return f"cpu-{floats}-{encoder}{decoder}"


def arrays(model: Whisper, encoder: int, decoder: int) -> Iterator[tuple[str, Array]]:
    """All arrays of a model, with linear layers of these kinds; one is made at a time."""
    width = _round_up(model.dims.n_audio_state, 64)
    head = sizes(model)["head"]
    stem = F32 if encoder == F32 else F16
    yield from _conv("conv1", model.conv1, stem, _round_up(model.dims.n_mels, 16))
    yield from _conv("conv2", model.conv2, stem, width)
    yield "audio_positions", _pad(model.audio_positions, 1, 64)
    for i, layer in enumerate(model.encoder_layers):
        yield from _layer(
            f"encoder.{i}", layer, encoder, encoder, _Heads(model.dims.n_audio_head, head)
        )
    yield from _norm("encoder_norm", model.encoder_norm)
    for i, layer in enumerate(model.decoder_layers):
        yield from _layer(
            f"decoder.{i}", layer, decoder, encoder, _Heads(model.dims.n_text_head, head)
        )
    yield from _norm("decoder_norm", model.decoder_norm)
    yield "text_positions", _pad(model.text_positions, 1, 64)
    yield from packed_linear("vocabulary", model.embedding, None, decoder, width)
    embedding = model.embedding
    yield "embedding", embedding if decoder == F32 else embedding.astype(np.float16).view(np.uint16)


_STEM = {"conv1": "conv1", "conv2": "conv2", "positions": "embed_positions", "end": "layer_norm"}
_PARTS = {
    "norm": "self_attn_layer_norm", "query": "self_attn.q_proj", "key": "self_attn.k_proj",
    "value": "self_attn.v_proj", "mixed": "self_attn", "out": "self_attn.out_proj",
    "mlp_norm": "final_layer_norm", "fc1": "fc1", "fc2": "fc2",
}  # fmt: skip
_CROSS = {"cross_key": "encoder_attn.k_proj", "cross_value": "encoder_attn.v_proj"}


def shown(model: Whisper, observe: Observer) -> Callable[[str, int, Float], None]:
    """What the engine shows (kernels/kernels.h) -> names of the checkpoint, without the padding."""
    dims = model.dims

    def show(part: str, layer: int, rows: Float) -> None:
        if part in _CROSS:
            name, n_heads = f"model.decoder.layers.{layer}.{_CROSS[part]}", dims.n_text_head
        elif part in _PARTS:
            name, n_heads = f"model.encoder.layers.{layer}.{_PARTS[part]}", dims.n_audio_head
        else:
            name, n_heads = f"model.encoder.{_STEM[part]}", dims.n_audio_head
        width = dims.n_audio_state
        if part in ("query", "key", "value", "mixed", *_CROSS):
            heads = rows.reshape(len(rows), n_heads, -1)[:, :, : width // n_heads]
            rows = heads.reshape(len(rows), width)
        if part == "query":
            rows = rows / np.float32(_query_scale(width // n_heads))
        observe(name, rows[:, : 4 * width if part == "fc1" else width])

    return show


def _query_scale(width: int) -> float:
    """What the queries of a head so wide are multiplied by: the softmax becomes a power of two."""
    return float(np.log2(np.e) / np.sqrt(width))


def _layer(
    name: str, layer: Layer, kind: int, cross_kind: int, heads: _Heads
) -> Iterator[tuple[str, Array]]:
    width = layer.attention.norm.width
    stride, hidden = _round_up(width, 64), _round_up(4 * width, 64)
    yield from _norm(f"{name}.norm", layer.attention.norm)
    yield from _projections(f"{name}.qkv", layer.attention, "qkv", kind, heads)
    yield from _out(f"{name}.out", layer.attention.out, kind, heads)
    if layer.cross is not None:
        yield from _norm(f"{name}.cross_norm", layer.cross.norm)
        yield from _projections(f"{name}.cross_query", layer.cross, "q", kind, heads)
        yield from _projections(f"{name}.cross_kv", layer.cross, "kv", cross_kind, heads)
        yield from _out(f"{name}.cross_out", layer.cross.out, kind, heads)
    yield from _norm(f"{name}.mlp_norm", layer.mlp_norm)
    yield from packed_linear(f"{name}.fc1", layer.fc1.weight, layer.fc1.bias, kind, stride)
    yield from packed_linear(f"{name}.fc2", layer.fc2.weight, layer.fc2.bias, kind, hidden)
    forget(layer.fc1, layer.fc2)


def _norm(name: str, norm: Norm) -> Iterator[tuple[str, Array]]:
    yield f"{name}.weight", _pad(norm.weight, 0, 64)
    yield f"{name}.bias", _pad(norm.bias, 0, 64)


def _projections(
    name: str, attention: Attention, which: str, kind: int, heads: _Heads
) -> Iterator[tuple[str, Array]]:
    """Queries, keys, values: those of `which` side by side, each head padded."""
    weights, biases = [], []
    for letter in which:
        linear = {"q": attention.query, "k": attention.key, "v": attention.value}[letter]
        width = linear.n_out // heads.n
        scale = np.float32(_query_scale(width) if letter == "q" else 1)
        weights.append(_pad_heads(linear.weight * scale, heads))
        biases.append(_pad_heads(linear.bias * scale, heads))
        forget(linear)  # a small board has no memory for all of them
    n_in = _round_up(attention.query.n_in, 64)
    yield from packed_linear(name, np.concatenate(weights), np.concatenate(biases), kind, n_in)


def _out(name: str, linear: Linear, kind: int, heads: _Heads) -> Iterator[tuple[str, Array]]:
    weight = _pad_heads(linear.weight.T, heads).T
    forget(linear)
    yield from packed_linear(name, weight, linear.bias, kind, heads.n * heads.width)


def _pad_heads(x: Float, heads: _Heads) -> Float:
    """(H d, ...) -> (H width, ...)."""
    split = x.reshape(heads.n, -1, *x.shape[1:])
    padding = [(0, 0)] * split.ndim
    padding[1] = (0, heads.width - split.shape[1])
    return np.pad(split, padding).reshape(heads.n * heads.width, *x.shape[1:])


def _conv(name: str, conv: Conv, kind: int, n_in: int) -> Iterator[tuple[str, Array]]:
    """(N, K, 3) as a linear layer over three frames side by side."""
    taps = np.zeros((conv.n_out, 3, n_in), np.float32)
    taps[:, :, : conv.n_in] = conv.weight.transpose(0, 2, 1)
    yield from packed_linear(name, taps.reshape(conv.n_out, -1), conv.bias, kind, 3 * n_in)


def packed_linear(
    name: str, weight: Float, bias: Float | None, kind: int, n_in: int = 0
) -> Iterator[tuple[str, Array]]:
    """One layer of weight (N, K), padded to n_in inputs."""
    assert native is not None  # noqa: S101  the engine is asked for first
    if bias is None:
        bias = np.zeros(len(weight), np.float32)
    n_in = n_in or _round_up(weight.shape[1], 16)
    padded = np.zeros((_round_up(len(weight), 64), n_in), np.float32)
    padded[: len(weight), : weight.shape[1]] = weight
    panels, scale, sums = native.pack(padded, kind)
    yield f"{name}.panels", panels.view(_PANELS[kind])
    yield f"{name}.scale", scale
    yield f"{name}.sums", sums
    yield f"{name}.bias", _pad(bias, 0, 64)


def _pad(x: Float, axis: int, multiple: int) -> Float:
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, -x.shape[axis] % multiple)
    return np.ascontiguousarray(np.pad(x, padding))


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
