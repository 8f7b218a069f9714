"""What a stranger runs once on a board and sends: everything that is worth knowing, in one file.

Each part stands for itself: what goes wrong in one is told there, and the others are made. The file
is written again after each, so that a crash of the vendor's library leaves what came before it.
Nothing of the person is in it: no paths, names or serial numbers.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_npu import probe
from whisper_npu.audio import open_audio
from whisper_npu.comparison import GREEDY
from whisper_npu.comparison.layers import layer_errors, outputs
from whisper_npu.devices.npu.weights import Image
from whisper_npu.devices.opening import open_device
from whisper_npu.devices.plan import modelled
from whisper_npu.errors import WhisperNpuError
from whisper_npu.features import log_mel
from whisper_npu.model import Whisper
from whisper_npu.options import DeviceOptions
from whisper_npu.rknpu import clocks, emulator, trials
from whisper_npu.rknpu.librknnrt import find_library, library_version
from whisper_npu.rknpu.soc import SOCS, detect
from whisper_npu.sample_recordings import RECORDINGS, SAMPLES
from whisper_npu.transcribe import Model
from whisper_npu.writers import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.device import Device
    from whisper_npu.doctor import Diagnosis
    from whisper_npu.machine import Machine
    from whisper_npu.rknpu.soc import Precision, Soc

REPEATS = 3
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
_EVERY = 10.0  # seconds between two looks at clocks and temperature


@dataclass(frozen=True)
class Subject:
    """What is surveyed, with what."""

    machine: Machine
    checkpoint: Checkpoint
    library: Path | None = None  # librknnrt.so, where it is not in a usual place
    emulate: str | None = None  # a chip whose emulated NPU takes the place of this machine's
    load_seconds: float = 300.0

    @property
    def soc(self) -> Soc | None:
        return SOCS[self.emulate] if self.emulate else detect(self.machine.root)

    @property
    def library_path(self) -> Path:
        if self.emulate:
            return emulator.library(self.emulate)
        return find_library(self.library, self.machine.root)

    def npu(self, precision: str, path: str = "layers") -> DeviceOptions:
        given = str(self.library) if self.library else None
        return DeviceOptions(
            "npu", "f32", npu_precision=precision, npu_path=path, emulate=self.emulate, rknnrt=given
        )

    @property
    def devices(self) -> dict[str, DeviceOptions]:
        found = {"cpu f32": DeviceOptions("cpu", "f32"), "cpu int8": DeviceOptions("cpu", "int8")}
        if self.soc is not None:
            found |= {f"npu {precision}": self.npu(precision) for precision in PRECISIONS}
            if not self.emulate:
                found["npu graph"] = self.npu("fp16", "graph")
        return found


def survey(
    subject: Subject, diagnosis: Diagnosis, file: Path, say: Callable[[str], object]
) -> dict[str, Any]:
    """Look, measure, and write after each part. Raises OutputError.

    file  the JSON
    say   hears what is being done
    """
    parts: dict[str, Callable[[], Any]] = {
        "machine": lambda: _machine(subject),
        "findings": lambda: diagnosis.as_json()["findings"],
        "trial": lambda: _trial(subject),
        "layers": lambda: _layers(subject),
        "shapes": lambda: _shapes(subject),
        "devices": lambda: [_device(subject, name) for name in subject.devices],
        "load": lambda: _load(subject),
    }
    found: dict[str, Any] = {
        "format": 1,
        "whisper_npu": _version(),
        "origin": "emulated" if subject.emulate else "measured",
        "model": re.split(r"[/\\]", subject.checkpoint.name)[-1],
    }
    for name, part in parts.items():
        say(f"report: {name}")
        try:
            found[name] = part()
        except WhisperNpuError as error:
            found[name] = {"problem": str(error)}
        found = json.loads(without_person(json.dumps(found), subject.machine))
        write(file, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def without_person(text: str, machine: Machine) -> str:
    """Without this person's folders, names and serial numbers, wherever they slipped in."""
    serials = [
        machine.text(place) for place in ("proc/device-tree/serial-number", "etc/machine-id")
    ]
    names = [str(Path.home()), os.environ.get("USER", ""), platform.node(), *serials]
    for name in sorted(filter(None, names), key=len, reverse=True):
        if len(name) > 3:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "...", text)
    # a path says where somebody keeps things, unless it belongs to the system
    return re.sub(r"(?<![\w.:/])/(?!usr/|dev/|sys/|proc/|lib)(?:[^\s/\"',;:]+/)+", ".../", text)


def _version() -> str:
    try:
        return version("whisper-npu")
    except PackageNotFoundError:
        return "from the source"


