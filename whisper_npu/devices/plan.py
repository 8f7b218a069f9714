"""Which layer runs where: NPU or CPU for each shape of layer, from times measured or modelled.

On a board the times are measured when a model is first opened there, and kept. Where the NPU is
emulated they come from the model of the chip in `rknpu.soc`, and every line says *modelled*.
What both ways have in common (softmax, GELU, layer norm) is not compared. What is modelled is a
band, at best and at worst: nobody has run this program on a board.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import inf
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu import cache
from whisper_npu.devices.trial import Verdict, in_order
from whisper_npu.machine import Machine
from whisper_npu.model import ATTENTION, Conv
from whisper_npu.rknpu import clocks
from whisper_npu.rknpu.soc import SYNC_SECONDS

if TYPE_CHECKING:
    from whisper_npu.checkpoint import Dimensions
    from whisper_npu.devices.npu.weights import Image
    from whisper_npu.rknpu.cores import Cores
    from whisper_npu.rknpu.librknnrt import Memory
    from whisper_npu.rknpu.soc import Band, Precision, Soc

_WARM_UP = 0.5  # seconds: longer than a governor takes to raise a clock


@dataclass(frozen=True)
class Work:
    """The matmuls of one layer: (M, K) x (K, N) for each width N, shared out over the cores."""

    m: int
    k: int
    widths: tuple[int, ...]
    precision: Precision
    to_fp16: bool = False  # the result is float16


@dataclass(frozen=True)
class Step:
    """One shape of layer, and the time of one such layer on either side."""

    name: str
    n_layers: int
    npu_seconds: float
    cpu_seconds: float
    refused: str = ""  # why not on the NPU, whatever the times

    @property
    def on_npu(self) -> bool:
        return not self.refused and self.npu_seconds <= self.cpu_seconds


@dataclass(frozen=True)
class Plan:
    """The decision for every layer of a model."""

    title: str  # chip, precision, and where the times come from
    steps: tuple[Step, ...]
    step_of: dict[str, Step]  # layer's name -> its step; `ATTENTION` for every layer's
    between: Band  # modelled: softmax, GELU, layer norm, tiles and syncs on the chip's own cores
    spread: Band = (1, 1)  # of the products' time, where it is modelled
    normalise: bool = False  # softmax weights before the product with the values, not after it

    def on_npu(self, layer: str) -> bool:
        return self.step_of[layer].on_npu

    @property
    def npu_seconds(self) -> float:
        """Time of the layers that run on the NPU, for one window."""
        return sum(step.n_layers * step.npu_seconds for step in self.steps if step.on_npu)

    @property
    def cpu_seconds(self) -> float:
        """Time of the layers that run on the CPU, for one window."""
        return sum(step.n_layers * step.cpu_seconds for step in self.steps if not step.on_npu)

    @property
    def window_seconds(self) -> Band:
        """All of encoding one window."""
        best, worst = (
            factor * self.npu_seconds + self.cpu_seconds + between
            for factor, between in zip(self.spread, self.between, strict=True)
        )
        return best, worst

    def lines(self) -> list[str]:
        """For people."""
        rows = [f"{self.title}", f"{'layer':24}{'layers':>7}{'NPU ms':>9}{'CPU ms':>9}  runs on"]
        for step in self.steps:
            place = "NPU" if step.on_npu else "CPU"
            times = f"{1e3 * step.npu_seconds:9.2f}{1e3 * step.cpu_seconds:9.2f}"
            why = f" ({step.refused})" if step.refused else ""
            rows.append(f"{step.name:24}{step.n_layers:7}{times}  {place}{why}")
        npu = self.spread[0] * self.npu_seconds, self.spread[1] * self.npu_seconds
        rows.append(
            f"one window: NPU {_band(npu)}, CPU layers {1e3 * self.cpu_seconds:.0f} ms, between "
            f"layers {_band(self.between)} (modelled): {_band(self.window_seconds)}"
        )
        return rows


def _band(seconds: Band) -> str:
    best, worst = (f"{1e3 * each:.0f}" for each in seconds)
    return f"{best} ms" if best == worst else f"{best} to {worst} ms"


def modelled(image: Image, dims: Dimensions, found: Verdict | None = None) -> Plan:
    """From the model of the chip.

    found  by the trial; None: all is in order
    """
    soc, found = image.soc, found or in_order(image.soc)

    def npu(works: list[Work]) -> float:
        return sum(_npu_model(soc, work, len(found.cores)) for work in works)

    def cpu(works: list[Work]) -> float:
        return sum(2.0 * w.m * w.k * sum(w.widths) for w in works) / soc.cpu_operations

    title = f"plan for emulated {soc.name}, {image.precision}, modelled"
    return replace(_plan(image, dims, title, (npu, cpu), found), spread=soc.products)


def measured(
    image: Image, dims: Dimensions, cores: Cores, found: Verdict | None = None,
    machine: Machine | None = None,
) -> Plan:  # fmt: skip
    """From times taken on this machine, once for each shape of layer, library and clock.

    The NPU works for a while first: clocks that idle are slow, and the times are kept.

    found  by the trial: what it refused is not run; None: all is in order
    """
    machine, found = machine or Machine(), found or in_order(image.soc)
    version = cores.version()[0].split()[0]
    path = cache.folder() / f"plan-{image.soc.name}-{version}.json"
    known = cache.remembered(path)
    bench = _Bench(cores)
    bench.warm_up(_works(image, found)[ATTENTION][1])
    now = clocks.megahertz(machine)
    speeds = ", ".join(f"{name} {now[name]} MHz" for name in ("NPU", "memory") if name in now)

    def time_of(where: str, run: Callable[[Work], None], works: list[Work]) -> float:
        keys = [f"{where} {speeds} {json.dumps(asdict(work))}" for work in works]
        for key, work in zip(keys, works, strict=True):
            if key not in known:
                known[key] = min(_seconds(run, work) for _ in range(3))
        return sum(known[key] for key in keys)

    title = f"plan for {image.soc.name}, {image.precision}, measured with librknnrt {version}"
    sides = (
        lambda works: time_of(f"npu x {cores.n_cores}", bench.npu, works),
        lambda works: time_of("cpu", bench.cpu, works),
    )
    try:
        plan = _plan(image, dims, f"{title}, {speeds}" if speeds else title, sides, found)
        cache.remember(path, known)
    finally:
        bench.close()
    return plan


Side = Callable[[list[Work]], float]  # seconds of one layer


def _plan(
    image: Image, dims: Dimensions, title: str, sides: tuple[Side, Side], found: Verdict
) -> Plan:
    npu, cpu = sides
    works = _works(image, found)
    layers: dict[str, list[str]] = {}  # of each step
    for name, own in works.items():
        layers.setdefault(_label(image, name, own), []).append(name)
    steps: dict[str, Step] = {}
    for label, names in layers.items():
        count = dims.n_audio_layer if label == ATTENTION else len(names)
        refused = next((found.refused[name] for name in names if name in found.refused), "")
        npu_seconds = inf if refused else npu(works[names[0]])
        steps[label] = Step(label, count, npu_seconds, cpu(works[names[0]]), refused)
    step_of = {name: steps[label] for label, names in layers.items() for name in names}
    between = _between(image.soc, dims, works)
    return Plan(title, tuple(steps.values()), step_of, between, normalise=found.normalise)


def _works(image: Image, found: Verdict) -> dict[str, list[Work]]:
    """The matmuls of each layer, and of all heads of one attention."""
    works: dict[str, list[Work]] = {}
    for name, cases in image.cases(len(found.cores), to_fp16=found.to_fp16).items():
        if name == ATTENTION:
            works[name] = [
                Work(x.m, x.k, (x.n,) * image.n_heads, "fp16", to_fp16=x.to_fp16) for x in cases
            ]
        else:
            widths = tuple(case.n for case in cases)
            works[name] = [Work(cases[0].m, cases[0].k, widths, cases[0].precision)]
    return works


def _label(image: Image, name: str, works: list[Work]) -> str:
    if name == ATTENTION:
        return name
    kind = "conv" if isinstance(image.entries[name].layer, Conv) else "linear"
    work = works[0]
    return f"{kind} {work.m}x{work.k}x{sum(work.widths)} {work.precision}"


def _between(soc: Soc, dims: Dimensions, works: dict[str, list[Work]]) -> Band:
    """What passes through the processor's cores between matmuls, for one window."""
    rows, width, layers = dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_layer
    scores = layers * dims.n_audio_head * rows * rows
    # two norms, query, key, value, mixed, two residuals, and GELU on four widths
    others = layers * 12 * rows * width
    ends = 3 * 3 * rows * width + 2 * dims.n_text_layer * rows * width  # convolutions, K/V
    moved = sum(
        _moved(work) * (layers if name == ATTENTION else 1)
        for name, own in works.items()
        for work in own
    )
    best, worst = (
        scores * softmax + (others + ends) * glue + moved * SYNC_SECONDS
        for softmax, glue in zip(soc.softmax_seconds, soc.glue_seconds, strict=True)
    )
    return best, worst


