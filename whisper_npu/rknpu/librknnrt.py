"""The vendor's matmul runtime through ctypes: a path to the library -> contexts and memory.

The only module that knows ctypes. Sizes and offsets are facts of the binary interface, 2.1 and
later; the tests compare them with a C compiler's. What the numbers in memory mean is `tiling`.

Traps: a context belongs to one thread at a time (different contexts run concurrently, ctypes
releases the GIL); memory is cached, so the host's writes need `sync_to_device` and its reads
`sync_from_device`; A in the normal order is copied when it is bound, so bind again after writing;
a handle dies with the context that made it, so contexts close their handles first.
"""

from __future__ import annotations

import ctypes
import os
import re
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int8,
    c_int16,
    c_int32,
    c_int64,
    c_uint32,
    c_uint64,
    c_void_p,
)
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from whisper_npu.errors import DeviceError, DeviceFault

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from whisper_npu.rknpu.soc import Precision

ERRORS = {
    -1: "failed",
    -2: "timed out",
    -3: "device unavailable",
    -4: "no memory",
    -5: "invalid parameter",
    -6: "invalid model",
    -7: "invalid context",
    -8: "invalid input",
    -9: "invalid output",
    -10: "model and device do not match",
    -12: "incompatible optimisation level",
    -13: "model and platform do not match",
}
ENVIRONMENT = "WHISPER_NPU_RKNNRT"
UPGRADE = (
    "install librknnrt.so 2.3.2 (rknpu2/runtime/Linux/librknn_api/aarch64 of "
    "github.com/airockchip/rknn-toolkit2) as /usr/lib/librknnrt.so"
)
MOST_MEMORY = (1 << 31) - 1  # bytes in one piece
MAX_CONTEXTS = 127  # others met a limit between 150 and 193; each context and buffer costs an fd


class MatmulType(IntEnum):
    """Element types of A x B -> C."""

    F16_F16_F32 = 1
    I8_I8_I32 = 2
    F16_F16_F16 = 4


class Layout(IntEnum):
    """Order of an operand: as C programmers write it, or the NPU's own."""

    NORMAL = 0
    NATIVE = 1


class MatmulInfo(Structure):
    """What kind of matmul a context does; 64 bytes since 2.0, 24 in 1.6."""

    _fields_ = (
        ("m", c_int32), ("k", c_int32), ("n", c_int32), ("type", c_int32),
        ("b_layout", c_int16), ("b_quant_type", c_int16),
        ("ac_layout", c_int16), ("ac_quant_type", c_int16),
        ("iommu_domain_id", c_int32), ("group_size", c_int16), ("reserved", c_int8 * 34),
    )  # fmt: skip


class TensorAttr(Structure):
    """Shape, size and type of one operand, filled in by the library."""

    _fields_ = (
        ("name", c_char * 256), ("n_dims", c_uint32), ("dims", c_uint32 * 16),
        ("size", c_uint32), ("type", c_int32),
    )  # fmt: skip


class IoAttr(Structure):
    """The three operands of a context."""

    _fields_ = (("a", TensorAttr), ("b", TensorAttr), ("c", TensorAttr))


class TensorMem(Structure):
    """A handle on memory that the NPU can reach."""

    _fields_ = (
        ("virt_addr", c_void_p), ("phys_addr", c_uint64), ("fd", c_int32), ("offset", c_int32),
        ("size", c_uint32), ("flags", c_uint32), ("priv_data", c_void_p),
    )  # fmt: skip


class SdkVersion(Structure):
    """Versions of the library and of the kernel driver."""

    _fields_ = (("api", c_char * 256), ("driver", c_char * 256))


_CONTEXT = c_uint64
_MEM = POINTER(TensorMem)
_SDK_VERSION = 5
_TO_DEVICE, _FROM_DEVICE = 1, 2

