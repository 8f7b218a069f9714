"""Which cores of this board's NPU work: each is tried once, in a process of its own.

Core 0 is taken for granted. Users met boards where the mask of another core made the vendor's
library crash, or stopped the whole machine. So it is written down that a core is being tried
before it is, and a note that nobody replaced after a reboot means: never again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from whisper_npu import cache
from whisper_npu.errors import DeviceFault, OutputError, warn_once
from whisper_npu.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisper_npu.rknpu.soc import Soc

WORKS, TRYING = "works", "the machine stopped when it was tried"
_PATIENCE = 60.0  # seconds for one small matmul

_log = logging.getLogger(__name__)


def notes() -> Path:
    """Where the outcomes are kept; without this file all cores are tried again."""
    return cache.folder() / "npu-cores.json"


def outcomes(soc: Soc, machine: Machine) -> dict[int, str]:
    """What is known of this board's cores: "works", or why a core is left out."""
    known = cache.remembered(notes()).get(_board(soc, machine))
    found = known if isinstance(known, dict) else {}
    return {core: str(found[str(core)]) for core in range(1, soc.cores) if str(core) in found}


def usable(soc: Soc, library: Path, machine: Machine | None = None) -> tuple[int, ...]:
    """Numbers of the cores to use, tried where that has not been done; says what is left out.

    Where the outcome cannot be kept, core 0 alone: a machine that stops would stop again.
    """
    machine = machine or Machine()
    if soc.cores == 1:
        return (0,)
    try:
        with _alone():
            for core in range(1, soc.cores):
                if core not in outcomes(soc, machine):
                    _keep(soc, machine, core, TRYING)
                    _keep(soc, machine, core, _outcome(library, core))
    except OutputError as error:
        _log.warning("using core 0 of the NPU alone, the others cannot be tried: %s", error)
        return (0,)
    found = outcomes(soc, machine)
    for core, outcome in found.items():
        if outcome != WORKS:
            again = f"to try again: rm {notes()}"
            warn_once(_log, f"core {core} of the NPU is left out: {outcome}; {again}")
    return (0, *(core for core, outcome in found.items() if outcome == WORKS))


def ask(library: Path, core: int | None) -> str:
    """Let a child process multiply on one core, and tell what answered.

    Raises DeviceFault when it fails, crashes, or does not come back.
    """
    command = [sys.executable, "-m", "whisper_npu.rknpu.probe", str(library)]
    if core is not None:
        command.append(str(core))
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        said, complaint = child.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        child.kill()  # and no waiting: the driver may hold it for ever
        reason = f"a small matmul did not come back within {_PATIENCE:.0f} s"
        raise DeviceFault(reason) from error
    if child.returncode == 0:
        return said.strip()
    lines = complaint.strip().splitlines()
    reason = lines[-1] if lines else f"ended with code {child.returncode}"
    raise DeviceFault(f"a small matmul failed: {reason}")


def _outcome(library: Path, core: int) -> str:
    try:
        ask(library, core)
    except DeviceFault as fault:
        return str(fault)
    return WORKS


def _board(soc: Soc, machine: Machine) -> str:
    """The cache may be shared by several boards."""
    serial = machine.text("proc/device-tree/serial-number") or machine.text("etc/machine-id")
    return f"{soc.name} {serial}".strip()


def _keep(soc: Soc, machine: Machine, core: int, outcome: str) -> None:
    """On the disk when it returns. Raises OutputError."""
    known, board = cache.remembered(notes()), _board(soc, machine)
    mine = known.get(board)
    known[board] = (mine if isinstance(mine, dict) else {}) | {str(core): outcome}
    with cache.replacing(notes()) as new:
        new.write_text(json.dumps(known, indent=1), encoding="utf-8")


@contextmanager
def _alone() -> Iterator[None]:
    """Others, who open the NPU at the same time, wait for the outcome. Raises OutputError."""
    path = notes().with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
