"""The layers of Whisper as functions over arrays: native code, and numpy where there is none.

`native` is the compiled module, or None when the package was installed without a compiler (or built
for another machine); then everything runs on `reference`, much slower. `status` says which.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from whisper_npu.kernels import reference, tiles

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

    Float = NDArray[np.float32]

native: ModuleType | None
_reason = ""
try:
    native = import_module("whisper_npu.kernels._native")
except ImportError as error:
    native, _reason = None, str(error)


class Status(NamedTuple):
    """Which kernels run here."""

    instruction_sets: tuple[str, ...]  # the best first; empty without native kernels
    reason: str  # why there are none


def status() -> Status:
    """Whether the native kernels are installed, and what they use of this processor."""
    if native is None:
        return Status((), f"no compiled kernels ({_reason}): install again with a C++ compiler")
    return Status(tuple(native.instruction_sets()), "")


def log_sum_exp(x: Float, first: int = 0) -> Float:
    """As `reference.log_sum_exp`, of the columns from `first` on."""
    if native is None:
        return reference.log_sum_exp(x[:, first:])
    total: Float = native.log_sum_exp(x, first)
    return total


def largest(x: Float, count: int) -> tuple[Float, NDArray[np.int64]]:
    """As `reference.largest`."""
    found: tuple[Float, NDArray[np.int64]] = (native or reference).largest(x, count)
    return found


# what lies between two matmuls of the NPU: compiled where there is a compiler
glue: Any = native.tiles if native is not None else tiles
