"""The NPU by whole graphs: the encoder in one vendor graph, the decoder on the CPU."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from whisper_npu.devices.device import DeviceInfo, padded
from whisper_npu.errors import DeviceError
from whisper_npu.features import FRAMES_PER_SECOND
from whisper_npu.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.device import DecodingDevice, Observer, Session
    from whisper_npu.rknpu.soc import Soc

    Float = NDArray[np.float32]

FULL_WINDOW = 30  # seconds
SHORTER_WINDOWS = (10, 20)


class Runs(Protocol):
    """What runs a compiled encoder: `graphs.runtime.Graph` on a board, a simulator in tests."""

    def run(self, mel: Float) -> Mapping[str, Float]: ...

    def close(self) -> None: ...


class GraphDevice:
    """A `Device`.

    graphs  seconds -> the graph for windows of that length; 30 always
    cpu     the device of the same model that decodes
    info    of the graphs; `info` of this device tells the decoder's precision, too

    With graphs shorter than 30 s, a window that holds less speech goes through the shortest that
    holds it. That is an approximation: Whisper's encoder attends to the padding as well.
    """

    def __init__(self, graphs: Mapping[int, Runs], cpu: DecodingDevice, info: DeviceInfo) -> None:
        self.info = replace(
            info,
            name=f"{info.name}, decoder on {cpu.info.name}",
            decoder_precision=cpu.info.decoder_precision,
        )
        self._graphs = dict(sorted(graphs.items()))
        self._cpu = cpu
        self._door = threading.Lock()  # a graph runs one window at a time

    def encode(self, mel: Float, *, observe: Observer | None = None) -> Any:
        """As `Device`; of the layers, only the cross-attention's are to be seen."""
        seconds = self._window(mel)
        n_frames = seconds * FRAMES_PER_SECOND
        with self._door:
            outputs = self._graphs[seconds].run(padded(mel[:, :n_frames], n_frames))
            n_layers = len(outputs) // 2
            pairs = [(outputs[f"key_{i}"], outputs[f"value_{i}"]) for i in range(n_layers)]
            if observe:
                for i, (key, value) in enumerate(pairs):
                    observe(f"model.decoder.layers.{i}.encoder_attn.k_proj", key)
                    observe(f"model.decoder.layers.{i}.encoder_attn.v_proj", value)
            return self._cpu.keep(pairs)

    def _window(self, mel: Float) -> int:
        """The shortest that holds all frames before the padding of zeros."""
        content = np.flatnonzero(mel.any(axis=0))
        n_frames = int(content[-1]) + 1 if len(content) else 0
        return next(s for s in self._graphs if s * FRAMES_PER_SECOND >= n_frames)

    def session(self, encoded: Any, *, beams: int = 1, align: bool = False) -> Session:
        return self._cpu.session(encoded, beams=beams, align=align)

    def close(self) -> None:
        for graph in self._graphs.values():
            graph.close()
        self._cpu.close()


@dataclass(frozen=True)
class GraphOptions:
    """Which graphs, on what."""

    precision: str = "fp16"  # or int8
    n_cores: int = 1
    share: tuple[int, int] = (0, 1)  # which worker, of how many: each gets a core of its own
    short_windows: bool = False  # also those for 10 and 20 s, which must have been compiled


def open_graph_device(
    checkpoint: Checkpoint, cpu: DecodingDevice, options: GraphOptions, root: Path
) -> GraphDevice:
    """Open the compiled graphs of a model on this board.

    root  of the file system, another folder in tests

    Raises DeviceError with the fix: not compiled, another chip, no library.
    """
    from whisper_npu.graphs.recipe import Recipe, find_graph
    from whisper_npu.graphs.runtime import Graph
    from whisper_npu.rknpu.soc import detect

    soc = detect(root)
    if soc is None:
        raise DeviceError("no graph can run here: this is no Rockchip board we know")
    cores = _cores(options, soc, root)
    graphs: dict[int, Runs] = {}
    try:
        for seconds in (FULL_WINDOW, *(SHORTER_WINDOWS if options.short_windows else ())):
            recipe = Recipe(soc.name, options.precision, seconds)
            folder, manifest = find_graph(checkpoint, recipe)
            graphs[seconds] = Graph(folder, manifest, cores=cores, root=root)
    except DeviceError:
        for graph in graphs.values():
            graph.close()
        raise
    name = f"npu graph {options.precision} ({soc.name}, {options.n_cores} cores)"
    return GraphDevice(graphs, cpu, DeviceInfo(name, "graph", options.precision, "", soc.name))


def _cores(options: GraphOptions, soc: Soc, root: Path) -> tuple[int, ...]:
    """Which cores; none: the vendor's library takes one that is free."""
    from whisper_npu.graphs.runtime import LIBRARY
    from whisper_npu.rknpu.trials import Board, usable

    number, of = options.share
    if not 1 <= options.n_cores <= soc.cores:
        raise DeviceError(f"{soc.name} has {soc.cores} NPU cores, {options.n_cores} were asked for")
    if soc.cores == 1 or options.n_cores == of == 1:
        return ()
    working = usable(Board(soc, root / LIBRARY, Machine(root)))
    if options.n_cores > len(working):
        raise DeviceError(f"{options.n_cores} NPU cores were asked for, {len(working)} work")
    if options.n_cores > 1:
        return working[: options.n_cores]
    return (working[number % len(working)],)
