"""This computer, measured: its name, the memory a piece of work took, and its limits."""

from __future__ import annotations

import os
import platform
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PROC = Path("/proc")


def name() -> str:
    """Board or processor, cores and system: what a measured figure belongs to."""
    board = _read(_PROC / "device-tree/model").strip("\0\n ")
    processor = re.search(r"^model name\s*:\s*(.+)$", _read(_PROC / "cpuinfo"), re.MULTILINE)
    what = board or (processor[1] if processor else platform.machine())
    return f"{what}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}"


def forget_peak_memory() -> None:
    """Begin to measure the peak of resident memory anew, where the kernel can."""
    with suppress(OSError):
        (_PROC / "self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Bytes of resident memory at most, since it was last forgotten; None: cannot be told."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", _read(_PROC / "self/status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def bandwidth(n_bytes: int = 256 << 20, repeats: int = 3) -> float:
    """Bytes a second that all cores together read from memory; best of `repeats`.

    n_bytes  of memory that is read; more than the caches hold
    """
    import numpy as np

    n_cores = len(os.sched_getaffinity(0))
    blocks = np.array_split(np.ones(n_bytes, np.int8), n_cores)
    with ThreadPoolExecutor(n_cores) as pool:

        def read() -> None:
            list(pool.map(np.max, blocks))  # keeps up with memory where numpy has SIMD

        return n_bytes / min(_seconds(read) for _ in range(repeats + 1))


def matmul_rate(n: int = 1024, repeats: int = 3) -> float:
    """Floating point operations a second of numpy's float32 matmul; best of `repeats`."""
    import numpy as np

    a = np.ones((n, n), np.float32)
    return 2 * n**3 / min(_seconds(lambda: a @ a) for _ in range(repeats + 1))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
