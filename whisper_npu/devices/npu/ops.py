"""Whisper's layers on the NPU: `model.Ops` over activations that stay in the NPU's order.

Linear layers are split by output channels over the cores, attention by heads; each thread also
does what follows its matmul. Softmax, normalisation and the residual stream are float32.
Buffers are kept by role and used again for the next layer: an activation is good until another
one of the same role is made, which is how `model.encode` uses them.

Where the NPU writes, the host never does (`activations` says why): what the host computes between
two products goes to arrays of its own, or to operands that it synchronises.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.devices.npu.activations import Operand, Product, Stream, read
from whisper_npu.devices.npu.buffers import PIECES, PIECES_OF_HEAD, Buffers
from whisper_npu.errors import DeviceFault
from whisper_npu.kernels import glue, reference
from whisper_npu.model import ATTENTION, Conv
from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.cores import allow_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from whisper_npu.devices.npu.activations import Activation
    from whisper_npu.devices.npu.buffers import HeadAtWork
    from whisper_npu.devices.npu.residence import Residence
    from whisper_npu.devices.npu.weights import Entry, Image
    from whisper_npu.devices.plan import Plan
    from whisper_npu.model import Linear, Norm
    from whisper_npu.rknpu.cores import Cores
    from whisper_npu.rknpu.librknnrt import Memory

    Array = NDArray[Any]
    Float = NDArray[np.float32]


_PRODUCTS = 8  # roles of results


class NpuOps:
    """The layers of one model on one NPU.

    tiles   the image's tiles in NPU memory
    floats  (image.float_bytes,)  uint8  its scales and biases
    """

    def __init__(
        self, cores: Cores, image: Image, tiles: Residence, floats: NDArray[np.uint8], plan: Plan
    ) -> None:
        self._cores = cores
        self._image = image
        self._tiles = tiles
        self._floats = floats
        self._plan = plan
        self._precision = image.precision
        self._to_fp16 = cores.fp16_strip is not None  # scores leave the NPU as float16
        self._normalise = plan.normalise
        self._buffers = Buffers(cores, tiles)
        self._positions: tuple[Float, Float] | None = None  # as given, and in the order of C
        self._prepare()

    def _prepare(self) -> None:
        """All contexts now: made on a thread in mid-run, they crashed others' boards."""
        layers = self._image.cases(self._cores.n_cores, to_fp16=self._to_fp16)
        cases = {
            (case.m, case.k, case.n, case.precision, case.to_fp16)
            for name, own in layers.items()
            if self._plan.on_npu(name)
            for case in own
        }
        n_cores, n_threads = self._cores.n_cores, self._cores.n_threads
        views = n_cores * (len(self._image.entries) + _PRODUCTS)
        allow_files(n_cores * len(cases) + views + PIECES + PIECES_OF_HEAD * n_threads)
        for m, k, n, precision, to_fp16 in sorted(cases):
            self._cores.prepare((m, k, n), precision, to_fp16=to_fp16)

    # ---- the layers ----

    def conv_gelu(self, x: Activation, conv: Conv) -> Activation:
        stream: Stream = x
        entry = self._image.entries[conv.name]
        n_rows = stream.values.shape[1] // conv.stride
        a = self._buffers.operand(conv.name, n_rows, entry.k, "fp16")
        n_strips = conv.n_in // a.values.shape[2]

        def gather(tap: int) -> None:
            part = a.values[tap * n_strips : (tap + 1) * n_strips]
            glue.tap(stream.values, tap, conv.stride, part)

        self._cores.each(gather, range(3))
        a.memory.sync_to_device()
        out = self._buffers.array(conv.name, (conv.n_out // 4, n_rows, 4))

        def finish(product: Product, first: int, last: int) -> None:
            glue.gelu(*product.channels(first, last), out[first // 4 : last // 4], None)

        self._multiply(a, entry, finish)
        return Stream(out)

    def add(self, x: Activation, rows: Float) -> Activation:
        stream: Stream = x
        if self._positions is None or self._positions[0] is not rows:
            self._positions = rows, tiling.tile(rows, tiling.C_STRIP)
        np.add(stream.values, self._positions[1], out=stream.values)
        return stream

    def layer_norm(self, x: Activation, norm: Norm) -> Activation:
        stream: Stream = x
        out = self._buffers.operand("normed", stream.values.shape[1], norm.width, self._precision)
        weight, bias = norm.weight, norm.bias

        def work(first: int, last: int) -> None:
            scale = None if out.scale is None else out.scale[first:last]
            part = stream.values[:, first:last]
            glue.layer_norm(part, weight, bias, out.values[:, first:last], scale)

        self._by_rows(work, stream.values.shape[1])
        with _naming(norm.name):
            out.memory.sync_to_device()
        return out

    def linear(
        self, x: Activation, linear: Linear, *, gelu: bool = False,
        residual: Activation | None = None,
    ) -> Activation:  # fmt: skip
        a: Operand = x
        entry = self._image.entries[linear.name]
        if residual is not None:
            return self._add_to(residual, a, entry)
        if gelu:
            return self._gelu(a, entry)
        if linear.cross:  # for the decoder
            return self._leave(a, entry)
        return self._multiply(a, entry)

    def _add_to(self, stream: Stream, a: Operand, entry: Entry) -> Stream:
        """In place: nobody needs the stream as it was."""

        def finish(product: Product, first: int, last: int) -> None:
            glue.add(*product.channels(first, last), stream.values[first // 4 : last // 4])

        self._multiply(a, entry, finish)
        return stream

    def _leave(self, a: Operand, entry: Entry) -> Float:
        out = self._buffers.array(entry.layer.name, (a.values.shape[1], entry.n))

        def finish(product: Product, first: int, last: int) -> None:
            glue.rows(*product.channels(first, last), out[:, first:last])

        self._multiply(a, entry, finish)
        return out

    def _gelu(self, a: Operand, entry: Entry) -> Operand:
        n_rows = a.values.shape[1]
        out = self._buffers.operand("hidden", n_rows, entry.n, self._precision)
        wide = out.scale is not None  # a row's scale needs all its channels
        values = self._buffers.array("hidden", (entry.n // 4, n_rows, 4)) if wide else out.values
        strip = values.shape[2]

        def finish(product: Product, first: int, last: int) -> None:
            part = values[first // strip : last // strip]
            glue.gelu(*product.channels(first, last), part, None)

        self._multiply(a, entry, finish)
        if wide:
            self._quantise(values, out)
        with _naming(entry.layer.name):
            out.memory.sync_to_device()
        return out

    def _quantise(self, values: Float, out: Operand) -> None:
        """(N/4, M, 4) float32 of the host -> the next operand, row by row."""

        def work(first: int, last: int) -> None:
            scale = None if out.scale is None else out.scale[first:last]
            part = values[:, first:last]
            glue.convert(part, None, None, None, out.values[:, first:last], scale)

        self._by_rows(work, values.shape[1])

    def attention(
        self, query: Activation, key: Activation, value: Activation, n_heads: int
    ) -> Activation:
        n_rows, width = query.n_rows, query.bounds[-1][1]
        out = self._buffers.operand("mixed", n_rows, width, self._precision)
        on_npu = self._plan.on_npu(ATTENTION)
        rows = self._buffers.array(
            "mixed", (width // 4, n_rows, 4)
        )  # where `out` must wait for all heads
        with _naming(ATTENTION):
            if on_npu:
                target = rows if out.scale is not None else out.values
                work = self._head((query, key, value), target, n_heads)
                self._cores.each(work, range(n_heads))
            else:
                q, k, v = (read(x) for x in (query, key, value))
                y = reference.attention(q, k, v, n_heads, causal=False)
                rows[:] = tiling.tile(y, tiling.C_STRIP)
            if out.scale is not None or not on_npu:
                self._quantise(rows, out)
            out.memory.sync_to_device()
        return out

    def _head(
        self, inputs: tuple[Product, Product, Product], target: Array, n_heads: int
    ) -> Callable[[int], None]:
        """Head h of softmax(query key^T) value, into its channels of the target."""
        query, key, value = inputs
        n_rows, d = query.n_rows, query.bounds[-1][1] // n_heads
        n_keys = self._image.soc.orders["fp16"].padded_k(n_rows)
        strip = target.shape[2]
        self._buffers.make_heads(n_rows, n_keys, d)

        def work(head: int) -> None:
            first, last = head * d, (head + 1) * d
            total = np.empty(n_rows, np.float32)
            with self._buffers.head() as own:
                glue.convert(*query.channels(first, last), own.queries.values, None)
                glue.keys(*key.channels(first, last), own.keys.values)
                glue.values(*value.channels(first, last), own.values.values)
                self._weigh(own, (n_rows, d, n_keys), total)
                operands = own.weights.memory, own.values.memory, own.mixed
                self._cores.multiply((n_rows, n_keys, d), "fp16", operands, fresh="ab")
                mixed = own.mixed.array.view(np.float32).reshape(d // 4, n_rows, 4)
                part = target[first // strip : last // strip]
                glue.convert(mixed, 1 / total, None, None, part, None)

        return work

    def _weigh(self, own: HeadAtWork, shape: tuple[int, int, int], total: Float) -> None:
        """Scores of a head, and the weights made of them."""
        n_rows, to_fp16 = shape[0], self._to_fp16
        operands = own.queries.memory, own.keys.memory, own.scores.memory
        self._cores.multiply(shape, "fp16", operands, fresh="ab", to_fp16=to_fp16)
        scores = own.scores.values
        if not to_fp16:
            glue.convert(scores, None, None, None, own.weights.values, None)
            scores = own.weights.values
        glue.softmax(scores, n_rows, own.weights.values, total)
        if self._normalise:
            glue.normalise(own.weights.values, total)
        if to_fp16 and own.scores is not own.weights:
            own.scores.memory.sync_to_device()  # the softmax has spoilt them

    # ---- how a layer runs ----

    def _multiply(
        self, a: Operand, entry: Entry, finish: Callable[[Product, int, int], None] | None = None
    ) -> Product:
        """A linear layer's product, its outputs over the cores.

        finish  what to do with the outputs first to last, on the thread that has made them
        """
        name, n_rows = entry.layer.name, a.values.shape[1]
        if not self._plan.on_npu(name):
            return self._multiply_here(a, entry, finish)
        bounds = self._image.bounds(entry, self._cores.n_cores)
        with _naming(name):
            outputs = self._outputs(entry, n_rows, bounds)
            dtype = np.int32 if entry.precision == "int8" else np.float32
            product = Product(
                tuple(
                    memory.array[: 4 * n_rows * (last - first)].view(dtype).reshape(-1, n_rows, 4)
                    for memory, (first, last) in zip(outputs, bounds, strict=True)
                ),
                a.scale, entry.channel_scale(self._floats), entry.bias(self._floats), entry.factor,
            )  # fmt: skip

            def work(i: int) -> None:
                first, last = bounds[i]
                operands = a.memory, self._tiles.part(entry, first, last), outputs[i]
                self._cores.multiply((n_rows, entry.k, last - first), entry.precision, operands)
                if finish is not None:
                    finish(product, first, last)

            self._tiles.fetch(entry)
            self._cores.each(work, range(len(bounds)))
        return product

    def _outputs(self, entry: Entry, n_rows: int, bounds: list[tuple[int, int]]) -> list[Memory]:
        """Where each part of a layer's product goes."""
        role = _role(entry.layer)
        return [
            self._buffers.memory(f"{role} c {i}", 4 * n_rows * (last - first), thread=i)
            for i, (first, last) in enumerate(bounds)
        ]

    def _multiply_here(
        self, a: Operand, entry: Entry, finish: Callable[[Product, int, int], None] | None
    ) -> Product:
        """The same on the CPU."""
        weight, role = entry.weight(), _role(entry.layer)
        rows = read(a)[:, : weight.shape[1]] @ weight.T
        out = self._buffers.array(role, (entry.n // 4, len(rows), 4))
        out[:] = tiling.tile(rows, tiling.C_STRIP)
        product = Product((out,), None, None, entry.bias(self._floats), entry.factor)
        if finish is not None:
            finish(product, 0, entry.n)
        return product

    def _by_rows(self, work: Callable[[int, int], None], n_rows: int) -> None:
        n_parts = self._cores.n_threads
        bounds = [n_rows * i // n_parts for i in range(n_parts + 1)]
        self._cores.each(lambda part: work(*part), pairwise(bounds))


def _role(layer: Linear | Conv) -> str:
    """Whose results share memory: those of layers that never live at once."""
    return layer.name if isinstance(layer, Conv) else layer.role


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    """A fault names the layer it happened in."""
    try:
        yield
    except DeviceFault as error:
        raise DeviceFault(f"npu: layer {layer}: {error}") from error
