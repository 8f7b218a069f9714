"""Memory that layers compute in: kept by role, used again by the next layer of that role.

Made at the first window and never in later ones, where a new one would cost a page fault for every
4096 bytes. What other threads synchronise meanwhile has a keeper of its own (`rknpu.cores`).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.devices.npu.activations import Heads, Operand
from whisper_npu.errors import DeviceFault
from whisper_npu.rknpu import tiling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from whisper_npu.devices.npu.residence import Residence
    from whisper_npu.rknpu.cores import Cores
    from whisper_npu.rknpu.librknnrt import Memory
    from whisper_npu.rknpu.soc import Precision

    Float = NDArray[np.float32]

PIECES, PIECES_OF_HEAD = 5, 6  # operands of layers; what a head at work needs


@dataclass(frozen=True, eq=False)
class HeadAtWork:
    """Memory for one head of attention, of one thread."""

    queries: Operand
    keys: Heads
    values: Heads
    scores: Operand  # float16 as the NPU leaves them, or float32 in strips of 4
    weights: Operand  # what is made of them; the same memory where the orders agree
    mixed: Memory  # float32, (d/4, M, 4)


class Buffers:
    """Raises DeviceFault where there is no memory, even after the weights have made room."""

    def __init__(self, cores: Cores, tiles: Residence) -> None:
        self._cores = cores
        self._tiles = tiles
        self._memory: dict[str, Memory] = {}
        self._arrays: dict[str, Float] = {}  # the same, for the host alone
        self._heads: SimpleQueue[HeadAtWork] = SimpleQueue()
        self._heads_shape = (0, 0, 0)

    def memory(self, role: str, size: int, thread: int = 0) -> Memory:
        """At least so much: zero at first, and as it was left later."""
        known = self._memory.get(role)
        if known is None or known.size < size:
            if known is not None:
                known.close()
            known = self._memory[role] = self._new(size, thread)
            known.array[:] = 0
            known.sync_to_device()  # else the zeros may land on a result
        return known

    def _new(self, size: int, thread: int) -> Memory:
        try:
            return self._cores.memory(size, thread)
        except DeviceFault:
            self._tiles.give_way()
        return self._cores.memory(size, thread)

    def array(self, role: str, shape: tuple[int, ...]) -> Float:
        """An array of the host, as left by the last window."""
        known = self._arrays.get(role)
        if known is None or known.shape != shape:
            known = self._arrays[role] = np.empty(shape, np.float32)
        return known

    def operand(
        self, role: str, n_rows: int, columns: int, precision: Precision, thread: int = 0
    ) -> Operand:
        """A of a product, to be written by the host and synchronised."""
        strip = self._cores.soc.orders[precision].a
        dtype = np.dtype(np.int8 if precision == "int8" else np.float16)
        size = n_rows * columns * dtype.itemsize
        memory = self.memory(f"{role} a", size, thread)
        values = memory.array[:size].view(dtype).reshape(columns // strip, n_rows, strip)
        return Operand(memory, values, np.ones(n_rows, np.float32) if precision == "int8" else None)

    def make_heads(self, n_rows: int, n_keys: int, d: int) -> None:
        """For each thread, all that a head needs."""
        if self._heads_shape == (n_rows, n_keys, d):
            return
        self._heads, self._heads_shape = SimpleQueue(), (n_rows, n_keys, d)
        n, k = self._cores.soc.orders["fp16"].b
        for i in range(self._cores.n_threads):
            weights = self.operand(f"weights {i}", n_rows, n_keys, "fp16", i)
            self._heads.put(
                HeadAtWork(
                    self.operand(f"queries {i}", n_rows, d, "fp16", i),
                    self._tiled(f"keys {i}", (1, n_keys // n, d // k, n, k), i),
                    self._tiled(f"values {i}", (1, d // n, n_keys // k, n, k), i),
                    self._scores(weights, i),
                    weights,
                    self.memory(f"mixed {i} c", n_rows * d * 4, i),
                )
            )

    @contextmanager
    def head(self) -> Iterator[HeadAtWork]:
        """What one thread works with."""
        own = self._heads.get()
        try:
            yield own
        finally:
            self._heads.put(own)

    def _tiled(self, role: str, shape: tuple[int, ...], thread: int) -> Heads:
        memory = self.memory(f"{role} b", 2 * int(np.prod(shape)), thread)
        return Heads(memory, memory.array.view(np.float16).reshape(shape))

    def _scores(self, weights: Operand, thread: int) -> Operand:
        """In the weights' own memory, where float16 scores come in their order."""
        n_strips, n_rows, width = weights.values.shape
        strip = self._cores.fp16_strip or tiling.C_STRIP
        if self._cores.fp16_strip == width:
            return weights
        dtype = np.dtype(np.float16 if self._cores.fp16_strip else np.float32)
        size = n_rows * n_strips * width * dtype.itemsize
        memory = self.memory(f"scores {thread} c", size, thread)
        return Operand(memory, memory.array.view(dtype).reshape(-1, n_rows, strip), None)