# name -> what it returns, what it takes
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "rknn_matmul_create": (c_int, (POINTER(_CONTEXT), POINTER(MatmulInfo), POINTER(IoAttr))),
    "rknn_matmul_destroy": (c_int, (_CONTEXT,)),
    "rknn_matmul_run": (c_int, (_CONTEXT,)),
    "rknn_matmul_set_core_mask": (c_int, (_CONTEXT, c_int)),
    "rknn_matmul_set_io_mem": (c_int, (_CONTEXT, _MEM, POINTER(TensorAttr))),
    "rknn_query": (c_int, (_CONTEXT, c_int, c_void_p, c_uint32)),
    "rknn_create_mem": (_MEM, (_CONTEXT, c_uint32)),
    "rknn_create_mem_from_fd": (_MEM, (_CONTEXT, c_int32, c_void_p, c_uint32, c_int32)),
    "rknn_destroy_mem": (c_int, (_CONTEXT, _MEM)),
    "rknn_mem_sync": (c_int, (_CONTEXT, _MEM, c_int)),
    # five arguments since 2.1; in 2.0 the same name took seven, and calling it with the wrong
    # number corrupts memory silently: `Library` binds it only where 2.1 shows in the symbols
    "rknn_B_normal_layout_to_native_layout": (
        c_int, (c_void_p, c_void_p, c_int, c_int, POINTER(MatmulInfo)),
    ),
}  # fmt: skip
_SINCE_2_1 = "rknn_matmul_create_dynamic_shape"
_ONLY_2_0 = "rknn_matmul_create_dyn_shape"
_EMULATOR: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "emulator_set": (c_int, (c_char_p, c_int64)),
    "emulator_get": (c_double, (c_char_p,)),
    "emulator_reset": (None, ()),
    "emulator_fault": (c_int, (c_char_p, c_int64, c_int64, c_int)),
    "emulator_trigger": (c_int, (c_char_p, c_int32, c_int32, c_int32, c_int32)),
}


def _check(result: Any, function: Any, _arguments: Any) -> Any:
    """Errcheck of every function: a negative code or a null pointer becomes a DeviceFault."""
    name = function.__name__
    if function.restype is c_int and result < 0:
        raise DeviceFault(f"{name} failed: {ERRORS.get(result, 'unknown error')} (code {result})")
    if function.restype is _MEM and not result:
        raise DeviceFault(f"{name} failed: no memory (null)")
    return result


_PLACES = (  # below the root
    "usr/lib/librknnrt.so",
    "usr/lib/aarch64-linux-gnu/librknnrt.so",
    "usr/local/lib/librknnrt.so",
    "usr/lib64/librknnrt.so",
    "lib/librknnrt.so",
)


def find_library(path: Path | None = None, root: Path = Path("/")) -> Path:
    """Where librknnrt.so is, for those who load it and for those who look.

    The path given, the environment, the loader's LD_LIBRARY_PATH, the usual places; the first of
    these when it is nowhere. Raises DeviceError when what was named is not there.
    """
    named = path or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if named is not None:
        if not named.is_file():
            raise DeviceError(f"{named}: no such library; give the path of librknnrt.so")
        return named
    own = os.environ.get("LD_LIBRARY_PATH", "").split(":") if root == Path("/") else []
    places = [Path(folder) / "librknnrt.so" for folder in own if folder]
    places += [root / place for place in _PLACES]
    return next((place for place in places if place.is_file()), root / _PLACES[0])


def library_version(path: Path) -> str:
    """What a library says of itself in its file: "2.3.2"; "" when it says nothing."""
    try:
        found = re.search(rb"librknnrt version: (\d+\.\d+[\w.]*)", path.read_bytes())
    except OSError:
        return ""
    return found[1].decode() if found else ""


