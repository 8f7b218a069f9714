"""python -m whisper_npu.rknpu.probe LIBRARY CHIP CORE < cases: a trial, in a process of its own.

Each shape is multiplied three times as a window does it: in native orders, weights through a view
of memory that was written once, results in memory of their own, other operands every time; and
compared with numpy. It prints what it begins and what came out, and crashes like the library does.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.errors import DeviceError, DeviceFault, WhisperNpuError
from whisper_npu.rknpu import tiling
from whisper_npu.rknpu.cores import Cores
from whisper_npu.rknpu.librknnrt import Library
from whisper_npu.rknpu.soc import SOCS
from whisper_npu.rknpu.trials import MARK, WORKS, Case

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_npu.rknpu.librknnrt import Memory

    Array = NDArray[Any]

WINDOWS = 3
# largest difference, over the largest value; float16 has 11 bits, and sums are float32
_LIMITS = {"fp16": 2e-3, "to fp16": 4e-3, "int8": 0.0}
_OFFSET = 4096  # of the weights in their memory: a view begins on a page


def main(library: Path, chip: str, core: int, cases: list[Case]) -> None:
    """Try the cases in order."""
    with closing(Cores(Library(library), SOCS[chip], 1, [core])) as cores:
        _say("version", *cores.version())
        for i, case in enumerate(cases):
            _say("begin", i)
            try:
                found = difference(cores, case)
            except DeviceError as error:
                outcome = str(error)
            else:
                wrong = found > _LIMITS["to fp16" if case.to_fp16 else case.precision]
                outcome = f"wrong numbers (off by {found:.1e})" if wrong else WORKS
            _say("end", i, outcome)


def difference(cores: Cores, case: Case) -> float:
    """The largest difference over the largest value, in the worst window. Raises DeviceError."""
    if case.to_fp16 and cores.fp16_strip is None:
        raise DeviceFault("the library has no matmul from float16 to float16")
    rng = np.random.default_rng(case.m + case.k + case.n)
    order = cores.soc.orders[case.precision]
    strip = cores.fp16_strip if case.to_fp16 else tiling.C_STRIP
    assert strip is not None  # noqa: S101  looked at above
    out = np.dtype(np.float16 if case.to_fp16 else np.int32 if case.is_whole else np.float32)
    memories: list[Memory] = []

    def memory(size: int) -> Memory:
        memories.append(cores.memory(size))
        memories[-1].array[:] = 0
        memories[-1].sync_to_device()
        return memories[-1]

    try:
        b = _noise(rng, case, (case.n, case.k))
        right = tiling.tile_weight(b, order.b, b.shape, cores.soc.k_segment).view(np.uint8).ravel()
        arena = memory(_OFFSET + right.size)
        arena.array[_OFFSET:] = right
        arena.sync_to_device()
        view = cores.view(arena, _OFFSET, right.size)
        memories.append(view)
        left = memory(case.m * case.k * b.itemsize)
        result = memory(case.m * case.n * out.itemsize)
        worst = 0.0
        for _ in range(WINDOWS):
            a = _left(rng, case)
            left.array[:] = tiling.tile(a, order.a).view(np.uint8).ravel()
            operands = left, arena if case.is_runtime else view, result
            if case.is_runtime:  # made anew in each window, as keys and values are
                operands = left, _fresh(memory, right), result
            cores.multiply(
                (case.m, case.k, case.n), case.precision, operands,
                fresh="ab" if case.is_runtime else "a", to_fp16=case.to_fp16,
            )  # fmt: skip
            values = result.array.view(out).reshape(case.n // strip, case.m, strip)
            worst = max(worst, _error(tiling.untile(values, case.n), a, b))
        return worst
    finally:
        for each in reversed(memories):
            each.close()


def _fresh(memory: Any, right: Array) -> Memory:
    made: Memory = memory(right.size)
    made.array[:] = right
    return made


def _noise(rng: np.random.Generator, case: Case, shape: tuple[int, int]) -> Array:
    if case.is_whole:
        return rng.integers(-127, 128, shape, np.int8)
    return rng.standard_normal(shape, np.float32).astype(np.float16)


def _left(rng: np.random.Generator, case: Case) -> Array:
    """A: noise, or weights of a softmax over such noise, normalised or not."""
    if case.operand == "noise":
        return _noise(rng, case, (case.m, case.k))
    scores = 2 * rng.standard_normal((case.m, case.k), np.float32)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    if case.operand == "shares":
        weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float16)


def _error(actual: Array, a: Array, b: Array) -> float:
    if not np.isfinite(actual).all():
        return float("inf")
    expected = a.astype(np.float32) @ b.astype(np.float32).T
    if a.dtype == np.int8:  # exact: sums of products of int8 fit the 24 bits of float32 up to here
        expected = a.astype(np.int32) @ b.astype(np.int32).T
    largest = max(float(np.abs(expected).max()), 1e-30)
    return float(np.abs(actual.astype(np.float64) - expected).max()) / largest


def _say(*words: object) -> None:
    print(MARK, json.dumps(words), flush=True)  # noqa: T201  its only output


if __name__ == "__main__":
    try:
        main(
            Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]),
            [Case(**each) for each in json.load(sys.stdin)],
        )  # fmt: skip
    except WhisperNpuError as error:
        sys.exit(str(error))
