"""Which processor cores to compute on, from /sys.

On big.LITTLE (Cortex-A76 + A55) only the big ones: a barrier waits for the slowest thread.
Elsewhere one thread for each physical core: a second one on the same core shares its arithmetic.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

CPUS = Path("/sys/devices/system/cpu")


class Threads(NamedTuple):
    """How many threads, and the cores that they are kept on; empty: any."""

    threads: int
    pinned: tuple[int, ...]


def choose(threads: int | None = None, *, cpus: Path = CPUS) -> Threads:
    """The cores for so many threads; None: as many as make sense here."""
    allowed = sorted(os.sched_getaffinity(0))
    capacity = {cpu: _number(cpus / f"cpu{cpu}" / "cpu_capacity") or 1024 for cpu in allowed}
    # clusters of one kind may differ by their clocks
    big = tuple(cpu for cpu in allowed if 10 * capacity[cpu] >= 7 * max(capacity.values()))
    pinned = big if len(big) < len(allowed) else ()
    if threads is None:
        return Threads(len({_core(cpus, cpu) for cpu in big}), pinned)
    return Threads(threads, pinned if threads <= len(big) else ())


def _core(cpus: Path, cpu: int) -> tuple[int, ...]:
    """What two hardware threads of one core have in common."""
    topology = cpus / f"cpu{cpu}" / "topology"
    core, package = _number(topology / "core_id"), _number(topology / "physical_package_id")
    cluster = _number(topology / "cluster_id")
    return (-1, cpu) if core is None else (core, package or 0, cluster or 0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
