"""Matmuls on the cores of one NPU: memory, contexts shared by shape, and threads that feed them.

A job takes whichever core is free, so that while one thread computes between two matmuls another
keeps the cores busy. Contexts are made per core and shape, never per weight: the operands are
bound anew for each run, which costs microseconds when they are in the native order.
It knows nothing of layers.

Memory is made by a keeper, a context that computes nothing, and bound everywhere by the handle so
made: a sync through another handle on the same memory was seen to do nothing. There is a keeper
for each thread, since no context may be used by two at a time.
"""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from whisper_npu.errors import DeviceError, DeviceFault
from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.librknnrt import MatmulType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from whisper_npu.rknpu.librknnrt import Library, Matmul, Memory
    from whisper_npu.rknpu.soc import Precision, Soc

Item = TypeVar("Item")
Shape = tuple[int, int, int]  # M, K, N

KINDS: dict[Precision, MatmulType] = {
    "fp16": MatmulType.F16_F16_F32,
    "int8": MatmulType.I8_I8_I32,
}
FP16_STRIPS = (4, 8)  # widths of a float16 result that the glue reads
_NO_ROOM = (
    "this model does not fit into the memory that the NPU reaches: whisper-npu doctor tells what "
    "may be done, or use --device cpu"
)
_SPARE_FILES = 64  # for what is opened besides
_MOST_FILES = 65536


class Cores:
    """Some cores of one chip: their numbers, or None for all.

    to_fp16  whether results of float16 may be asked for, where the library has them

    Raises DeviceError when the NPU cannot be used, DeviceFault from any run.
    """

    def __init__(
        self, library: Library, soc: Soc, n_threads: int, numbers: Sequence[int] | None = None,
        *, to_fp16: bool = True,
    ) -> None:  # fmt: skip
        self.library = library
        self.soc = soc
        numbers = range(soc.cores) if numbers is None else numbers
        self.n_cores = len(numbers)
        self._masks = [core if soc.cores > 1 else None for core in numbers]
        self._contexts: dict[tuple[int | None, Shape, MatmulType], Matmul] = {}
        self._keepers: list[Matmul] = []
        self._free: SimpleQueue[int | None] = SimpleQueue()
        for core in self._masks:
            self._free.put(core)
        self.n_threads = max(n_threads, self.n_cores)
        self._threads = ThreadPoolExecutor(self.n_threads, thread_name_prefix="npu")
        order = soc.orders["fp16"]
        try:
            allow_files(self.n_threads)
            for _ in range(self.n_threads):
                shape = 1, order.align_k, order.align_n
                self._keepers.append(library.matmul(shape, KINDS["fp16"]))
            self._compare_order()
            self.fp16_strip = self._fp16_strip() if to_fp16 else None
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

    def _fp16_strip(self) -> int | None:
        """Columns in a strip of a float16 result: no header tells, so the library is asked.

        None where it has no such matmul, as some chips are said not to.
        """
        order = self.soc.orders["fp16"]
        shape = 16, order.padded_k(16), order.padded_n(16)
        try:
            with self.library.matmul(shape, MatmulType.F16_F16_F16) as matmul:
                *_, strip = matmul.dims("c")
        except DeviceFault:
            return None
        if strip not in FP16_STRIPS:
            raise DeviceError(
                f"{self.library.path} leaves float16 results in strips of {strip} columns, which "
                "we do not know; use --device cpu"
            )
        return strip

    def version(self) -> tuple[str, str]:
        """The versions of the library and of the kernel driver."""
        return self._keepers[0].version()

    def memory(self, size: int, thread: int = 0) -> Memory:
        """New memory for operands, reachable from every core.

        thread  the only one that synchronises it while others do the same with theirs
        """
        try:
            return self._keepers[thread].memory(size)
        except DeviceFault as error:
            raise DeviceFault(f"{error}; {_NO_ROOM}") from error

    def view(self, whole: Memory, offset: int, size: int) -> Memory:
        """Part of memory that was written, and synchronised as a whole, before."""
        return self._keepers[0].slice(whole, offset, size)

    def prepare(self, shape: Shape, precision: Precision, *, to_fp16: bool = False) -> None:
        """Make the contexts of a shape now, on all cores, and not on a thread in mid-run."""
        for core in self._masks:
            self._context(core, shape, precision, to_fp16=to_fp16)

    def multiply(
        self, shape: Shape, precision: Precision, operands: tuple[Memory, Memory, Memory],
        *, fresh: str = "", to_fp16: bool = False,
    ) -> None:  # fmt: skip
        """C = A x B on the next free core, seen by the host when it returns.

        operands  A, B, C
        fresh     which of "a" and "b" the host has written since they were last synchronised
        to_fp16      C is float16 (of fp16), in strips of `fp16_strip`; else float32 or int32
        """
        a, b, c = operands
        with self._core() as core:
            matmul = self._context(core, shape, precision, to_fp16=to_fp16)
            if "a" in fresh:
                a.sync_to_device()
            if "b" in fresh:
                b.sync_to_device()
            matmul.bind(a, b, c)
            matmul.run()
            c.sync_from_device()

    @contextmanager
    def _core(self) -> Iterator[int | None]:
        core = self._free.get()
        try:
            yield core
        finally:
            self._free.put(core)

    def _context(
        self, core: int | None, shape: Shape, precision: Precision, *, to_fp16: bool
    ) -> Matmul:
        kind = MatmulType.F16_F16_F16 if to_fp16 else KINDS[precision]
        key = core, shape, kind
        if key not in self._contexts:
            matmul = self.library.matmul(shape, kind, core=core)
            strip = self.fp16_strip if to_fp16 else tiling.C_STRIP
            order, (m, k, n) = self.soc.orders[precision], shape
            stated = tuple(matmul.dims(x) for x in "abc")
            known = (k // order.a, m, order.a), (n // order.b[0], k // order.b[1], *order.b)
            if strip is None or stated != (*known, (n // strip, m, strip)):
                matmul.close()
                raise DeviceFault(f"{precision} {shape} has operands {stated}, unknown to us")
            self._contexts[key] = matmul
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
        for matmul in (*self._contexts.values(), *self._keepers):
            with suppress(DeviceFault):  # a dead device cannot take anything back
                matmul.close()


def allow_files(n_needed: int) -> None:
    """Make room for so many more open files; where there is none the library would crash.

    Each context and each piece of memory costs a descriptor, and the usual limit is 1024.
    Raises DeviceError.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(list(Path("/proc/self/fd").iterdir())) + n_needed + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise DeviceError(
            f"the NPU needs {wanted} open files and this process may have {hard}: raise the limit "
            f"(ulimit -n {2 * wanted}), or use --device cpu"
        )
    highest = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, highest), hard))
