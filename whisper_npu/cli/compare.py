"""whisper-npu compare."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads annotations when it runs
from typing import Annotated

import typer

from whisper_npu.cli.options import AsJson, Chip, Model, Offline, ReportPage, say


def compare(  # noqa: PLR0913  one parameter an option
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Recordings, or folders of them.")
    ],
    *,
    model: Model = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE,...",
            help="Of cpu-f32, cpu-f16, cpu-int8, npu-fp16, npu-int8, npu-fp16-graph ...; the first "
            "is the measure of the others. Default: cpu-f32,cpu-int8 and with --emulate "
            "npu-fp16,npu-int8.",
        ),
    ] = None,
    emulate: Chip = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="What is said: a text, a folder of NAME.txt, or a list in .jsonl."),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Exit code 7 when more of the words differ from the first device's; with one "
            "device, from the references.",
        ),
    ] = None,
    language: Annotated[str, typer.Option("--language", "-l", help="Code or name.")] = "auto",
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="Hold the times of words against each other.")
    ] = False,
    report: ReportPage = None,
    json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Transcribe the same recordings on several devices and show what differs.

    For example:

      whisper-npu compare talk.wav --devices cpu,npu

      whisper-npu compare *.wav --emulate rk3588 --reference texts/ --report report.html

      whisper-npu compare talk.wav -m base --devices cpu-f32,cpu-int8 --fail-above 0.02
    """
    from dataclasses import replace
    from json import dumps

    from whisper_npu import find_model, terminal
    from whisper_npu.batch.recordings import find, require_apart
    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.comparison import GREEDY, Task, compare
    from whisper_npu.comparison.references import references
    from whisper_npu.comparison.verdict import TOLERANCE, require
    from whisper_npu.errors import OptionError
    from whisper_npu.options import DeviceOptions
    from whisper_npu.reports.comparison import page, plain
    from whisper_npu.writers import write

    names = devices or "cpu-f32,cpu-int8" + (",npu-fp16,npu-int8" if emulate else "")
    if fail_above is not None and "," not in names and reference is None:
        raise OptionError(
            "one device has nothing to differ from: add --reference or more --devices"
        )
    found_recordings = find(inputs)
    require_apart(found_recordings, [report] if report else [])
    recordings = [str(recording.path) for recording in found_recordings]
    task = Task(
        recordings,
        Checkpoint(find_model(model, offline=offline, say=say)),
        [DeviceOptions.named(name.strip(), emulate) for name in names.split(",")],
        references(reference, recordings) if reference else {},
        replace(GREEDY, language=language, word_timestamps=word_timestamps),
        TOLERANCE if fail_above is None else fail_above,
        say,
    )
    found = compare(task)
    if report is not None:
        write(report, page(found, task.tolerance))
        say(str(report))
    if json:
        typer.echo(dumps(plain(found), allow_nan=False))
    else:
        terminal.show(found, terminal.console())
    if fail_above is not None:
        require(found, fail_above)
    if found.failures:
        raise typer.Exit(3)
