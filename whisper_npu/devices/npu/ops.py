"""Whisper's layers on the NPU: `model.Ops` over activations that stay in the NPU's order.

Linear layers are split by output channels over the cores, attention by heads; each thread also
does what follows its matmul. Softmax, normalisation and the residual stream are float32.
Buffers are kept by role and used again for the next layer: an activation is good until another
one of the same role is made, which is how `model.encode` uses them.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.devices.npu.activations import Heads, Operand, Product, Stream, read
from whisper_npu.errors import DeviceFault
from whisper_npu.kernels import glue, reference
from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.cores import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from whisper_npu.devices.npu.activations import Activation
    from whisper_npu.devices.npu.weights import Entry, Image
    from whisper_npu.devices.plan import Plan
    from whisper_npu.model import Conv, Linear, Norm
    from whisper_npu.rknpu.cores import Cores
    from whisper_npu.rknpu.librknnrt import Memory
    from whisper_npu.rknpu.soc import Precision

    Array = NDArray[Any]
    Float = NDArray[np.float32]


class NpuOps:
    """The layers of one model on one NPU.

    tiles   memory that holds the image's tiles
    floats  (image.float_bytes,)  uint8  its scales and biases
    """

    def __init__(
        self, cores: Cores, image: Image, tiles: Memory, floats: NDArray[np.uint8], plan: Plan
    ) -> None:
        self._cores = cores
        self._image = image
        self._tiles = tiles
        self._floats = floats
        self._plan = plan
        self._precision = image.precision
        self._buffers: dict[str, Memory] = {}
        self._arrays: dict[str, Float] = {}  # the same, for the host alone
        self._scratch: SimpleQueue[tuple[Operand, Operand]] = SimpleQueue()
        self._scratch_shape = (0, 0)
        self._positions: tuple[Float, Float] | None = None  # as given, and in the order of C

    # ---- the layers ----

    def conv_gelu(self, x: Activation, conv: Conv, stride: int) -> Activation:
        stream: Stream = x
        entry = self._image.entries[conv.name]
        n_rows = stream.values.shape[1] // stride
        a = self._operand(conv.name, n_rows, entry.k, "fp16")
        n_strips = conv.n_in // a.values.shape[2]

        def gather(tap: int) -> None:
            part = a.values[tap * n_strips : (tap + 1) * n_strips]
            glue.tap(stream.values, tap, stride, part)

        self._cores.each(gather, range(3))
        a.memory.sync_to_device()
        out = self._array(conv.name, (conv.n_out // 4, n_rows, 4))

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
        out = self._operand("normed", stream.values.shape[1], norm.width, self._precision)
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
        if ".encoder_attn." in linear.name:  # for the decoder
            return self._leave(a, entry)
        return self._multiply(a, entry)

    def _add_to(self, stream: Stream, a: Operand, entry: Entry) -> Stream:
        """In place: nobody needs the stream as it was."""

        def finish(product: Product, first: int, last: int) -> None:
            glue.add(*product.channels(first, last), stream.values[first // 4 : last // 4])

        self._multiply(a, entry, finish)
        return stream

    def _leave(self, a: Operand, entry: Entry) -> Float:
        out = self._array(entry.layer.name, (a.values.shape[1], entry.n))

        def finish(product: Product, first: int, last: int) -> None:
            glue.rows(*product.channels(first, last), out[:, first:last])

        self._multiply(a, entry, finish)
        return out

    def _gelu(self, a: Operand, entry: Entry) -> Operand:
        n_rows = a.values.shape[1]
        out = self._operand("hidden", n_rows, entry.n, self._precision)
        strip = out.values.shape[2]

        def by_channels(product: Product, first: int, last: int) -> None:
            part = out.values[first // strip : last // strip]
            glue.gelu(*product.channels(first, last), part, None)

        if out.scale is None:
            self._multiply(a, entry, by_channels)
        else:  # a row's scale needs all its channels
            product, scale = self._multiply(a, entry), out.scale
            self._by_rows(
                lambda first, last: glue.gelu(
                    *product.rows(first, last), out.values[:, first:last], scale[first:last]
                ),
                n_rows,
            )
        with _naming(entry.layer.name):
            out.memory.sync_to_device()
        return out

    def attention(
        self, query: Activation, key: Activation, value: Activation, n_heads: int
    ) -> Activation:
        n_rows, width = query.values.shape[1], 4 * len(query.values)
        out = self._operand("mixed", n_rows, width, self._precision)
        mixed = self._product("mixed scores", n_rows, width, "fp16")

        def finish(first: int, last: int) -> None:
            scale = None if out.scale is None else out.scale[first:last]
            glue.convert(*mixed.rows(first, last), out.values[:, first:last], scale)

        with _naming("attention"):
            if self._plan.on_npu("attention"):
                work = self._head((query, key, value), mixed, out, n_heads)
                self._cores.each(work, range(n_heads))
            else:
                q, k, v = (read(x) for x in (query, key, value))
                y = reference.attention(q, k, v, n_heads, causal=False)
                mixed.values[:] = tiling.tile(y, tiling.C_STRIP)
            if out.scale is not None or not self._plan.on_npu("attention"):
                self._by_rows(finish, n_rows)
            out.memory.sync_to_device()
        return out

    def _head(
        self, inputs: tuple[Product, Product, Product], mixed: Product, out: Operand, n_heads: int
    ) -> Callable[[int], None]:
        """Head h of softmax(query key^T) value: into mixed, and for float16 into out."""
        query, key, value = inputs
        n_rows, width = query.values.shape[1], 4 * len(query.values)
        d, order = width // n_heads, self._image.soc.orders["fp16"]
        n_keys = order.padded_k(n_rows)
        n, k = order.b
        queries = self._operand("queries", n_rows, width, "fp16")
        keys = self._weights("keys", (n_heads, n_keys // n, d // k, n, k))
        values = self._weights("values", (n_heads, d // n, n_keys // k, n, k))
        self._make_scratch(n_rows, n_keys)

        def work(head: int) -> None:
            first, last = head * d, (head + 1) * d
            one = slice(head, head + 1)
            strips = slice(first // order.a, last // order.a)
            glue.convert(*query.channels(first, last), queries.values[strips], None)
            glue.keys(*key.channels(first, last), keys.values[one])
            glue.values(*value.channels(first, last), values.values[one])
            scores, weights = self._scratch.get()
            total = np.empty(n_rows, np.float32)
            try:
                self._cores.multiply(
                    (n_rows, d, n_keys), "fp16",
                    (queries.strips(first, last), keys.part(head), scores.piece),
                    fresh="ab", half=True,
                )  # fmt: skip
                glue.softmax(scores.values, n_rows, weights.values, total)
                self._cores.multiply(
                    (n_rows, n_keys, d), "fp16",
                    (weights.piece, values.part(head), mixed.piece(first, last)), fresh="ab",
                )  # fmt: skip
            finally:
                self._scratch.put((scores, weights))
            part = mixed.values[first // 4 : last // 4]
            strips = slice(first // out.values.shape[2], last // out.values.shape[2])
            target = part if out.scale is not None else out.values[strips]
            glue.convert(part, 1 / total, None, None, target, None)

        return work

    # ---- how a layer runs ----

    def _multiply(
        self, a: Operand, entry: Entry, finish: Callable[[Product, int, int], None] | None = None
    ) -> Product:
        """A linear layer's product, its outputs over the cores.

        finish  what to do with the outputs first to last, on the thread that has made them
        """
        name = entry.layer.name
        on_npu = self._plan.on_npu(name)
        precision = entry.precision if on_npu else "fp16"
        bare = self._product(name.rpartition(".")[2], a.values.shape[1], entry.n, precision)
        product = Product(
            bare.memory, bare.values, a.scale if on_npu else None,
            entry.channel_scale(self._floats) if on_npu else None,
            entry.bias(self._floats), entry.factor,
        )  # fmt: skip

        def work(part: tuple[int, int]) -> None:
            first, last = part
            shape = (a.values.shape[1], entry.k, last - first)
            b = self._part(entry, first, last)
            self._cores.multiply(shape, precision, (a.piece, b, product.piece(first, last)))
            if finish is not None:
                finish(product, first, last)

        with _naming(name):
            if on_npu:
                self._cores.each(work, self._parts(entry))
                return product
            weight = entry.weight()
            product.values[:] = tiling.tile(read(a)[:, : weight.shape[1]] @ weight.T, 4)
            if finish is not None:
                finish(product, 0, entry.n)
            return product

    def _parts(self, entry: Entry) -> list[tuple[int, int]]:
        """The outputs of each core: as equal as whole tiles allow."""
        soc, n_cores = self._image.soc, self._cores.n_cores
        n_parts = n_cores if soc.k_segment is None or entry.k <= soc.k_segment else 1
        align = soc.orders[entry.precision].align_n
        bounds = [entry.n // align * i // n_parts * align for i in range(n_parts)] + [entry.n]
        return [(a, b) for a, b in pairwise(bounds) if a < b]

    def _part(self, entry: Entry, first: int, last: int) -> Piece:
        """Tiles lie output by output, so some outputs are one piece."""
        column = entry.tile_bytes // entry.n
        return Piece(self._tiles, entry.offset + first * column, (last - first) * column)

    def _by_rows(self, work: Callable[[int, int], None], n_rows: int) -> None:
        n_parts = self._cores.n_threads
        bounds = [n_rows * i // n_parts for i in range(n_parts + 1)]
        self._cores.each(lambda part: work(*part), pairwise(bounds))

    # ---- memory ----

    def _buffer(self, role: str, size: int) -> Memory:
        """Memory for this role; zero at first, and as it was left later."""
        known = self._buffers.get(role)
        if known is None or known.size != size:
            if known is not None:
                known.close()
            known = self._buffers[role] = self._cores.memory(size)
            known.array[:] = 0
        return known

    def _array(self, role: str, shape: tuple[int, ...]) -> Float:
        """As left by the last window; a new one would cost a page fault for every 4096 bytes."""
        known = self._arrays.get(role)
        if known is None or known.shape != shape:
            known = self._arrays[role] = np.empty(shape, np.float32)
        return known

    def _operand(self, role: str, n_rows: int, columns: int, precision: Precision) -> Operand:
        strip = self._image.soc.orders[precision].a
        dtype = np.dtype(np.int8 if precision == "int8" else np.float16)
        memory = self._buffer(f"{role} a", n_rows * columns * dtype.itemsize)
        values = memory.array.view(dtype).reshape(columns // strip, n_rows, strip)
        return Operand(memory, values, np.ones(n_rows, np.float32) if precision == "int8" else None)

    def _product(self, role: str, n_rows: int, n_out: int, precision: Precision) -> Product:
        memory = self._buffer(f"{role} c", n_rows * n_out * 4)
        dtype = np.int32 if precision == "int8" else np.float32
        values = memory.array.view(dtype).reshape(n_out // 4, n_rows, 4)
        return Product(memory, values, None, None, None)

    def _weights(self, role: str, shape: tuple[int, ...]) -> Heads:
        memory = self._buffer(f"{role} b", 2 * int(np.prod(shape)))
        return Heads(memory, memory.array.view(np.float16).reshape(shape))

    def _make_scratch(self, n_rows: int, n_keys: int) -> None:
        """For each thread scores, and the weights made of them: in place, where orders agree."""
        if self._scratch_shape == (n_rows, n_keys):
            return
        self._scratch, self._scratch_shape = SimpleQueue(), (n_rows, n_keys)
        strip = self._cores.half_strip
        for i in range(self._cores.n_threads):
            weights = self._operand(f"weights {i}", n_rows, n_keys, "fp16")
            scores = weights
            if weights.values.shape[2] != strip:
                memory = self._buffer(f"scores {i} c", weights.values.nbytes)
                values = memory.array.view(np.float16).reshape(n_keys // strip, n_rows, strip)
                scores = Operand(memory, values, None)
            self._scratch.put((scores, weights))


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    """A fault names the layer it happened in."""
    try:
        yield
    except DeviceFault as error:
        raise DeviceFault(f"npu: layer {layer}: {error}") from error
