"""A device's layers, one after the other, shown to somebody who compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from whisper_npu.model import A

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisper_npu.devices.device import Float, Observer
    from whisper_npu.model import Conv, Linear, Norm, Ops


class Observed(Generic[A]):
    """`Ops` that show the output of each layer under its name in the checkpoint.

    rows  turns an activation of these ops into (T, D) float32, row-major
    """

    def __init__(self, ops: Ops[A], rows: Callable[[A], Float], observe: Observer) -> None:
        self._ops = ops
        self._rows = rows
        self._observe = observe
        self._block = ""  # the attention that the latest linear belongs to

    def _show(self, name: str, x: A) -> A:
        self._observe(name, self._rows(x))
        return x

    def conv_gelu(self, x: A, conv: Conv) -> A:
        return self._show(conv.name, self._ops.conv_gelu(x, conv))

    def add(self, x: A, rows: Float) -> A:
        return self._show("model.encoder.embed_positions", self._ops.add(x, rows))

    def layer_norm(self, x: A, norm: Norm) -> A:
        return self._show(norm.name, self._ops.layer_norm(x, norm))

    def linear(self, x: A, linear: Linear, *, gelu: bool = False, residual: A | None = None) -> A:
        self._block = linear.name.rpartition(".")[0]
        return self._show(linear.name, self._ops.linear(x, linear, gelu=gelu, residual=residual))

    def attention(self, query: A, key: A, value: A, n_heads: int) -> A:
        return self._show(self._block, self._ops.attention(query, key, value, n_heads))
