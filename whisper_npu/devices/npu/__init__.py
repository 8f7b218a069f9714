"""The NPU device: encoder and cross-attention projections on the NPU, the decoder on the CPU.

With `emulate` it runs on the emulated library and says so in its name.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_npu.devices.cpu import open_cpu
from whisper_npu.devices.device import DeviceInfo, padded
from whisper_npu.devices.npu.activations import Stream, read
from whisper_npu.devices.npu.ops import NpuOps
from whisper_npu.devices.npu.residence import Residence
from whisper_npu.devices.npu.weights import Image, cached, precision_named
from whisper_npu.devices.observed import Observed
from whisper_npu.devices.plan import Plan, measured, modelled
from whisper_npu.devices.trial import Verdict, in_order, tried
from whisper_npu.errors import DeviceError
from whisper_npu.machine import Machine
from whisper_npu.model import Whisper, cross_keys_values, encode
from whisper_npu.rknpu import emulator, tiling
from whisper_npu.rknpu.board import obstacle
from whisper_npu.rknpu.cores import Cores
from whisper_npu.rknpu.librknnrt import Library, find_library
from whisper_npu.rknpu.soc import SOCS, Soc, detect
from whisper_npu.rknpu.trials import Board
from whisper_npu.stages import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.device import Observer, Session
    from whisper_npu.options import DeviceOptions

    Float = NDArray[np.float32]


class NpuDevice:
    """A `Device`. Raises DeviceError when there is no usable NPU."""

    def __init__(self, checkpoint: Checkpoint, options: DeviceOptions) -> None:
        precision = precision_named(options.npu_precision)
        soc, library = find_npu(options)
        self._model = Whisper(checkpoint)
        self.library, self.soc = library, soc
        image = Image(self._model, soc, precision)
        n_threads = -(-min(4, len(os.sched_getaffinity(0))) // options.share[1])
        found = _trusted(image, library, options)
        self._lock = threading.Lock()
        self._cores = Cores(library, soc, n_threads, found.cores, to_fp16=found.to_fp16)
        try:
            found = replace(found, to_fp16=self._cores.fp16_strip is not None)
            self.plan = self._make_plan(image, found)
            self._ops = self._load(image)
            self._decoder = open_cpu(
                checkpoint, precision=options.precision, threads=options.threads
            )
        except BaseException:
            self._cores.close()
            raise
        self.info = self._describe(precision)

    def _describe(self, precision: str) -> DeviceInfo:
        emulated = self.library.is_emulated
        return DeviceInfo(
            f"npu {precision} ({'emulated ' if emulated else ''}{self.soc.name})",
            "npu",
            precision,
            self._decoder.info.decoder_precision,
            self.soc.name,
            "emulated" if emulated else "measured",
            tuple(self.plan.lines()),
        )

    def _make_plan(self, image: Image, found: Verdict) -> Plan:
        if self.library.is_emulated:
            return modelled(image, self._model.dims, found)
        return measured(image, self._model.dims, self._cores, found)

    def _load(self, image: Image) -> NpuOps:
        """Weights into the NPU's memory."""
        weights = cached(image, self._model.checkpoint)
        tiles = Residence(self._cores, image, weights["tiles"])
        return NpuOps(self._cores, image, tiles, weights["floats"], self.plan)

    @stage("encoder")
    def encode(self, mel: Float, *, observe: Observer | None = None) -> Any:
        with self._lock:
            pairs = self.keys_values(mel, observe)
            with stage("K/V"):
                return self._decoder.keep(pairs)

    def keys_values(self, mel: Float, observe: Observer | None = None) -> list[tuple[Float, Float]]:
        """What the NPU makes of a window: keys and values (C, D) float32 for each decoder layer.

        They are good until the next window.
        """
        ops: Any = Observed(self._ops, read, observe) if observe else self._ops
        mel = padded(mel, 2 * self._model.dims.n_audio_ctx)  # shapes are set when it is opened
        strips = mel.reshape(-1, tiling.C_STRIP, mel.shape[1])
        frames = Stream(np.ascontiguousarray(strips.transpose(0, 2, 1)))
        features = encode(self._model, ops, frames)
        with stage("K/V"):
            return cross_keys_values(self._model, ops, features)

    def session(self, encoded: Any, *, beams: int = 1, align: bool = False) -> Session:
        return self._decoder.session(encoded, beams=beams, align=align)

    def close(self) -> None:
        self._cores.close()
        self._decoder.close()


def _trusted(image: Image, library: Library, options: DeviceOptions) -> Verdict:
    """What the trial found; the emulated NPU is taken as it is."""
    if not library.is_emulated:
        return tried(image, Board(image.soc, library.path), options.share)
    found = in_order(image.soc)
    return replace(found, cores=tuple(options.mine(found.cores)))


def find_npu(options: DeviceOptions, root: Path = Path("/")) -> tuple[Soc, Library]:
    """The chip and the library to talk to it. Raises DeviceError saying what is missing."""
    if options.emulate is not None:
        library = Library(emulator.library(options.emulate))
        return SOCS[options.emulate], library
    soc = detect(root)
    if soc is None:
        raise DeviceError(
            f"no NPU here: this is none of the Rockchip chips {', '.join(SOCS)}; "
            "use --device cpu, or --emulate rk3588 to try"
        )
    given = Path(options.rknnrt) if options.rknnrt else None
    library = Library(find_library(given))
    if not library.is_emulated and (reason := obstacle(Machine(root))):
        raise DeviceError(f"the NPU cannot be used: {reason}")
    return soc, library
