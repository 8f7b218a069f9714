"""Which layer runs where: NPU or CPU for each shape of layer, from times measured or modelled.

On a board the times are measured when a model is first opened there, and kept. Where the NPU is
emulated they come from the model of the chip in `rknpu.soc`, and every line says *modelled*.
What both ways have in common (softmax, GELU, layer norm) is not compared.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu import cache
from whisper_npu.machine import Machine
from whisper_npu.model import Conv
from whisper_npu.rknpu import clocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisper_npu.checkpoint import Dimensions
    from whisper_npu.devices.npu.weights import Entry, Image
    from whisper_npu.rknpu.cores import Cores
    from whisper_npu.rknpu.librknnrt import Memory
    from whisper_npu.rknpu.soc import Precision, Soc

_WARM_UP = 0.5  # seconds: longer than a governor takes to raise a clock


@dataclass(frozen=True)
class Work:
    """The matmuls of one layer: `count` calls of (M, K) x (K, N), shared out over the cores."""

    m: int
    k: int
    n: int
    precision: Precision
    count: int
    half: bool = False  # the result is float16


@dataclass(frozen=True)
class Step:
    """One shape of layer, and the time of one such layer on either side."""

    name: str
    n_layers: int
    npu_seconds: float
    cpu_seconds: float

    @property
    def on_npu(self) -> bool:
        return self.npu_seconds <= self.cpu_seconds


@dataclass(frozen=True)
class Plan:
    """The decision for every layer of a model."""

    title: str  # chip, precision, and where the times come from
    steps: tuple[Step, ...]
    step_of: dict[str, Step]  # layer's name -> its step; "attention" for all attention
    glue_seconds: float  # modelled: softmax, GELU, layer norm and tiles on the chip's own cores

    def on_npu(self, layer: str) -> bool:
        return self.step_of[layer].on_npu

    @property
    def npu_seconds(self) -> float:
        """Of the layers that run there, for one window."""
        return sum(step.n_layers * step.npu_seconds for step in self.steps if step.on_npu)

    @property
    def cpu_seconds(self) -> float:
        """Of the layers that run there, for one window."""
        return sum(step.n_layers * step.cpu_seconds for step in self.steps if not step.on_npu)

    @property
    def window_seconds(self) -> float:
        """All of encoding one window."""
        return self.npu_seconds + self.cpu_seconds + self.glue_seconds

    def lines(self) -> list[str]:
        """For people."""
        rows = [f"{self.title}", f"{'layer':24}{'layers':>7}{'NPU ms':>9}{'CPU ms':>9}  runs on"]
        for step in self.steps:
            place = "NPU" if step.on_npu else "CPU"
            npu, cpu = 1e3 * step.npu_seconds, 1e3 * step.cpu_seconds
            rows.append(f"{step.name:24}{step.n_layers:7}{npu:9.2f}{cpu:9.2f}  {place}")
        rows.append(
            f"one window: NPU {1e3 * self.npu_seconds:.0f} ms, CPU layers "
            f"{1e3 * self.cpu_seconds:.0f} ms, between layers {1e3 * self.glue_seconds:.0f} ms "
            f"(modelled): {1e3 * self.window_seconds:.0f} ms"
        )
        return rows


def modelled(image: Image, dims: Dimensions, *, half: bool = True) -> Plan:
    """From the model of the chip.

    half  attention's scores leave the NPU as float16
    """
    soc = image.soc

    def npu(works: list[Work]) -> float:
        return sum(_npu_model(soc, work) for work in works)

    def cpu(works: list[Work]) -> float:
        return sum(2.0 * w.m * w.k * w.n * w.count for w in works) / soc.cpu_operations

    return _plan(
        image, dims, f"plan for emulated {soc.name}, {image.precision}, modelled", npu, cpu,
        half=half,
    )  # fmt: skip


def measured(image: Image, dims: Dimensions, cores: Cores, machine: Machine | None = None) -> Plan:
    """From times taken on this machine, once for each shape of layer, library and clock.

    The NPU works for a while first: clocks that idle are slow, and the times are kept.
    """
    machine, half = machine or Machine(), cores.half_strip is not None
    version = cores.version()[0].split()[0]
    path = cache.folder() / f"plan-{image.soc.name}-{version}.json"
    known = cache.remembered(path)
    bench = _Bench(cores)
    bench.warm_up(_attention(image.soc, dims, half=half)[1])
    now = clocks.megahertz(machine)
    clock = ", ".join(f"{name} {now[name]} MHz" for name in ("NPU", "memory") if name in now)

    def time_of(where: str, run: Callable[[Work], None], works: list[Work]) -> float:
        keys = [f"{where} {clock} {json.dumps(asdict(work))}" for work in works]
        for key, work in zip(keys, works, strict=True):
            if key not in known:
                known[key] = min(_seconds(run, work) for _ in range(3))
        return sum(known[key] for key in keys)

    try:
        plan = _plan(
            image, dims,
            f"plan for {image.soc.name}, {image.precision}, measured with librknnrt {version}"
            + (f", {clock}" if clock else ""),
            lambda works: time_of(f"npu x {cores.n_cores}", bench.npu, works),
            lambda works: time_of("cpu", bench.cpu, works),
            half=half,
        )  # fmt: skip
        cache.remember(path, known)
    finally:
        bench.close()
    return plan


def _plan(  # noqa: PLR0913  both sides, and what they are asked
    image: Image, dims: Dimensions, title: str,
    npu: Callable[[list[Work]], float], cpu: Callable[[list[Work]], float], *, half: bool,
) -> Plan:  # fmt: skip
    works: dict[str, list[Work]] = {}
    layers: dict[str, list[str]] = {}  # of each step
    for name, entry in image.entries.items():
        work = _work(entry, dims)
        kind = "conv" if isinstance(entry.layer, Conv) else "linear"
        label = f"{kind} {work.m}x{work.k}x{work.n} {work.precision}"
        works[label] = [work]
        layers.setdefault(label, []).append(name)
    works["attention"] = _attention(image.soc, dims, half=half)
    layers["attention"] = ["attention"] * dims.n_audio_layer
    steps = {
        label: Step(label, len(names), npu(works[label]), cpu(works[label]))
        for label, names in layers.items()
    }
    step_of = {name: steps[label] for label, names in layers.items() for name in names}
    glue_seconds = _glue_elements(dims) * image.soc.glue_seconds
    return Plan(title, tuple(steps.values()), step_of, glue_seconds)


def _work(entry: Entry, dims: Dimensions) -> Work:
    m = 2 * dims.n_audio_ctx if entry.layer.name.endswith("conv1") else dims.n_audio_ctx
    return Work(m, entry.k, entry.n, entry.precision, 1)


def _attention(soc: Soc, dims: Dimensions, *, half: bool) -> list[Work]:
    width, n_keys = (
        dims.n_audio_state // dims.n_audio_head,
        soc.orders["fp16"].padded_k(dims.n_audio_ctx),
    )
    return [
        Work(dims.n_audio_ctx, width, n_keys, "fp16", dims.n_audio_head, half=half),
        Work(dims.n_audio_ctx, n_keys, width, "fp16", dims.n_audio_head),
    ]


def _glue_elements(dims: Dimensions) -> float:
    """How many numbers pass through the CPU between matmuls, for one window."""
    rows, width, layers = dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_layer
    scores = dims.n_audio_head * rows * rows
    # two norms, query, key, value, mixed, two residuals, and GELU on four widths
    others = 12 * rows * width
    ends = 3 * 3 * rows * width + 2 * dims.n_text_layer * rows * width  # convolutions, K/V
    return layers * (scores + others) + ends


def _npu_model(soc: Soc, work: Work) -> float:
    """A layer with several calls shares them out; one with one call is split by outputs."""
    if work.count > 1 or soc.cores == 1:
        c_bytes = 2 if work.half else 4
        one = soc.matmul_seconds(work.m, work.k, work.n, work.precision, c_bytes)
        return work.count * one / soc.cores_speedup
    part = soc.matmul_seconds(work.m, work.k, -(-work.n // soc.cores), work.precision, 4)
    return soc.cores * part / soc.cores_speedup


class _Bench:
    """Runs a layer's matmuls on either side, on meaningless operands."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._memory: dict[str, Memory] = {}

    def npu(self, work: Work) -> None:
        parts = self._cores.n_cores if work.count == 1 else 1
        align = self._cores.soc.orders[work.precision].align_n
        n = max(work.n // parts // align, 1) * align
        width = 1 if work.precision == "int8" else 2
        a = self._operand("a", work.m * work.k * width)
        b = self._operand("b", work.k * n * width)
        c = [self._operand(f"c{i}", work.m * n * 4, i) for i in range(self._cores.n_threads)]

        def run(i: int) -> None:
            shape = work.m, work.k, n
            self._cores.multiply(shape, work.precision, (a, b, c[i % len(c)]), half=work.half)

        self._cores.each(run, range(work.count * parts))

    def warm_up(self, work: Work) -> None:
        end = time.perf_counter() + _WARM_UP
        while time.perf_counter() < end:
            self.npu(work)

    def cpu(self, work: Work) -> None:
        a, b = np.ones((work.m, work.k), np.float32), np.ones((work.k, work.n), np.float32)
        for _ in range(work.count):
            a @ b

    def _operand(self, role: str, size: int, thread: int = 0) -> Memory:
        known = self._memory.get(role)
        if known is None or known.size < size:
            self._memory[role] = self._cores.memory(size, thread)
        return self._memory[role]

    def close(self) -> None:
        for memory in self._memory.values():
            memory.close()


def _seconds(run: Callable[[Work], None], work: Work) -> float:
    start = time.perf_counter()
    run(work)
    return time.perf_counter() - start
