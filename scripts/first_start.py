#!/usr/bin/env python3
"""Memory of a model's first opening on the emulated NPU, and of windows after it: docs/npu.md.

    PYTHONPATH=. scripts/first_start.py MODEL rk3588 fp16

Without arithmetic (weights of random numbers do), with a cache of its own, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.npu import NpuDevice
from whisper_npu.options import DeviceOptions
from whisper_npu.rknpu import emulator
from whisper_npu.rknpu.librknnrt import Library

KINDS = {"RssAnon": "own", "RssFile": "files", "RssShmem": "NPU"}
N_WINDOWS, N_TOKENS = 2, 20


def resident() -> dict[str, float]:
    """Kind -> GB: the process's own, files that can be read again, and the emulated NPU's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    rows = (line.split() for line in lines)
    found = {KINDS[row[0][:-1]]: int(row[1]) / 1e6 for row in rows if row[0][:-1] in KINDS}
    return found | {"all": sum(found.values()), "own and NPU": found["own"] + found["NPU"]}


class Peaks:
    """The most of each kind of memory while it watches."""

    def __init__(self) -> None:
        self.most = resident()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            now = resident()
            self.most = {kind: max(gb, now[kind]) for kind, gb in self.most.items()}

    def close(self) -> None:
        """Watch no longer."""
        self._end.set()
        self._thread.join()


def tell(what: str, start: float, gigabytes: dict[str, float]) -> None:
    """A line on stdout."""
    kinds = ", ".join(f"{kind} {gb:.2f} GB" for kind, gb in gigabytes.items())
    print(f"{what:14}{time.perf_counter() - start:7.1f} s  {kinds}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("chip", choices=emulator.CHIPS)
    parser.add_argument("precision", choices=("fp16", "int8"))
    options = parser.parse_args()
    library = Library(emulator.library(options.chip))
    library.emulator_set("null", 1)
    with tempfile.TemporaryDirectory(dir=options.model.parent) as folder:
        os.environ["WHISPER_NPU_CACHE"] = folder
        peaks, start = Peaks(), time.perf_counter()
        checkpoint = Checkpoint(options.model)
        chosen = DeviceOptions("npu", npu_precision=options.precision, emulate=options.chip)
        device = NpuDevice(checkpoint, chosen)
        tell("opened", start, resident())
        mel = np.zeros((checkpoint.dims.n_mels, 2 * checkpoint.dims.n_audio_ctx), np.float32)
        for _ in range(N_WINDOWS):
            start = time.perf_counter()
            session = device.session(device.encode(mel))
            tell("a window", start, resident())
        start = time.perf_counter()
        session.step(np.array([[50258, 50259, 50359, 50363]]))
        for _ in range(N_TOKENS):
            session.step(np.array([[11]]))
        tell(f"{N_TOKENS} tokens", start, resident())
        peaks.close()
        tell("most of each", start, peaks.most)
        print(f"memory of the NPU: {library.emulator_get('memory') / 1e9:.2f} GB")
        device.close()


if __name__ == "__main__":
    main()
