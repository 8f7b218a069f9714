"""whisper-npu compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from whisper_npu.cli.flags import taking_options
from whisper_npu.cli.options import AsJson, Model, Offline, ReportPage, say
from whisper_npu.errors import OptionError
from whisper_npu.options.measuring import CompareOptions  # noqa: TC001  read when it runs

if TYPE_CHECKING:
    from whisper_npu.comparison import Task


@taking_options
def compare(  # noqa: PLR0913  one parameter an option
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="AUDIO...", help="Recordings, folders or patterns such as '*.mp3'."),
    ],
    *,
    model: Model = None,
    options: CompareOptions,
    report: ReportPage = None,
    json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Transcribe recordings on several devices, and show where the results differ.

    The search is greedy, so that devices differ by their arithmetic alone.

    For example:

      whisper-npu compare talk.wav --devices cpu,npu

      whisper-npu compare *.wav --emulate rk3588 --reference texts/ --report report.html

      whisper-npu compare talk.wav -m base --devices cpu-f32,cpu-int8 --fail-above 0.02
    """
    from json import dumps

    from whisper_npu import terminal
    from whisper_npu.batch.recordings import STDIN, find, require_apart
    from whisper_npu.comparison import compare
    from whisper_npu.comparison.verdict import require
    from whisper_npu.reports.comparison import page, plain
    from whisper_npu.writers import write

    recordings = find(inputs)
    if STDIN in [recording.path for recording in recordings]:
        raise OptionError("each device hears the recordings anew: name a file, not standard input")
    require_apart(recordings, [report] if report else [])
    paths = [str(recording.path) for recording in recordings]
    task = _task(paths, model, options, offline=offline)
    found = compare(task)
    if report is not None:
        write(report, page(found, task.tolerance))
        say(str(report))
    if json:
        typer.echo(dumps(plain(found), allow_nan=False))
    else:
        terminal.show(found, terminal.console())
    if options.fail_above is not None:
        require(found, options.fail_above)
    if found.failures:
        raise typer.Exit(3)


def _task(
    recordings: list[str], model: str | None, options: CompareOptions, *, offline: bool
) -> Task:
    """What to compare; the model comes last, for it may have to be downloaded."""
    from dataclasses import replace

    from whisper_npu import sources
    from whisper_npu.comparison import GREEDY, Task
    from whisper_npu.comparison.references import references
    from whisper_npu.comparison.verdict import TOLERANCE
    from whisper_npu.options import DeviceOptions

    devices = [DeviceOptions.named(name, options.emulate) for name in options.names]
    said = references(options.reference, recordings) if options.reference else {}
    return Task(
        recordings,
        sources.open_checkpoint(model, offline=offline, say=say),
        devices,
        said,
        replace(GREEDY, language=options.language, word_timestamps=options.word_timestamps),
        TOLERANCE if options.fail_above is None else options.fail_above,
        say,
    )
