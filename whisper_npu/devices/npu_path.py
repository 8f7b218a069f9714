"""The two ways over the NPU: layer by layer, or the encoder as one compiled graph.

Which is faster depends on the chip and on its library. Where both are possible, and neither is
asked for, each encodes one window here and the faster one is taken; the times are kept.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whisper_npu import cache
from whisper_npu.devices.cpu import open_cpu
from whisper_npu.devices.graph import GraphOptions, open_graph_device
from whisper_npu.devices.npu import NpuDevice
from whisper_npu.errors import DeviceError, OptionError

if TYPE_CHECKING:
    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.device import Device
    from whisper_npu.options import DeviceOptions

_log = logging.getLogger(__name__)


def open_npu(checkpoint: Checkpoint, options: DeviceOptions) -> Device:
    """Open the NPU by the way asked for, or the faster one.

    Raises OptionError for a way that cannot be emulated, DeviceError when none can be taken.
    """
    if options.emulate is not None:
        if options.npu_path == "graph":
            raise OptionError(
                "a graph cannot be emulated: npu_path must be layers", "npu_path", "emulate"
            )
        return NpuDevice(checkpoint, options)
    if options.npu_path == "graph":
        return _open_graph(checkpoint, options)
    layers = NpuDevice(checkpoint, options)
    if options.npu_path == "layers":
        return layers
    try:
        graph = _open_graph(checkpoint, options)
    except DeviceError as error:
        _log.info("the NPU runs layer by layer: %s", error)
        return layers
    return _faster(checkpoint, layers, graph, options)


def _open_graph(checkpoint: Checkpoint, options: DeviceOptions) -> Device:
    decoder = open_cpu(checkpoint, precision=options.precision, threads=options.threads)
    precision = "fp16" if options.npu_precision == "auto" else options.npu_precision
    chosen = GraphOptions(precision, options.npu_cores, options.share, options.short_windows)
    try:
        return open_graph_device(checkpoint, decoder, chosen, Path("/"))
    except DeviceError:
        decoder.close()
        raise


def _faster(
    checkpoint: Checkpoint, layers: Device, graph: Device, options: DeviceOptions
) -> Device:
    seconds = [_window_seconds(checkpoint, device, options) for device in (layers, graph)]
    _log.info(
        "one window, measured here: %s %.0f ms, %s %.0f ms",
        layers.info.name, 1e3 * seconds[0], graph.info.name, 1e3 * seconds[1],
    )  # fmt: skip
    taken, other = (graph, layers) if seconds[1] < seconds[0] else (layers, graph)
    other.close()
    return taken


def _window_seconds(checkpoint: Checkpoint, device: Device, options: DeviceOptions) -> float:
    """The time of encoding 30 s: the better of two runs after one to warm up, measured once."""
    path = cache.folder() / "npu-path.json"
    info, n_workers = device.info, options.share[1]
    way = f"{info.kind} {info.chip} {info.precision} {options.npu_cores} {n_workers}"
    key = f"{checkpoint.fingerprint} {way}"
    known = cache.remembered(path)
    if key not in known:
        mel = np.ones((checkpoint.dims.n_mels, 3000), np.float32)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            device.encode(mel)
            times.append(time.perf_counter() - start)
        known[key] = min(times[1:])
        cache.remember(path, known)
    return known[key]
