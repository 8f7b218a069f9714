"""whisper-npu doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from whisper_npu.cli.flags import taking_options
from whisper_npu.cli.options import AsJson, say
from whisper_npu.options.diagnosis import DoctorOptions  # noqa: TC001  read when it runs

if TYPE_CHECKING:
    from whisper_npu.doctor import Diagnosis


@taking_options
def doctor(*, options: DoctorOptions, json: AsJson = False) -> None:
    """Say whether this machine is ready, and how to mend what is not.

    The exit code is 0 when nothing failed, 6 when the NPU failed, 5 when a model did.

    For example:

      whisper-npu doctor

      whisper-npu doctor --device npu --model base --json

      whisper-npu doctor --device npu --model base --report my-board
    """
    from whisper_npu.doctor import diagnose
    from whisper_npu.machine import Machine

    found = diagnose(
        Machine(),
        device=options.device,
        model=options.model,
        library=options.rknnrt,
        emulate=options.emulate,
    )
    if options.report is not None:
        _report(found, options)
    if json:
        from json import dumps

        typer.echo(dumps(found.as_json(), indent=2))
        raise typer.Exit(found.exit_code)
    from whisper_npu import terminal

    for finding in [*found.rest, *found.npu]:
        terminal.show_finding(finding, terminal.console())
    typer.echo(f"\n{found.verdict}")
    raise typer.Exit(found.exit_code)


def _report(found: Diagnosis, options: DoctorOptions) -> None:
    from whisper_npu import sources
    from whisper_npu.doctor.survey import Subject, survey, survey_files
    from whisper_npu.machine import Machine
    from whisper_npu.reports.board import board_page
    from whisper_npu.writers import write

    assert options.report is not None  # noqa: S101  looked at before
    data, page = survey_files(options.report)
    checkpoint = sources.open_checkpoint(options.model, offline=True)
    library, seconds = options.rknnrt, options.load_seconds
    subject = Subject(Machine(), checkpoint, library, options.emulate, seconds)
    write(page, board_page(survey(subject, found, data, say)))
    say(f"wrote {data} and {page}")
