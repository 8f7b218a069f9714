#!/usr/bin/env python3
"""Log-mel of one hour, ours and faster-whisper's in turns: seconds and memory, on this machine.

faster-whisper is measured where it is installed. Its memory excludes the hour of samples that it
needs whole; ours reads them in blocks.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.features import log_mel

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600 * 16000  # samples
BLOCK = np.random.default_rng(0).normal(0, 0.1, 1 << 16).astype(np.float32)


def ours() -> None:
    blocks = (BLOCK[: min(len(BLOCK), HOUR - start)] for start in range(0, HOUR, len(BLOCK)))
    mel = log_mel(blocks, 80)
    for start in range(0, mel.n_frames, 3000):
        mel.window(start)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {len(os.sched_getaffinity(0))} cores"


def measured(name: str, run: Callable[[], object]) -> tuple[str, Callable[[], object], float]:
    before = peak()
    run()
    return name, run, peak() - before


def main() -> None:
    runs = [measured("whisper-npu, with all its windows", ours)]
    try:
        from faster_whisper.feature_extractor import FeatureExtractor
    except ImportError:
        print("faster-whisper is not installed: only ours is measured")
    else:
        samples = np.tile(BLOCK, HOUR // len(BLOCK) + 1)[:HOUR]
        runs.append(measured("faster-whisper", lambda: FeatureExtractor()(samples)))
    print(f"{processor()}, numpy {np.__version__}, 3 runs in turns")
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in runs}
    for _ in range(3):
        for name, run, _ in runs:
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    for name, _, memory in runs:
        times = " ".join(f"{value:.2f}" for value in seconds[name])
        print(
            f"{name}: median {statistics.median(seconds[name]):.2f} s ({times}), +{memory:.0f} MiB"
        )


if __name__ == "__main__":
    main()
