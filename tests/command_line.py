"""The command line, run in this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from whisper_npu.cli import main

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    code: int
    out: str
    err: str


class CommandLine(Protocol):
    """Arguments -> result; `whisper-npu` itself is not among them."""

    def __call__(self, *arguments: object) -> Result: ...


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """A command line whose output is captured."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["whisper-npu", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run
