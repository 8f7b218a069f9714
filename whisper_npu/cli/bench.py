"""whisper-npu bench."""

from __future__ import annotations

from typing import Annotated

import typer

from whisper_npu.cli.options import AsJson, Chip, Offline, ReportPage, say


def bench(  # noqa: PLR0913  one parameter an option
    model: Annotated[str | None, typer.Argument(help="Name or folder; by default base.")] = None,
    *,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="cpu-f32, cpu-int8, npu-fp16, ...; or cpu, npu.")
    ] = "cpu",
    emulate: Chip = None,
    warm_up: Annotated[int, typer.Option(help="Repeats that do not count.")] = 1,
    repeats: Annotated[int, typer.Option(help="Repeats that count.")] = 5,
    tokens: Annotated[int, typer.Option(help="Tokens decoded in each repeat.")] = 32,
    report: ReportPage = None,
    json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Measure the speed of a device, and hold it against this machine's limits.

    For example:

      whisper-npu bench

      whisper-npu bench small --device cpu-int8 --repeats 9

      whisper-npu bench base --device npu --emulate rk3588 --json
    """
    from json import dumps

    from whisper_npu import find_model, terminal
    from whisper_npu.bench import BenchOptions, bench
    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.options import DeviceOptions
    from whisper_npu.reports.benchmark import page
    from whisper_npu.reports.comparison import plain
    from whisper_npu.writers import write

    options = BenchOptions(warm_up, repeats, tokens)
    folder = find_model(model, offline=offline, say=say)
    found = bench(Checkpoint(folder), DeviceOptions.named(device, emulate), options, say)
    if report is not None:
        write(report, page(found))
        say(str(report))
    if json:
        typer.echo(dumps(plain(found), allow_nan=False))
    else:
        terminal.show_benchmark(found, terminal.console())
