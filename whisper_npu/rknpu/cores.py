"""Matmuls on the cores of one NPU: memory, contexts shared by shape, and threads that feed them.

A job takes whichever core is free, so that while one thread computes between two matmuls another
keeps the cores busy. Contexts are made per core and shape, never per weight: the operands are
bound anew for each run, which costs microseconds when they are in the native order.
It knows nothing of layers.
"""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from whisper_npu.errors import DeviceError, DeviceFault
from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.librknnrt import MatmulType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from whisper_npu.rknpu.librknnrt import Library, Matmul, Memory
    from whisper_npu.rknpu.soc import Precision, Soc

Item = TypeVar("Item")
Shape = tuple[int, int, int]  # M, K, N

KINDS: dict[Precision, MatmulType] = {
    "fp16": MatmulType.F16_F16_F32,
    "int8": MatmulType.I8_I8_I32,
}
HALF_STRIPS = (4, 8)  # widths of a float16 result that the glue reads


@dataclass(frozen=True)
class Piece:
    """Bytes of NPU memory that serve as one operand."""

    whole: Memory
    offset: int
    size: int

    def array(self, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """The same bytes for the host."""
        part = self.whole.array[self.offset : self.offset + self.size]
        return part.view(dtype).reshape(shape)


class Cores:
    """Some cores of one chip: their numbers, or None for all.

    Raises DeviceError when the NPU cannot be used, DeviceFault from any run.
    """

    def __init__(
        self, library: Library, soc: Soc, n_threads: int, numbers: Sequence[int] | None = None
    ) -> None:
        self.library = library
        self.soc = soc
        numbers = range(soc.cores) if numbers is None else numbers
        self.n_cores = len(numbers)
        _allow_many_files()
        order = soc.orders["fp16"]
        self._keeper = library.matmul((1, order.align_k, order.align_n), KINDS["fp16"])
        self._contexts: dict[tuple[int | None, Shape, MatmulType], _Context] = {}
        self._free: SimpleQueue[int | None] = SimpleQueue()
        for core in numbers:
            self._free.put(core if soc.cores > 1 else None)
        self.n_threads = max(n_threads, self.n_cores)
        self._threads = ThreadPoolExecutor(self.n_threads, thread_name_prefix="npu")
        try:
            self._compare_order()
            self.half_strip = self._half_strip()
        except DeviceError:
            self.close()
            raise

    def _compare_order(self) -> None:
        """That our table of tiles is the library's: a wrong one would give nonsense, silently."""
        import numpy as np

        for precision in KINDS:
            order = self.soc.orders[precision]
            k, n = 2 * order.align_k, 2 * order.align_n
            values = np.arange(k * n).reshape(k, n) % 127
            b = values.astype(np.int8 if precision == "int8" else np.float16)
            theirs = self.library.tile_b(b, precision)
            if theirs is not None and (theirs != tiling.tile_weight(b.T, order.b, (n, k))).any():
                raise DeviceError(
                    f"{self.library.path} orders {precision} weights otherwise than "
                    f"{self.soc.name} is known to; is it another chip? Use --device cpu"
                )

    def _half_strip(self) -> int:
        """Columns in a strip of a float16 result: no header tells, so the library is asked."""
        order = self.soc.orders["fp16"]
        shape = 16, order.padded_k(16), order.padded_n(16)
        with self.library.matmul(shape, MatmulType.F16_F16_F16) as matmul:
            *_, strip = matmul.dims("c")
        if strip not in HALF_STRIPS:
            raise DeviceError(
                f"{self.library.path} leaves float16 results in strips of {strip} columns, which "
                "we do not know; use --device cpu"
            )
        return strip

    def version(self) -> tuple[str, str]:
        """Of the library and of the kernel driver."""
        return self._keeper.version()

    def memory(self, size: int) -> Memory:
        """New memory for operands, reachable from every core."""
        return self._keeper.memory(size)

    def multiply(
        self, shape: Shape, precision: Precision, operands: tuple[Piece, Piece, Piece],
        *, fresh: str = "", half: bool = False,
    ) -> None:  # fmt: skip
        """C = A x B on the next free core, seen by the host when it returns.

        operands  A, B, C
        fresh     which of "a" and "b" the host has written since they were last synchronised
        half      C is float16 (of fp16), in strips of `half_strip`; else float32 or int32
        """
        kind = MatmulType.F16_F16_F16 if half else KINDS[precision]
        with self._core() as core:
            context = self._context(core, shape, precision, kind)
            left, right, result = (context.handle(piece) for piece in operands)
            if "a" in fresh:
                left.sync_to_device()
            if "b" in fresh:
                right.sync_to_device()
            context.matmul.bind(left, right, result)
            context.matmul.run()
            result.sync_from_device()

    @contextmanager
    def _core(self) -> Iterator[int | None]:
        core = self._free.get()
        try:
            yield core
        finally:
            self._free.put(core)

    def _context(
        self, core: int | None, shape: Shape, precision: Precision, kind: MatmulType
    ) -> _Context:
        key = core, shape, kind
        if key not in self._contexts:
            matmul = self.library.matmul(shape, kind, core=core)
            strip = self.half_strip if kind == MatmulType.F16_F16_F16 else tiling.C_STRIP
            order, (m, k, n) = self.soc.orders[precision], shape
            stated = tuple(matmul.dims(x) for x in "abc")
            known = (k // order.a, m, order.a), (n // order.b[0], k // order.b[1], *order.b)
            if stated != (*known, (n // strip, m, strip)):
                matmul.close()
                raise DeviceFault(f"{precision} {shape} has operands {stated}, unknown to us")
            self._contexts[key] = _Context(matmul)
        return self._contexts[key]

    def each(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Work on all items, on the threads; when one fails the rest still end before it raises.

        The caller takes part: a thread less has to be woken.
        """
        first, *rest = items
        jobs = [self._threads.submit(work, item) for item in rest]
        try:
            work(first)
        finally:
            wait(jobs)
        for job in jobs:
            job.result()

    def close(self) -> None:
        """Wait for running jobs, then give everything back."""
        self._threads.shutdown()
        for context in self._contexts.values():
            with suppress(DeviceFault):  # a dead device cannot take anything back
                context.matmul.close()
        with suppress(DeviceFault):
            self._keeper.close()


class _Context:
    """A matmul context and its own handles on the pieces it has met."""

    def __init__(self, matmul: Matmul) -> None:
        self.matmul = matmul
        self._handles: dict[Piece, Memory] = {}

    def handle(self, piece: Piece) -> Memory:
        known = self._handles.get(piece)
        if known is None:
            known = self.matmul.slice(piece.whole, piece.offset, piece.size)
            self._handles[piece] = known
        return known


def _allow_many_files() -> None:
    """Each context and buffer costs a file descriptor; the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
