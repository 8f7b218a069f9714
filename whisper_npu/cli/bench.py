"""whisper-npu bench."""

from __future__ import annotations

from typing import Annotated

import typer

from whisper_npu.cli.flags import taking_options
from whisper_npu.cli.options import AsJson, Offline, ReportPage, say
from whisper_npu.options.measuring import BENCH, BenchOptions


@taking_options
def bench(  # noqa: PLR0913  one parameter an option
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", show_default=False, help="Name or folder of a model; without it, base."
        ),
    ] = None,
    *,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            rich_help_panel=BENCH,
            help="Device to measure: cpu or npu, with or without a precision, such as cpu-f32, "
            "cpu-int8 or npu-fp16.",
        ),
    ] = "cpu",
    emulate: Annotated[
        str | None,
        typer.Option(
            metavar="CHIP",
            rich_help_panel=BENCH,
            help="For npu, emulate the NPU of this chip, rk3588 or rk3566, instead of using a "
            "real one.",
        ),
    ] = None,
    options: BenchOptions,
    report: ReportPage = None,
    json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Measure the speed of a device, and compare it with the limits of this machine.

    For example:

      whisper-npu bench

      whisper-npu bench small --device cpu-int8 --repeats 9

      whisper-npu bench base --device npu --emulate rk3588 --json
    """
    from json import dumps

    from whisper_npu import sources, terminal
    from whisper_npu.bench import bench
    from whisper_npu.options import DeviceOptions
    from whisper_npu.reports.benchmark import page
    from whisper_npu.reports.comparison import plain
    from whisper_npu.writers import write

    checkpoint = sources.open_checkpoint(model, offline=offline, say=say)
    found = bench(checkpoint, DeviceOptions.named(device, emulate), options, say)
    if report is not None:
        write(report, page(found))
        say(str(report))
    if json:
        typer.echo(dumps(plain(found), allow_nan=False))
    else:
        terminal.show_benchmark(found, terminal.console())
