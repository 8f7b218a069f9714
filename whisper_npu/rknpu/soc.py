"""One table: chip -> tile shapes, alignments, cores and speeds of its NPU; and which chip this is.

Tile shapes and alignments are those the vendor's matmul interface documents; RK3588 float16 and
int8 are confirmed by other projects on hardware, the rest is not. Speeds feed the *model* of
device time (`plan`, the emulator) and nothing else. Those of RK3588 were measured by the authors of
unimatrix099/rk-llama.cpp (librknnrt 2.3.2, one board, pinned clocks): the start of a run, the
bandwidth, 4.9 ms for float16 2048x512x2048 and 7.5 ms for 2048x2048x512, 1.35 to 1.88 TOPS of int8,
softmax, synchronisation. Those of the other chips are inferred: nobody has published a time of the
matmul interface on RK3566, so a factor of three either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Precision = Literal["fp16", "int8"]

Band = tuple[float, float]  # at best, at worst

EFFICIENCY = {"fp16": 0.86, "int8": 0.79}  # share of the peak, in a large matmul
LONG_K, LONG_EFFICIENCY = 1536, 0.65  # beyond so many rows of B only this part of it
SYNC_SECONDS = 0.85e-3 / 33.6e6  # per byte: what the cache is asked to let go of


@dataclass(frozen=True)
class Order:
    """How A (M, K) and B (K, N) of one element type lie in NPU memory, in elements."""

    a: int  # A is (K / a, M, a)
    b: tuple[int, int]  # B is (N / n, K / k, n, k)
    align_k: int
    align_n: int
    operations: float  # per second and core at the top clock, two for each multiply-add

    def padded_k(self, k: int) -> int:
        return -(-k // self.align_k) * self.align_k

    def padded_n(self, n: int) -> int:
        return -(-n // self.align_n) * self.align_n


@dataclass(frozen=True)
class Soc:
    """One chip."""

    name: str
    compatible: tuple[str, ...]  # endings of device-tree names: "rockchip,rk3588s"
    cores: int
    orders: Mapping[Precision, Order]
    k_segment: int | None  # B with more rows than this is tiled segment by segment
    call_seconds: float  # overhead of one matmul call
    bandwidth: float  # bytes per second of one core
    cores_speedup: float  # of all cores busy against one
    cpu_operations: float  # per second, float32 matmul on all big cores
    cpu_bandwidth: Band  # bytes per second that the processor reads: the decoder waits for them
    products: Band  # what the modelled time of matmuls is to be multiplied by
    softmax_seconds: Band  # per score, all big cores
    glue_seconds: Band  # per other number that passes between two matmuls

    def matmul_seconds(self, m: int, k: int, n: int, precision: Precision, c_bytes: int) -> float:
        """Modelled time of one (M, K) x (K, N) matmul call on one core."""
        width = {"fp16": 2.0, "int8": 1.0}[precision]
        moved = (m * k + k * n) * width + m * n * c_bytes
        share = EFFICIENCY[precision] * (LONG_EFFICIENCY if k > LONG_K else 1)
        arithmetic = 2.0 * m * k * n / (share * self.orders[precision].operations)
        return self.call_seconds + max(arithmetic, moved / self.bandwidth)


_RK3588_ORDERS: Mapping[Precision, Order] = {
    "fp16": Order(8, (16, 32), 32, 16, 1.024e12),
    "int8": Order(16, (32, 32), 32, 32, 2.048e12),
}

SOCS: Mapping[str, Soc] = {
    soc.name: soc
    for soc in (
        Soc(
            "rk3588", ("rk3588", "rk3588s"), 3, _RK3588_ORDERS, 8192,
            call_seconds=33e-6, bandwidth=11.1e9, cores_speedup=2.4, cpu_operations=90e9,
            cpu_bandwidth=(22e9, 17e9), products=(0.85, 1.2),
            softmax_seconds=(1.3e-9, 2.0e-9),  # 1.3 to 1.6, and 24 % more beside the NPU's traffic
            glue_seconds=(0.5e-9, 1.0e-9),
        ),
        Soc(
            "rk3576", ("rk3576",), 2, _RK3588_ORDERS, 4096,
            call_seconds=172e-6, bandwidth=11.9e9, cores_speedup=1.58, cpu_operations=80e9,
            cpu_bandwidth=(17e9, 13e9), products=(0.67, 1.5),
            softmax_seconds=(1.4e-9, 2.2e-9), glue_seconds=(0.55e-9, 1.1e-9),
        ),
        Soc(
            "rk3566", ("rk3566", "rk3568"), 1,
            {"fp16": Order(4, (8, 16), 16, 8, 0.23e12), "int8": Order(8, (16, 32), 32, 16, 0.9e12)},
            None,
            call_seconds=300e-6, bandwidth=3.5e9, cores_speedup=1.0, cpu_operations=25e9,
            cpu_bandwidth=(4e9, 3e9), products=(1 / 3, 3),
            softmax_seconds=(1.9e-9, 17e-9), glue_seconds=(0.75e-9, 6.6e-9),
        ),
        Soc(
            "rk3562", ("rk3562",), 1,
            {"fp16": Order(8, (8, 32), 32, 8, 0.4e12), "int8": Order(16, (16, 32), 32, 16, 0.8e12)},
            None,
            call_seconds=300e-6, bandwidth=3.5e9, cores_speedup=1.0, cpu_operations=28e9,
            cpu_bandwidth=(4e9, 3e9), products=(1 / 3, 3),
            softmax_seconds=(1.9e-9, 17e-9), glue_seconds=(0.75e-9, 6.6e-9),
        ),
    )
}  # fmt: skip


def detect(root: Path) -> Soc | None:
    """Which chip this machine is, or None.

    root  the file system's root, another folder in tests

    Reads the device tree; in a container that hides it, the driver's node under /sys/class/drm.
    """
    return _named(_compatible(root)) or _named(_npu_node(root))


def _named(names: list[str]) -> Soc | None:
    chips = [name.split(",")[-1].split("-")[0] for name in names]
    return next((s for s in SOCS.values() if any(c in s.compatible for c in chips)), None)


def _compatible(root: Path) -> list[str]:
    try:
        text = (root / "proc/device-tree/compatible").read_bytes()
    except OSError:
        return []
    return [name.decode("ascii", "replace") for name in text.split(b"\0") if name]


def _npu_node(root: Path) -> list[str]:
    """What the device behind an rknpu DRM node is compatible with."""
    names = []
    for uevent in sorted(root.glob("sys/class/drm/*/device/uevent")):
        try:
            lines = uevent.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        if any(line.upper() == "DRIVER=RKNPU" for line in lines):
            names += [line.partition("=")[2] for line in lines if "OF_COMPATIBLE_" in line]
    return names