class Library:
    """An opened librknnrt. Raises DeviceError when it is missing, foreign or too old."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._dll: Any = ctypes.CDLL(str(path))
        except OSError as error:
            raise DeviceError(f"cannot load {path}: {error}; {UPGRADE}") from error
        self._refuse_old()
        for name, signature in _SIGNATURES.items():
            self._declare(name, *signature)
        self.is_emulated = hasattr(self._dll, "emulator_get")
        if self.is_emulated:
            for name, signature in _EMULATOR.items():
                self._declare(name, *signature)
        self.n_contexts = 0

    def _refuse_old(self) -> None:
        if not hasattr(self._dll, "rknn_matmul_create"):
            raise DeviceError(f"{self.path} has no matmul interface; {UPGRADE}")
        if not hasattr(self._dll, _SINCE_2_1) and not hasattr(self._dll, _ONLY_2_0):
            raise DeviceError(f"{self.path} is librknnrt 1.x, too old; {UPGRADE}")
        self._tiles_b = hasattr(self._dll, _SINCE_2_1)

    def _declare(self, name: str, result: Any, arguments: tuple[Any, ...]) -> None:
        try:
            function = getattr(self._dll, name)
        except AttributeError as error:
            raise DeviceError(f"{self.path} has no {name}; {UPGRADE}") from error
        function.restype, function.argtypes, function.errcheck = result, arguments, _check

    def matmul(
        self, shape: tuple[int, int, int], kind: MatmulType, *,
        core: int | None = None, layouts: tuple[Layout, Layout] = (Layout.NATIVE, Layout.NATIVE),
    ) -> Matmul:  # fmt: skip
        """A context for (M, K) x (K, N).

        core     pins it; chips with one core refuse that
        layouts  of A and C, and of B
        """
        return Matmul(self, MatmulInfo(*shape, kind, layouts[1], 0, layouts[0]), core)

    def tile_b(self, b: NDArray[Any], precision: Precision) -> NDArray[Any] | None:
        """B (K, N) in the library's own idea of the native order; None where it cannot be asked."""
        if not self._tiles_b:
            return None
        kind = MatmulType.I8_I8_I32 if precision == "int8" else MatmulType.F16_F16_F32
        k, n = b.shape
        info = MatmulInfo(m=1, k=k, n=n, type=kind, b_layout=Layout.NATIVE)
        source, tiles = np.ascontiguousarray(b), np.zeros(b.size, b.dtype)
        self._dll.rknn_B_normal_layout_to_native_layout(
            source.ctypes.data, tiles.ctypes.data, k, n, ctypes.byref(info)
        )
        return tiles

    def emulator_set(self, name: str, value: int) -> None:
        """A setting of the emulator; emulator/library.h has the list."""
        self._dll.emulator_set(name.encode(), value)

    def emulator_get(self, name: str) -> float:
        """A reading of the emulator; seconds0 is the modelled time of core 0."""
        return float(self._dll.emulator_get(name.encode()))

    def emulator_reset(self) -> None:
        """Counters to zero, faults and triggers forgotten."""
        self._dll.emulator_reset()

    def emulator_fault(self, function: str, nth: int, code: int, times: int = 1) -> None:
        """The nth call of a function from now on fails, `times` times (-1: for ever)."""
        self._dll.emulator_fault(function.encode(), nth, times, code)

    def emulator_trigger(self, action: str, shape: tuple[int, int, int], core: int = -1) -> None:
        """What runs of a shape do from now on: "abort", "hang" or "wrong".

        shape  M, K, N; 0 stands for any
        core   -1 for any
        """
        self._dll.emulator_trigger(action.encode(), *shape, core)


