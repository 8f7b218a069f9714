#!/usr/bin/env python3
"""Does a shorter encoder window change the text? Recordings in 10 s windows against 30 s ones.

    scripts/compare_windows.py MODEL RECORDING... [--seconds 10]

Both encoders are our float32 one, so that only the window differs. Prints what changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.devices.cpu import open_cpu
from whisper_npu.devices.device import DeviceInfo
from whisper_npu.devices.graph import GraphDevice
from whisper_npu.graphs.verification import reference_outputs
from whisper_npu.model import Whisper
from whisper_npu.options import TranscribeOptions
from whisper_npu.transcribe import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float = NDArray[np.float32]


class OurGraph:
    """A graph for any window, by our float32 encoder."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = Whisper(checkpoint)

    def run(self, mel: Float) -> dict[str, Float]:
        n_outputs = 2 * len(self._model.decoder_layers)
        outputs = list(reference_outputs(self._model, mel).items())[:n_outputs]
        return {name: value[0] for name, value in outputs}

    def close(self) -> None:
        pass


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("recordings", type=Path, nargs="+", help="shorter than 10 s")
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    checkpoint = Checkpoint(options.model)
    graph, info = OurGraph(checkpoint), DeviceInfo("ours", "graph", "f32", "")
    models = [
        Model(checkpoint, GraphDevice(graphs, open_cpu(checkpoint, precision="f32"), info))
        for graphs in ({30: graph}, {options.seconds: graph, 30: graph})
    ]
    greedy = TranscribeOptions(temperature=(0.0,), temperature_increment_on_fallback=None)
    n_changed = 0
    for recording in options.recordings:
        full, short = (model.transcribe(recording, greedy).text for model in models)
        if full != short:
            n_changed += 1
            print(f"{recording.name}: 30 s {full!r}, {options.seconds} s {short!r}")
    n_all = len(options.recordings)
    print(f"{n_changed} of {n_all} texts change with windows of {options.seconds} s")


if __name__ == "__main__":
    main()
