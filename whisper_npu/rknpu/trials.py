"""What of this board's NPU can be relied on: each shape is tried once, in a process of its own.

Users met boards where the mask of another core made the vendor's library crash, or stopped the
whole machine; shapes that end the process; results that are wrong without an error. So a child
multiplies and compares, and it is written down that something is being tried before it is: a note
that nobody replaced after a reboot means never again. Kept by board, kernel and library.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from whisper_npu import cache
from whisper_npu.errors import OutputError
from whisper_npu.locks import locked
from whisper_npu.machine import Machine
from whisper_npu.messages import warn_once
from whisper_npu.rknpu import emulator
from whisper_npu.rknpu.librknnrt import library_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whisper_npu.rknpu.soc import Precision, Soc

WORKS, TRYING = "works", "the machine stopped when it was tried"
MARK = "trial:"  # before what the child says: the library talks, too
_PATIENCE = 60.0  # seconds for one shape
_CRASHES = 6  # of one core, after which the rest is not tried

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """A product (M, K) x (K, N) as a window makes it."""

    m: int
    k: int
    n: int
    precision: Precision = "fp16"
    to_fp16: bool = False  # the result is float16
    operand: Literal["noise", "weights", "shares"] = "noise"  # A: of a softmax, or normalised

    @property
    def is_whole(self) -> bool:
        """Whether it multiplies whole numbers."""
        return self.precision == "int8"

    @property
    def is_runtime(self) -> bool:
        """Whether B is made in each window: of attention."""
        return self.to_fp16 or self.operand != "noise"

    def __str__(self) -> str:
        kind = self.precision + (" to fp16" if self.to_fp16 else "")
        what = {"noise": "", "weights": ", softmax", "shares": ", softmax normalised"}[self.operand]
        return f"{self.m}x{self.k}x{self.n} {kind}{what}"


SMALL = Case(64, 64, 64)
Outcomes = dict[Case, str]  # WORKS, or what happened


def notes() -> Path:
    """Where the outcomes are kept; without this file all is tried again."""
    return cache.folder() / "npu-trials.json"


@dataclass(frozen=True)
class Board:
    """Where a trial takes place, and what is kept of it."""

    soc: Soc
    library: Path
    machine: Machine = field(default_factory=Machine)

    @property
    def key(self) -> str:
        """The cache may be shared by several boards; a new kernel or library may be better."""
        machine = self.machine
        serial = machine.text("proc/device-tree/serial-number") or machine.text("etc/machine-id")
        kernel = machine.text("proc/sys/kernel/osrelease")
        return ", ".join([f"{self.soc.name} {serial}".strip(), kernel, self._version])

    @cached_property
    def _version(self) -> str:
        """What the library tells, or else its length; of an emulated one also how it behaves."""
        try:
            told = library_version(self.library) or str(self.library.stat().st_size)
        except OSError:
            return "missing"
        return f"{told} {os.environ.get(emulator.MANNERS, '')}".strip()

    def known(self, core: int) -> dict[str, str]:
        """Outcomes of a core that are kept: case as text -> what came out."""
        mine = cache.remembered(notes()).get(self.key)
        found = mine.get(str(core)) if isinstance(mine, dict) else None
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def keep(self, core: int, outcomes: Outcomes) -> None:
        """On the disk when it returns. Raises OutputError."""
        kept, said = cache.remembered(notes()), {str(k): v for k, v in outcomes.items()}
        mine = kept.get(self.key)
        cores = mine if isinstance(mine, dict) else {}
        kept[self.key] = cores | {str(core): self.known(core) | said}
        cache.keep(notes(), kept)


def run(board: Board, cases: Sequence[Case]) -> list[Outcomes]:
    """Try on every core what has not been tried; the outcomes of each core.

    What core 0 does not do is not tried on the others. Where outcomes cannot be kept, core 0 alone
    is tried: a machine that stops would stop again.
    """
    found: list[Outcomes] = []
    for core in range(board.soc.cores):
        missed = {case: said for case, said in found[0].items() if said != WORKS} if found else {}
        try:
            # others, who open the NPU at the same time, wait for the outcome
            with locked(notes().with_suffix(".lock")):
                found.append(_tried(board, core, cases, missed))
        except OutputError as error:
            if found:
                _log.warning("using core 0 of the NPU alone, outcomes cannot be kept: %s", error)
                return found
            found.append(_ask(board, core, cases))
    return found


def usable(board: Board) -> tuple[int, ...]:
    """Numbers of the cores that can multiply at all, for those who bring shapes of their own."""
    if board.soc.cores == 1:
        return (0,)
    outcomes = run(board, [SMALL])
    tell(outcomes)
    return (0, *(core for core in range(1, len(outcomes)) if outcomes[core][SMALL] == WORKS))


def worse(outcomes: Sequence[Outcomes]) -> dict[int, str]:
    """Cores that do not do what core 0 does, and what came out there."""
    first = outcomes[0]
    found: dict[int, str] = {}
    for core in range(1, len(outcomes)):
        for case, said in outcomes[core].items():
            if said != WORKS and first[case] == WORKS:
                found.setdefault(core, f"{case}: {said}")
    return found


def tell(outcomes: Sequence[Outcomes]) -> None:
    """Warn, once, of cores that are left out."""
    for core, reason in worse(outcomes).items():
        again = f"to try again: rm {notes()}"
        warn_once(_log, f"core {core} of the NPU is left out: {reason}; {again}")


def _tried(board: Board, core: int, cases: Sequence[Case], missed: Outcomes) -> Outcomes:
    """The outcomes of one core. Raises OutputError.

    missed  cases that core 0 does not do
    """
    before = board.known(core)
    outcomes = missed | {case: before[str(case)] for case in cases if str(case) in before}
    missing = [case for case in cases if case not in outcomes]
    if missing:
        board.keep(core, dict.fromkeys(missing, TRYING))
        outcomes |= (new := _ask(board, core, missing))
        board.keep(core, new)
    return outcomes


def _ask(board: Board, core: int, cases: Sequence[Case]) -> Outcomes:
    """Child after child, until all cases are tried."""
    outcomes: Outcomes = {}
    for _ in range(_CRASHES):
        waiting = [case for case in cases if case not in outcomes]
        if not waiting:
            return outcomes
        outcomes |= _Child(board, core, waiting).listen()
    last = list(outcomes.values())[-1]
    return dict.fromkeys(cases, f"not tried after {last}") | outcomes


class _Child:
    """A process that tries cases until it ends, by itself or not."""

    def __init__(self, board: Board, core: int, cases: list[Case]) -> None:
        self._cases = cases
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115  closed by `listen`
        command = [sys.executable, "-m", "whisper_npu.rknpu.probe"]
        command += [str(board.library), board.soc.name, str(core)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaint
        )
        self._words: SimpleQueue[list[Any] | None] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  it is a pipe
        with self._process.stdout as lines:
            for line in lines:
                mark, _, words = line.decode("utf-8", "replace").partition(" ")
                if mark == MARK:
                    self._words.put(json.loads(words))
        self._words.put(None)

    def listen(self) -> Outcomes:
        """Outcomes up to its end, and what it ended on."""
        assert self._process.stdin is not None  # noqa: S101  it is a pipe
        outcomes: Outcomes = {}
        current = 0
        with self._complaint, self._process.stdin as pipe:
            with suppress(OSError):  # it may have ended already
                pipe.write(json.dumps([asdict(case) for case in self._cases]).encode())
                pipe.close()
            while len(outcomes) < len(self._cases):
                try:
                    words = self._words.get(timeout=_PATIENCE)
                except Empty:
                    self._process.kill()
                    with suppress(subprocess.TimeoutExpired):
                        self._process.wait(1.0)  # no longer: the driver may hold it for ever
                    reason = f"it did not come back within {_PATIENCE:.0f} s"
                    return outcomes | {self._cases[current]: reason}
                if words is None:
                    reason = self._end()
                    started = bool(outcomes) or current
                    ended = [self._cases[current]] if started else self._cases
                    return outcomes | dict.fromkeys(ended, reason)
                if words[0] == "begin":
                    current = words[1]
                elif words[0] == "end":
                    outcomes[self._cases[words[1]]] = words[2]
            self._process.wait()
        return outcomes

    def _end(self) -> str:
        code = self._process.wait()
        self._complaint.seek(0)
        lines = self._complaint.read().decode("utf-8", "replace").strip().splitlines()
        if code > 0 and lines:
            return lines[-1]
        return f"it ended the process (code {code})"
