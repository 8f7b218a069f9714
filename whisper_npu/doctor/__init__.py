"""Is this machine ready? A machine -> findings, each pass, warn or fail with the fix.

What can be seen of the NPU is found by `rknpu.board`, what it computes by `doctor.trial`; here is
the rest, and the verdict.
"""

from __future__ import annotations

import resource
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from whisper_npu import kernels, sources
from whisper_npu.catalogue import known, resolve
from whisper_npu.checkpoint import Checkpoint
from whisper_npu.doctor import trial
from whisper_npu.errors import DeviceError, ModelError, WhisperNpuError
from whisper_npu.graphs import readiness
from whisper_npu.machine import Finding, Machine
from whisper_npu.rknpu import board, emulator
from whisper_npu.rknpu.librknnrt import find_library
from whisper_npu.rknpu.soc import SOCS, detect
from whisper_npu.rknpu.trials import Board

if TYPE_CHECKING:
    from pathlib import Path

_PYTHONS = ((3, 10), (3, 13))
_HOT = 80.0  # degrees Celsius: boards slow down from about 85
_LITTLE_MEMORY = 600 << 20  # bytes: what base needs
_DESCRIPTORS = 1024


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was looked at."""

    npu: list[Finding]  # nothing when it was not asked for
    rest: list[Finding]
    emulated: bool = False

    @property
    def npu_ready(self) -> bool:
        return bool(self.npu) and not self._failed(self.npu)

    @property
    def exit_code(self) -> int:
        """0 when nothing failed, else that of the error which the failure leads to."""
        if self._failed(self.npu):
            return DeviceError.exit_code
        failed = self._failed(self.rest)
        if any(finding.name == "model" for finding in failed):
            return ModelError.exit_code
        return WhisperNpuError.exit_code if failed else 0

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        cpu = f"not ready, {n} to mend" if (n := len(self._failed(self.rest))) else "ready"
        npu = f"not ready, {n} to mend" if (n := len(self._failed(self.npu))) else "ready"
        if not self.npu:
            npu = "left out"
        elif len(self.npu) == 1 and self.npu_ready:
            npu = "none" if self.npu[0].status == "pass" else "unknown"
        return f"CPU: {cpu}. {'Emulated ' if self.emulated else ''}NPU: {npu}."

    @staticmethod
    def _failed(findings: list[Finding]) -> list[Finding]:
        return [finding for finding in findings if finding.status == "fail"]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        findings = [("npu", f) for f in self.npu] + [("rest", f) for f in self.rest]
        return {
            "npu_ready": self.npu_ready,
            "exit_code": self.exit_code,
            "findings": [
                {"about": about, "name": f.name, "status": f.status, "message": f.message}
                | ({"fix": f.fix} if f.fix else {})
                for about, f in findings
            ],
        }


def diagnose(
    machine: Machine, *, device: str = "auto", model: str | None = None,
    library: Path | None = None, emulate: str | None = None,
) -> Diagnosis:  # fmt: skip
    """Look at everything, and let the NPU compute where nothing speaks against it.

    device   auto: a machine without an NPU is in order; npu: it is not; cpu: the NPU is left out
    model    a model that must be on this machine; None: those that are
    library  librknnrt.so, where it is not in a usual place
    emulate  a chip, whose emulated NPU takes the place of this machine's
    Raises OptionError for a chip without an emulator.
    """
    rest = [
        _system(machine),
        _python(machine),
        _kernels(),
        _processor(machine),
        _memory(machine),
        _temperature(machine),
        _formats(machine),
        *_models(model),
    ]
    if device == "cpu":
        return Diagnosis([], [finding for finding in rest if finding])
    if emulate is not None:
        npu = _emulated(emulate, model)
        return Diagnosis(npu, [finding for finding in rest if finding], emulated=True)
    npu = board.examine(machine, library)
    soc = detect(machine.root)
    if soc and machine.is_this and all(finding.status != "fail" for finding in npu):
        npu += trial.examine(Board(soc, find_library(library), machine), _model_to_try(model))
    if detect(machine.root):
        rest += [readiness.examine(machine), _descriptors()]
    elif device == "auto":
        npu = [_without_npu(machine, npu[0])]
    return Diagnosis(npu, [finding for finding in rest if finding])


def _emulated(chip: str, model: str | None) -> list[Finding]:
    library = emulator.library(chip)
    seen = Finding("chip", "pass", f"emulated {chip}: nothing here says anything of a board")
    tested = Board(SOCS[chip], library)
    return [seen, *trial.examine(tested, _model_to_try(model))]


def _model_to_try(name: str | None) -> Checkpoint | None:
    """Whose shapes the NPU multiplies: the model asked for, or the default one; None: not here."""
    try:
        return sources.open_checkpoint(name, offline=True, say=lambda _: None)
    except ModelError:
        return None


def _without_npu(machine: Machine, chip: Finding) -> Finding:
    """No reason to fail, where nobody asked for one."""
    if board.is_hidden(machine):
        return replace(chip, status="warn")
    return replace(chip, status="pass", message=f"{chip.message}: the CPU does it all", fix="")


def _system(machine: Machine) -> Finding:
    release = machine.text("proc/sys/kernel/osrelease") or "unknown kernel"
    container = ", in a container" if machine.is_container else ""
    message = f"Linux {release}, {machine.architecture}{container}"
    if machine.architecture in ("aarch64", "x86_64"):
        return Finding("system", "pass", message)
    fix = "install a 64-bit system image: the packages we need are built for aarch64 and x86_64"
    return Finding("system", "fail", message, fix)


def _python(machine: Machine) -> Finding:
    version = ".".join(map(str, machine.python))
    if _PYTHONS[0] <= machine.python <= _PYTHONS[1]:
        return Finding("python", "pass", version)
    fix = "use Python 3.10 to 3.13"
    return Finding("python", "warn", f"{version}, which we have not been tested with", fix)


def _kernels() -> Finding:
    status = kernels.status()
    if status.instruction_sets:
        return Finding("native code", "pass", f"compiled, using {status.instruction_sets[0]}")
    message = "not compiled for this machine: numpy does their work, many times slower"
    fix = "sudo apt install g++ python3-dev, then install whisper-npu again"
    return Finding("native code", "warn", message, fix)


def _processor(machine: Machine) -> Finding | None:
    policies = machine.glob("sys/devices/system/cpu/cpufreq/policy*")
    if not policies:
        return None
    governors = sorted({machine.text(policy / "scaling_governor") for policy in policies})
    top = max(machine.number(policy / "cpuinfo_max_freq") for policy in policies) / 1e6  # GHz
    message = f"up to {top:.2f} GHz, governor {', '.join(governors)}"
    parked = "powersave" in governors and "pstate" not in machine.text(
        policies[0] / "scaling_driver"
    )  # with pstate drivers that name means what others call ondemand
    if not parked:
        return Finding("processor", "pass", message)
    fix = "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
    return Finding("processor", "warn", message, fix)


def _memory(machine: Machine) -> Finding | None:
    if (sizes := machine.memory()) is None:
        return None
    free, total = sizes
    message = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    if free >= _LITTLE_MEMORY:
        return Finding("memory", "pass", message)
    return Finding("memory", "warn", message, "close other programs, or use the model tiny")


def _temperature(machine: Machine) -> Finding | None:
    degrees = machine.celsius()
    if degrees is None:
        return None
    message = f"{degrees:.0f} °C at the hottest place"
    if degrees < _HOT:
        return Finding("temperature", "pass", message)
    fix = "cool the board: it slows down from about 85 °C"
    return Finding("temperature", "warn", message, fix)


def _formats(machine: Machine) -> Finding:
    if shutil.which("ffmpeg") or machine.version_of("av"):
        return Finding("formats", "pass", "everything ffmpeg reads")
    message = "wav, flac, ogg, opus, mp3 and others, but no m4a, mp4 or webm"
    return Finding("formats", "warn", message, "sudo apt install ffmpeg")


def _models(name: str | None) -> list[Finding]:
    """The model asked for, or all that are on this machine."""
    if name is not None:
        try:
            folder = sources.find(name, offline=True)
        except ModelError as error:
            message = str(error).partition(" and we are offline")[0]
            return [Finding("model", "fail", message, _way_to(name))]
        return [_damage(name, folder) or Finding("model", "pass", f"{name}, in {folder}")]
    found: list[str] = []
    damaged = []
    for model in known().values():
        try:
            here = sources.here(model)
        except WhisperNpuError as error:
            fix = f"whisper-npu models verify {model.name}"
            damaged.append(Finding("model", "fail", str(error), fix))
            continue
        if here and (damage := _damage(model.name, here)):
            damaged.append(damage)
        elif here:
            found.append(model.name)
    if damaged:
        return damaged
    if not found:
        message = "there is none on this machine"
        return [Finding("model", "warn", message, "whisper-npu models pull base")]
    return [Finding("model", "pass", ", ".join(found))]


def _way_to(name: str) -> str:
    """The command that brings a model, or that shows which there are."""
    try:
        resolve(name)
    except ModelError:
        return "whisper-npu models list"
    return f"whisper-npu models pull {name}"


def _damage(name: str, folder: Path) -> Finding | None:
    """What is seen without reading the weights; `whisper-npu models verify` reads them."""
    try:
        Checkpoint(folder)
    except ModelError as error:
        return Finding("model", "fail", str(error), f"whisper-npu models verify --repair {name}")
    return None


def _descriptors() -> Finding | None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit >= _DESCRIPTORS or limit == resource.RLIM_INFINITY:
        return None
    message = f"{limit} files may be open at once: too few for the buffers of the NPU"
    return Finding("open files", "warn", message, f"ulimit -n {4 * _DESCRIPTORS}")
