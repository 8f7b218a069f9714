"""whisper-npu transcribe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # noqa: TC003  typer reads annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

from whisper_npu.cli.flags import taking_options
from whisper_npu.cli.options import Model, Offline, say
from whisper_npu.options import (  # noqa: TC001  typer reads annotations when it runs
    BatchOptions,
    DeviceOptions,
    InputOptions,
    RunOptions,
    ShowOptions,
    SubtitleOptions,
    TranscribeOptions,
)

if TYPE_CHECKING:
    from whisper_npu.batch import Batch


@taking_options
def transcribe(  # noqa: PLR0913  a parameter for each kind of option
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO...",
            help="Recordings, folders or patterns such as '*.mp3'; - is standard input.",
        ),
    ],
    *,
    model: Model = None,
    device: DeviceOptions,
    offline: Offline = False,
    batch: BatchOptions,
    search: InputOptions,
    run: RunOptions,
    show: ShowOptions,
    options: TranscribeOptions,
    subtitles: SubtitleOptions,
) -> None:
    """Turn speech into text.

    Whisper listens to a recording in windows of 30 seconds; several options below are about one
    such window. What is given here wins over environment variables such as WHISPER_NPU_BEAM_SIZE,
    and those over the configuration file (see whisper-npu config).

    For example:

      whisper-npu transcribe talk.mp3

      whisper-npu transcribe talk.mp3 -m base -f srt,json -o out

      whisper-npu transcribe recordings/ -r -o transcripts --report report.json

      arecord -f S16_LE -r 16000 -d 10 | whisper-npu transcribe -
    """
    from whisper_npu.cli.show import Show, form, tell_timings
    from whisper_npu.running import Request, Run

    batch = replace(batch, subtitles=subtitles)
    ready = Run(Request(inputs, model, device, options, search, batch, run, offline), say)
    shown = form(len(ready.recordings), batch, json=show.json, watch=run.watch)
    listener = Show(ready.recordings, shown, subtitles, live=ready.is_in_order)
    work = ready.batch(listener)
    try:
        ready.run(work)
    finally:
        listener.close()
        _conclude(work, run.report, written=batch.output_dir is not None)
        if show.timings:
            tell_timings(work.report)
    raise typer.Exit(work.report.exit_code)


def _conclude(batch: Batch, report: Path | None, *, written: bool) -> None:
    """Say what became of the recordings; of a single one, what stdout does not tell."""
    from whisper_npu.batch.report import FAILED, INTERRUPTED
    from whisper_npu.cli.show import result_line

    results = batch.report.results
    if batch.report.total != 1:
        say(batch.report.table())
    elif results and results[0].status == FAILED:
        say(f"whisper-npu: {results[0].recording}: {results[0].reason}")
    elif results and written and results[0].status != INTERRUPTED:
        say(result_line(results[0]))
    if report is not None:
        from whisper_npu.reports.batch import page
        from whisper_npu.writers import write

        as_page = report.suffix.lower() in (".html", ".htm")
        write(report, page(batch.report) if as_page else batch.report.json())