def _machine(subject: Subject) -> dict[str, Any]:
    machine, memory = subject.machine, subject.machine.memory()
    return {
        "name": probe.name(),
        "chip": subject.soc.name if subject.soc else None,
        "kernel": machine.text("proc/sys/kernel/osrelease"),
        "driver": next(filter(None, map(machine.text, _DRIVERS)), ""),
        "library": library_version(subject.library_path) if not subject.emulate else "emulated",
        "memory_bytes": memory[1] if memory else None,
        "clocks_mhz": clocks.megahertz(machine),
        "celsius": machine.celsius(),
        "container": machine.is_container,
    }


_DRIVERS = ("sys/kernel/debug/rknpu/version", "proc/rknpu/version", "sys/module/rknpu/version")


def _trial(subject: Subject) -> dict[str, dict[str, str]]:
    """What is kept of it: `doctor.trial` has made it."""
    if subject.soc is None:
        return {}
    board = trials.Board(subject.soc, subject.library_path, subject.machine)
    return {f"core {core}": board.known(core) for core in range(subject.soc.cores)}


def _mel(subject: Subject) -> Any:
    with open_audio(SAMPLES / RECORDINGS[0]) as opened:
        return log_mel(opened.blocks, subject.checkpoint.dims.n_mels).window(0)


def _layers(subject: Subject) -> dict[str, list[dict[str, Any]]]:
    """Error of each layer of the NPU against the CPU in float32."""
    if subject.soc is None:
        return {}
    mel = _mel(subject)
    with closing(open_device(subject.checkpoint, subject.devices["cpu f32"])) as device:
        expected = outputs(device, mel)
    found: dict[str, list[dict[str, Any]]] = {}
    for precision in PRECISIONS:
        with closing(open_device(subject.checkpoint, subject.npu(precision))) as device:
            errors = layer_errors(expected, device, mel)
        found[precision] = [
            {"name": each.name, "relative": _finite(each.relative)} for each in errors
        ]
    return found


def _shapes(subject: Subject) -> list[dict[str, Any]]:
    """Time of each shape beside the model's."""
    if subject.soc is None:
        return []
    found = []
    for precision in PRECISIONS:
        image = Image(Whisper(subject.checkpoint), subject.soc, precision)
        model = {step.name: step for step in modelled(image, subject.checkpoint.dims).steps}
        with closing(open_device(subject.checkpoint, subject.npu(precision))) as device:
            steps = getattr(device, "plan").steps  # noqa: B009  an NPU has one
        for step in steps:
            best, worst = (
                1e3 * factor * model[step.name].npu_seconds for factor in subject.soc.products
            )
            found.append({
                "precision": precision, "shape": step.name, "layers": step.n_layers,
                "npu_ms": None if subject.emulate else _finite(1e3 * step.npu_seconds),
                "modelled_ms": [best, worst], "cpu_ms": 1e3 * step.cpu_seconds,
                "runs_on": "NPU" if step.on_npu else "CPU",
            })  # fmt: skip
    return found


def _device(subject: Subject, name: str) -> dict[str, Any]:
    """Time of a window, and what is heard in the samples."""
    try:
        device = open_device(subject.checkpoint, subject.devices[name])
        with Model(subject.checkpoint, device) as model:
            times = _windows(device, _mel(subject))
            heard = {
                sample: model.transcribe(SAMPLES / sample, GREEDY).text.strip()
                for sample in RECORDINGS
            }
            info = device.info
    except WhisperNpuError as error:
        return {"device": name, "problem": str(error)}
    return {
        "device": name, "name": info.name, "origin": info.origin, "window_ms": min(times),
        "transcripts": heard,
    }  # fmt: skip


def _windows(device: Device, mel: Any) -> list[float]:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        device.encode(mel)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _load(subject: Subject) -> dict[str, Any]:
    """Windows without a pause, with clocks and temperature."""
    options = subject.npu("fp16") if subject.soc else subject.devices["cpu int8"]
    mel, looks, n_windows = _mel(subject), [], 0
    with closing(open_device(subject.checkpoint, options)) as device:
        start = last = time.monotonic()
        while True:
            device.encode(mel)
            n_windows += 1
            now = time.monotonic()
            if now - last >= _EVERY or now - start >= subject.load_seconds or n_windows == 1:
                last = now
                looks.append({
                    "seconds": round(now - start, 1), "windows": n_windows,
                    "celsius": subject.machine.celsius(),
                    "clocks_mhz": clocks.megahertz(subject.machine),
                })  # fmt: skip
            if now - start >= subject.load_seconds:
                return {"device": device.info.name, "origin": device.info.origin, "looks": looks}


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def survey_files(given: Path) -> tuple[Path, Path]:
    """The JSON and the page, beside each other, from the name of either."""
    stem = given.with_suffix("") if given.suffix in (".json", ".html") else given
    return stem.parent / f"{stem.name}.json", stem.parent / f"{stem.name}.html"
