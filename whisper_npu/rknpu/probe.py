"""python -m whisper_npu.rknpu.probe LIBRARY [CORE]: one matmul on the NPU, in a process of its own.

Prints what answered; fails, or crashes, like the library does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from whisper_npu.errors import DeviceFault, WhisperNpuError
from whisper_npu.rknpu.librknnrt import Layout, Library, MatmulType

SIDE = 64


def probe(path: Path, core: int | None = None) -> str:
    """Multiply ones by ones. Raises DeviceError."""
    library = Library(path)
    normal, shape = (Layout.NORMAL, Layout.NORMAL), (SIDE, SIDE, SIDE)
    with library.matmul(shape, MatmulType.F16_F16_F32, core=core, layouts=normal) as matmul:
        a, b = matmul.memory(SIDE * SIDE * 2), matmul.memory(SIDE * SIDE * 2)
        c = matmul.memory(SIDE * SIDE * 4)
        for memory in (a, b):
            memory.array.view(np.float16)[:] = 1
            memory.sync_to_device()
        matmul.bind(a, b, c)
        matmul.run()
        c.sync_from_device()
        if (c.array.view(np.float32) != SIDE).any():
            raise DeviceFault("the product is wrong")
        api, driver = matmul.version()
    return f"a small matmul is right (library {api}, driver {driver})"


if __name__ == "__main__":
    try:
        print(probe(Path(sys.argv[1]), *map(int, sys.argv[2:])))  # noqa: T201  its only output
    except WhisperNpuError as error:
        sys.exit(str(error))
