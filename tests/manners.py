"""How the emulated NPU behaves: each of the hardware's bad manners, and all of them at once.

The tests of the NPU hold in each, those that take long in all at once.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.npu import NpuDevice
from whisper_npu.options import DeviceOptions
from whisper_npu.rknpu import emulator
from whisper_npu.rknpu.librknnrt import Library, MatmulType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LITTLE = "little memory"  # stands for a limit of memory that the weights do not fit into
NO_FP16_RESULT = 1 << MatmulType.F16_F16_F16
MANNERS: dict[str, dict[str, int]] = {
    "coherent": {},
    "late_evict": {"late_evict": 1},
    "view_nosync": {"view_nosync": 1},
    "worst": {"late_evict": 1, "view_nosync": 1},
    "no_float16_result": {"refuse": NO_FP16_RESULT, "late_evict": 1},
    "little_memory": {LITTLE: 1, "view_nosync": 1},
    "descriptors": {"descriptors": 1},
    "all": {
        "refuse": NO_FP16_RESULT,
        "late_evict": 1,
        "view_nosync": 1,
        "descriptors": 1,
        LITTLE: 1,
    },
}


@contextmanager
def behaving(name: str, model: Path) -> Iterator[None]:
    """The emulated libraries with these manners.

    model  what little memory is too little for
    """
    played = [(Library(emulator.library(c)), settings(name, c, model)) for c in emulator.CHIPS]
    for library, manners in played:
        for setting, value in manners.items():
            library.emulator_set(setting, value)
    try:
        yield
    finally:
        for library, manners in played:
            for setting in manners:
                library.emulator_set(setting, 0)


def words(name: str, chip: str, model: Path, precision: str) -> str:
    """The same for a process of its own: a value of WHISPER_NPU_EMULATOR."""
    played = settings(name, chip, model, precision)
    return ",".join(f"{setting}={value}" for setting, value in played.items())


def settings(name: str, chip: str, model: Path, precision: str = "int8") -> dict[str, int]:
    """The emulator's own."""
    manners = dict(MANNERS[name])
    if manners.pop(LITTLE, 0):
        manners["memory_limit"] = _needed(chip, model, precision, manners.get("refuse", 0)) - 1
    return manners


@lru_cache
def _needed(chip: str, model: Path, precision: str, refuse: int) -> int:
    """Bytes of all weights and a window. What int8 takes is not enough for float16, either."""
    library, checkpoint = Library(emulator.library(chip)), Checkpoint(model)
    library.emulator_set("null", 1)
    library.emulator_set("refuse", refuse)
    try:
        options = DeviceOptions("npu", npu_precision=precision, emulate=chip)
        with closing(NpuDevice(checkpoint, options)) as device:
            dims = checkpoint.dims
            device.keys_values(np.zeros((dims.n_mels, 2 * dims.n_audio_ctx), np.float32))
            return int(library.emulator_get("memory"))
    finally:
        library.emulator_set("null", 0)
        library.emulator_set("refuse", 0)
