"""A compiled encoder on the NPU, through the vendor's RKNNLite, and nothing it says believed.

RKNNLite checks neither the number nor the sizes of inputs, and returns the outputs of the run
before when a run fails: both are checked here (`echo`). Its messages are caught while a graph is
opened, since part of them would go to stdout, which is the transcript's.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu import cache
from whisper_npu.errors import DeviceError, DeviceFault
from whisper_npu.graphs.echo import N_ECHO, echo_bits, read_echo
from whisper_npu.graphs.recipe import GRAPH
from whisper_npu.rknpu.soc import detect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

    from numpy.typing import NDArray

    Float = NDArray[np.float32]

LIBRARY = "usr/lib/librknnrt.so"  # below the root; RKNNLite looks nowhere else
_CORE_MASKS = {
    (): "NPU_CORE_AUTO",
    (0,): "NPU_CORE_0",
    (1,): "NPU_CORE_1",
    (2,): "NPU_CORE_2",
    (0, 1): "NPU_CORE_0_1",
    (0, 1, 2): "NPU_CORE_0_1_2",
}

# part of what the vendor prints -> what it means and what to do
_CAUSES = {
    "PLATFORM_UNMATCH": "it was compiled for another chip: compile it with --target of this one",
    "Invalid RKNN model version": "/usr/lib/librknnrt.so is older than the graph: update it to "
    "{toolchain} or later",
    "DEVICE_UNAVAILABLE": "the NPU's driver cannot be opened: it needs a vendor kernel with rknpu, "
    "and access to /dev/dri (groups video and render)",
    "failed to open rknpu": "the NPU's driver cannot be opened: it needs a vendor kernel with "
    "rknpu, and access to /dev/dri (groups video and render)",
    "MODEL_INVALID": "/usr/lib/librknnrt.so does not accept the file: update it to {toolchain} or "
    "later",
    "undefined symbol": "/usr/lib/librknnrt.so is not the vendor's library, or a very old one: "
    "install {toolchain}",
    "specify the target": "the chip is hidden, as in a container: show it /proc/device-tree "
    "(docker run --security-opt systempaths=unconfined)",
}


class Graph:
    """One graph, loaded. Calls are taken one at a time: the vendor says nothing of threads.

    folder    of `recipe.find_graph`
    manifest  of the same
    cores     numbers, as the vendor can combine them; none: whichever is free. The vendor's
              measurements show little gain of several for one window
    root      the file system's root, another folder in tests

    Raises DeviceError with the fix: another chip, no library, one too old, a damaged file.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        cores: Sequence[int] = (),
        root: Path = Path("/"),
    ) -> None:
        self._inputs = manifest["inputs"]
        self._outputs = manifest["outputs"]
        self._path = folder / GRAPH
        self._lock = threading.Lock()
        self._number = secrets.randbits(N_ECHO)
        self._check_machine(manifest, cores, root)
        self._check_file(manifest)
        self._runtime = self._open(manifest, cores)

    def _check_machine(self, manifest: Mapping[str, Any], cores: Sequence[int], root: Path) -> None:
        soc = detect(root)
        if soc is None:
            raise DeviceError(f"{self._path} cannot run here: this is no Rockchip board we know")
        if soc.name != manifest["target"]:
            raise DeviceError(
                f"{self._path} is for {manifest['target']}, this board is {soc.name}: compile it "
                f"with --target {soc.name}"
            )
        if tuple(cores) not in _CORE_MASKS or max(cores, default=0) >= soc.cores:
            numbers = ", ".join(map(str, cores))
            raise DeviceError(
                f"graphs cannot run on the NPU cores {numbers} of {soc.name}, which has {soc.cores}"
            )
        if not (root / LIBRARY).exists():
            raise DeviceError(
                f"/{LIBRARY} is missing: install the vendor's runtime, {manifest['toolchain']} or "
                "later, from github.com/airockchip/rknn-toolkit2 (rknpu2/runtime)"
            )

    def _check_file(self, manifest: Mapping[str, Any]) -> None:
        try:
            digest = cache.sha256(self._path)
        except OSError as error:
            raise DeviceError(f"{self._path} cannot be read: {error.strerror}") from error
        if digest != manifest["sha256"]:
            raise DeviceError(f"{self._path} is damaged: copy it again, or compile it again")

    def _open(self, manifest: Mapping[str, Any], cores: Sequence[int]) -> Any:
        try:
            from rknnlite.api import RKNNLite
        except ImportError as error:
            raise DeviceError(
                "rknn-toolkit-lite2 is not installed: pip install rknn-toolkit-lite2 (aarch64, "
                "Python 3.12 at most)"
            ) from error
        with _captured() as said:
            runtime = RKNNLite()
            status = runtime.load_rknn(str(self._path))
            if status == 0:
                mask = getattr(RKNNLite, _CORE_MASKS[tuple(cores)])
                status = runtime.init_runtime(core_mask=mask)
            said.seek(0)
            words = said.read().decode(errors="replace")
        if status != 0:
            raise DeviceError(f"{self._path} cannot be opened: {_cause(words, manifest)}")
        return runtime

    def run(self, mel: Float) -> dict[str, Float]:
        """Encode one window.

        mel     (n_mels, F)  float32  F as compiled
        return  name -> (C, D) float32: key_0, value_0, key_1, ...

        Raises DeviceFault when the run failed, even where the vendor's library does not tell.
        """
        with self._lock:
            self._number = (self._number + 1) % (1 << N_ECHO)
            given = [mel[None], echo_bits(self._number)]
            for array, (name, shape) in zip(given, self._inputs.items(), strict=True):
                if list(array.shape) != shape:
                    raise DeviceFault(f"{self._path}: {name} is {array.shape}, not {shape}")
            back = self._runtime.inference(inputs=[np.ascontiguousarray(a) for a in given])
            return self._checked(back)

    def _checked(self, back: list[Float] | None) -> dict[str, Float]:
        shapes = list(self._outputs.values())
        if back is None or [list(array.shape) for array in back] != shapes:
            raise DeviceFault(f"{self._path}: the run gave {back and [a.shape for a in back]}")
        outputs = dict(zip(self._outputs, back, strict=True))
        echo = read_echo(outputs.pop("echoed"))
        if echo != self._number:
            raise DeviceFault(
                f"{self._path}: the run failed and the results are of an earlier one (echo {echo}, "
                f"not {self._number}); the kernel's log (dmesg) may tell why"
            )
        if not all(np.isfinite(array.sum()) for array in outputs.values()):
            raise DeviceFault(f"{self._path}: the results overflow float16: use --npu-path layers")
        return {name: array[0] for name, array in outputs.items()}

    def close(self) -> None:
        """Free the NPU's memory."""
        self._runtime.release()


def _cause(words: str, manifest: Mapping[str, Any]) -> str:
    for part, meaning in _CAUSES.items():
        if part in words:
            return meaning.format(toolchain=manifest["toolchain"])
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[-1] if lines else "the vendor's library gives no reason"


@contextmanager
def _captured() -> Iterator[BinaryIO]:
    """What C and Python code prints meanwhile, in a file; stdout and stderr stay clean."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield file
        finally:
            for descriptor, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)