def _moved(work: Work) -> int:
    """Bytes that are synchronised: operands made by the host, and results."""
    size, result = (1 if work.precision == "int8" else 2), (2 if work.to_fp16 else 4)
    n_a = len(work.widths) if len(set(work.widths)) == 1 else 1  # heads have operands of their own
    return n_a * work.m * work.k * size + work.m * sum(work.widths) * result


def _npu_model(soc: Soc, work: Work, n_cores: int) -> float:
    c_bytes = 2 if work.to_fp16 else 4
    one = (soc.matmul_seconds(work.m, work.k, n, work.precision, c_bytes) for n in work.widths)
    speedup = 1 + (soc.cores_speedup - 1) * (n_cores - 1) / max(soc.cores - 1, 1)
    return sum(one) / speedup


class _Bench:
    """Runs a layer's matmuls on either side, on meaningless operands."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._memory: dict[str, Memory] = {}

    def npu(self, work: Work) -> None:
        widest, width = max(work.widths), 1 if work.precision == "int8" else 2
        a = self._operand("a", work.m * work.k * width)
        b = self._operand("b", work.k * widest * width)
        c = [self._operand(f"c{i}", work.m * widest * 4, i) for i in range(self._cores.n_threads)]
        free: SimpleQueue[Memory] = SimpleQueue()
        for memory in c:
            free.put(memory)

        def run(n: int) -> None:
            own, shape = free.get(), (work.m, work.k, n)
            try:
                self._cores.multiply(shape, work.precision, (a, b, own), to_fp16=work.to_fp16)
            finally:
                free.put(own)

        self._cores.each(run, work.widths)

    def warm_up(self, work: Work) -> None:
        end = time.perf_counter() + _WARM_UP
        while time.perf_counter() < end:
            self.npu(work)

    def cpu(self, work: Work) -> None:
        a = np.ones((work.m, work.k), np.float32)
        for n in work.widths:
            a @ np.ones((work.k, n), np.float32)

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
