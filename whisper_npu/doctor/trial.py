"""The NPU computes, in a process of its own -> findings, each with what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper_npu.devices.npu.weights import Image
from whisper_npu.devices.trial import tried
from whisper_npu.errors import DeviceError
from whisper_npu.machine import Finding
from whisper_npu.model import Whisper
from whisper_npu.rknpu import trials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.devices.trial import Verdict
    from whisper_npu.rknpu.soc import Precision
    from whisper_npu.rknpu.trials import Board

_PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
_DMESG = "look at dmesg for RKNPU, update kernel and librknnrt, and reboot"


def examine(board: Board, checkpoint: Checkpoint | None) -> list[Finding]:
    """Try the shapes of a model in float16 and int8; None: there is none to try."""
    if checkpoint is None:
        message = "no model is here whose shapes could be tried"
        return [Finding("trial", "warn", message, "whisper-npu models pull base")]
    model, findings, n_cases = Whisper(checkpoint), [], 0
    for precision in _PRECISIONS:
        try:
            verdict = tried(Image(model, board.soc, precision), board)
        except DeviceError as error:
            return [Finding("trial", "fail", str(error), _DMESG)]
        n_cases += verdict.n_cases
        findings += [each for each in _follows(verdict, precision) if each not in findings]
    cores = f"{len(verdict.cores)} cores" if len(verdict.cores) > 1 else "one core"
    said = f"{n_cases} products on {cores} against numpy, float16 and int8"
    if not findings:
        return [Finding("trial", "pass", f"{said}: all right")]
    return [Finding("trial", "pass", f"{said}; what went wrong is left out"), *findings]


def _follows(verdict: Verdict, precision: Precision) -> Iterator[Finding]:
    again = f"update librknnrt and the kernel; rm {trials.notes()} to try again"
    for core, reason in verdict.left_out.items():
        message = f"core {core} is left out, at {reason}"
        yield Finding("trial, cores", "warn", message, again)
    if not verdict.to_fp16:
        message = "no results of float16: attention's scores are float32, which is slower"
        yield Finding("trial, scores", "warn", message, again)
    if verdict.normalise:
        message = "softmax weights are right only when normalised, which is slower"
        yield Finding("trial, softmax", "warn", message, again)
    if verdict.refused:
        names = list(verdict.refused)
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        reason = verdict.refused[names[0]]
        message = f"{precision} {names[0]}{others}: {reason}; they run on the CPU"
        yield Finding("trial, layers", "warn", message, again)
