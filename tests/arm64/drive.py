"""Runs inside an arm64 Debian: our `graphs.runtime` through the vendor's RKNNLite and a stand-in.

    drive.py FOLDER N_CORES N_RUNS

Prints "ok" for each run whose results are right, or the class and the text of our error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from whisper_npu.errors import DeviceError
from whisper_npu.graphs.runtime import Graph


def check(outputs: dict[str, np.ndarray], mel: np.ndarray) -> None:
    for k, (name, output) in enumerate(outputs.items()):
        expected = np.resize(mel.ravel(), output.size).reshape(output.shape) + np.float32(k)
        np.testing.assert_array_equal(output, expected, err_msg=name)


def main(folder: Path, n_cores: int, n_runs: int) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    shape = manifest["inputs"]["mel"][1:]
    random = np.random.default_rng(0)
    try:
        graph = Graph(folder, manifest, cores=tuple(range(n_cores)) if n_cores > 1 else ())
    except DeviceError as error:
        print(f"open: {type(error).__name__}: {error}")
        return
    for _ in range(n_runs):
        mel = random.random(shape, np.float32)
        try:
            check(graph.run(mel), mel)
            print("ok")
        except DeviceError as error:
            print(f"run: {type(error).__name__}: {error}")
    try:
        graph.run(mel[:, :-1])
    except DeviceError as error:
        print(f"size: {type(error).__name__}: {error}")
    graph.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
