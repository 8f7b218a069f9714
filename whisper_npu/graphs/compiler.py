"""Serves the vendor's compiler and simulator to `toolchain`: a script for the toolchain's Python.

    python -I compiler.py LOG

One request a line on stdin, one answer a line on stdout, both JSON; whatever the vendor prints
goes to LOG. A request that fails answers {"error": ...} and the next one is served.
Imports nothing of whisper_npu: it runs where whisper_npu is not installed.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import sys
import time
import types
from typing import Any

import numpy as np


class _Absent(types.ModuleType):
    """A stand-in for torch: rknn-toolkit2 imports it but uses it for PyTorch models only."""

    __path__: list[str] = []  # noqa: RUF012  what makes a module a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # a base class, an annotation, or a decorator factory: all that the imports ask for
        return type(name, (), {"__call__": lambda _, decorated: decorated})


class _AbsentTorch(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `torch` and anything below it; saves 750 MB of environment and half the memory."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torch":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class Compiler:
    """One model at a time: built, exported, simulated."""

    def __init__(self) -> None:
        self._rknn: Any = None

    def version(self) -> dict[str, Any]:
        from importlib.metadata import version

        return {"version": version("rknn-toolkit2")}

    def build(
        self, *, onnx: str, target: str, dataset: str | None, rknn: str | None
    ) -> dict[str, Any]:
        """Compile an ONNX file; int8 when there is a calibration set; export when named."""
        from rknn.api import RKNN

        self._release()
        started = time.monotonic()
        model = RKNN(verbose=True)
        self._rknn = model
        check(model.config(target_platform=target), "config")
        check(model.load_onnx(model=onnx), "load_onnx")
        check(model.build(do_quantization=dataset is not None, dataset=dataset), "build")
        if rknn is not None:
            check(model.export_rknn(rknn), "export_rknn")
        seconds = time.monotonic() - started
        check(model.init_runtime(), "init_runtime")  # no target: the simulator
        return {"seconds": seconds, "peak_rss": peak_rss()}

    def simulate(self, *, inputs: str, outputs: str) -> dict[str, Any]:
        """Run the model that was built: .npz of inputs in their order -> .npz of outputs."""
        with np.load(inputs) as stored:
            arrays = [stored[name] for name in stored.files]
        started = time.monotonic()
        results = self._rknn.inference(inputs=arrays, data_format=None)
        if results is None:
            raise RuntimeError("the simulator returned nothing")
        seconds = time.monotonic() - started
        np.savez(outputs, *[np.asarray(r, np.float32) for r in results])
        return {"seconds": seconds, "peak_rss": peak_rss()}

    def _release(self) -> None:
        if self._rknn is not None:
            self._rknn.release()
            self._rknn = None


def check(status: int, call: str) -> None:
    """The vendor mostly raises, and sometimes returns -1."""
    if status != 0:
        raise RuntimeError(f"{call} returned {status}")


def peak_rss() -> int:
    """Bytes; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def answer(compiler: Compiler, request: dict[str, Any]) -> dict[str, Any]:
    call = getattr(compiler, request.pop("call"))
    try:
        result: dict[str, Any] = call(**request)
    # the vendor raises anything, SystemExit included; one failed build must not end the service
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}
    return result


def main(log: str) -> None:
    if importlib.util.find_spec("torch") is None:
        sys.meta_path.insert(0, _AbsentTorch())
    answers = os.fdopen(os.dup(1), "w")
    # append: each session adds to one log
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    compiler = Compiler()
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            print(json.dumps(answer(compiler, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
