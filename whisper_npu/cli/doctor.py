"""whisper-npu doctor."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from whisper_npu.machine import Finding

_COLOURS = {"pass": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(
    *,
    device: Annotated[
        str, typer.Option(help="auto, cpu, or npu: then a machine without an NPU fails.")
    ] = "auto",
    model: Annotated[
        str | None, typer.Option(help="A model that must be on this machine.", metavar="NAME")
    ] = None,
    rknnrt: Annotated[
        Path | None, typer.Option(help="Where librknnrt.so is.", metavar="PATH")
    ] = None,
    emulate: Annotated[
        str | None,
        typer.Option(help="Try the emulated NPU of this chip instead: rk3588 or rk3566."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say whether this machine is ready, and how to mend what is not.

    Exits with 0 when nothing failed, 6 when the NPU failed, 5 when a model did.

    For example:

      whisper-npu doctor

      whisper-npu doctor --device npu --model base --json
    """
    from whisper_npu.doctor import diagnose
    from whisper_npu.errors import OptionError
    from whisper_npu.machine import Machine

    if device not in ("auto", "cpu", "npu"):
        raise OptionError(f"unknown device {device!r}: use auto, cpu or npu")
    report = diagnose(Machine(), device=device, model=model, library=rknnrt, emulate=emulate)
    if json:
        from json import dumps

        typer.echo(dumps(report.as_json(), indent=2))
        raise typer.Exit(report.exit_code)
    for finding in report.rest:
        _show(finding)
    for finding in report.npu:
        _show(finding)
    typer.echo(f"\n{report.verdict}")
    raise typer.Exit(report.exit_code)


def _show(finding: Finding) -> None:
    status = typer.style(f"{finding.status:<4}", fg=_COLOURS[finding.status])
    typer.echo(f"{status}  {finding.name:<12} {finding.message}")
    if finding.fix:
        typer.echo(f"{'':<19}-> {finding.fix}")
