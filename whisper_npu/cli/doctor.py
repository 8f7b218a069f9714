"""whisper-npu doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from whisper_npu.cli.flags import taking_options
from whisper_npu.cli.options import AsJson  # noqa: TC001  read when it runs
from whisper_npu.options.diagnosis import DoctorOptions  # noqa: TC001  read when it runs

if TYPE_CHECKING:
    from whisper_npu.machine import Finding

_COLOURS = {"pass": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


@taking_options
def doctor(*, options: DoctorOptions, json: AsJson = False) -> None:
    """Say whether this machine is ready, and how to mend what is not.

    The exit code is 0 when nothing failed, 6 when the NPU failed, 5 when a model did.

    For example:

      whisper-npu doctor

      whisper-npu doctor --device npu --model base --json
    """
    from whisper_npu.doctor import diagnose
    from whisper_npu.machine import Machine

    report = diagnose(
        Machine(),
        device=options.device,
        model=options.model,
        library=options.rknnrt,
        emulate=options.emulate,
    )
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