@final
class Matmul:
    """One matmul context, pinned to a core; a context manager. Owns the handles it makes."""

    def __init__(self, library: Library, info: MatmulInfo, core: int | None) -> None:
        self._dll = library._dll  # noqa: SLF001  the same module's
        self._library = library
        self._handle = _CONTEXT()
        self._attr = IoAttr()
        self._handles: set[Memory] = set()
        if library.n_contexts >= MAX_CONTEXTS:
            raise DeviceError(f"more than {MAX_CONTEXTS} matmul contexts: the plan needs too many")
        self._dll.rknn_matmul_create(self._handle, info, self._attr)
        library.n_contexts += 1
        self._open = True
        try:
            if core is not None:
                self._dll.rknn_matmul_set_core_mask(self._handle, 1 << core)
        except DeviceFault:
            self.close()
            raise

    def dims(self, operand: str) -> tuple[int, ...]:
        """Shape of "a", "b" or "c" in memory, as the library states it."""
        attr = getattr(self._attr, operand)
        return tuple(attr.dims[: attr.n_dims])

    def version(self) -> tuple[str, str]:
        """Versions of the library and of the kernel driver."""
        out = SdkVersion()
        self._dll.rknn_query(
            self._handle, _SDK_VERSION, ctypes.byref(out), ctypes.sizeof(SdkVersion)
        )
        return out.api.decode("utf-8", "replace"), out.driver.decode("utf-8", "replace")

    def memory(self, size: int) -> Memory:
        """New memory that the NPU can reach: below 2 GiB, since offsets in it have 32 bits."""
        if size > MOST_MEMORY:
            raise DeviceFault(f"{size} bytes of NPU memory are more than one piece may have")
        return Memory(self, self._dll.rknn_create_mem(self._handle, size), None)

    def slice(self, whole: Memory, offset: int, size: int) -> Memory:
        """Part of memory made by any context, as a handle of this one."""
        pointer = self._dll.rknn_create_mem_from_fd(
            self._handle, whole.fd, whole.base, size, whole.offset + offset
        )
        return Memory(self, pointer, whole.array[offset : offset + size])

    def bind(self, a: Memory, b: Memory, c: Memory) -> None:
        """What the next run reads and writes."""
        bind, attr = self._dll.rknn_matmul_set_io_mem, self._attr
        bind(self._handle, a.pointer, attr.a)
        bind(self._handle, b.pointer, attr.b)
        bind(self._handle, c.pointer, attr.c)

    def run(self) -> None:
        """C = A x B; returns when it is done."""
        self._dll.rknn_matmul_run(self._handle)

    def close(self) -> None:
        """Give back the handles, then the context; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        for memory in list(self._handles):
            memory.close()
        self._library.n_contexts -= 1
        self._dll.rknn_matmul_destroy(self._handle)

    def __enter__(self) -> Matmul:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


class Memory:
    """A handle on NPU memory; `array` is the same bytes for the host, uint8."""

    def __init__(self, owner: Matmul, pointer: Any, array: NDArray[np.uint8] | None) -> None:
        self._owner = owner
        self.pointer = pointer
        mem = pointer.contents
        self.fd, self.base, self.size = int(mem.fd), mem.virt_addr, int(mem.size)
        self.offset = 0
        if array is None:
            self.offset = int(mem.offset)
            raw: Any = (c_char * self.size).from_address(self.base + self.offset)
            array = np.frombuffer(raw, np.uint8)
        self.array: NDArray[np.uint8] = array
        owner._handles.add(self)  # noqa: SLF001  the same module's

    def sync_to_device(self) -> None:
        """What the host wrote becomes visible to the NPU."""
        self._sync(_TO_DEVICE)

    def sync_from_device(self) -> None:
        """What the NPU wrote becomes visible to the host."""
        self._sync(_FROM_DEVICE)

    def _sync(self, mode: int) -> None:
        owner = self._owner
        owner._dll.rknn_mem_sync(owner._handle, self.pointer, mode)  # noqa: SLF001

    def close(self) -> None:
        """Give the handle back; arrays over memory made by `memory` end with it."""
        owner = self._owner
        if self in owner._handles:  # noqa: SLF001
            owner._handles.remove(self)  # noqa: SLF001
            owner._dll.rknn_destroy_mem(owner._handle, self.pointer)  # noqa: SLF001
