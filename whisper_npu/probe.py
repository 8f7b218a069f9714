"""This computer: what it is called, and how much memory a piece of work took."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from pathlib import Path

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
