"""Reports -> tables and coloured text on a terminal; plain where there is none, or with NO_COLOR.

Texts are data: control characters in them do not reach the terminal. The door to rich.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whisper_npu.accuracy import Chunk
    from whisper_npu.divergence import Divergence
    from whisper_npu.figures import Figure
    from whisper_npu.verdict import Comparison, DeviceResult, RecordingResult, Report


def console(*, stderr: bool = False) -> Console:
    """Where reports are printed: no markup and no guessing at what numbers mean."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def printable(text: str) -> str:
    """Text without characters that steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def percent(rate: float) -> str:
    """0.0123 -> 1.23 %."""
    return f"{100 * rate:.2f} %"


def show(report: Report, to: Console) -> None:
    """Print a comparison."""
    for recording in report.recordings:
        _show_recording(recording, [device.name for device in report.devices], to)
    for name, reason in report.failures.items():
        to.print(Text(f"{printable(name)}: {printable(reason)}", "red"))
    to.print(_devices(report.devices))
    to.print(stage_table({device.name: device.seconds for device in report.devices}))
    for device in report.devices:
        if device.layers:
            worst = max(device.layers, key=lambda error: error.relative)
            to.print(
                f"{device.name}: largest relative error of a layer {worst.relative:.2e}, "
                f"in {worst.name}"
            )


def _show_recording(recording: RecordingResult, names: Sequence[str], to: Console) -> None:
    to.print(Text(printable(recording.name), "bold"))
    for i, (name, comparison) in enumerate(zip(names, recording.devices, strict=True)):
        against = comparison.against_reference or comparison.against_first
        line = Text(f"  {name} ", "dim")
        line.append(f"{percent(against.words.rate)} ")
        line.append(words(against.chunks))
        to.print(line)
        if i:
            _show_parting(comparison, (names[0], name), to)
    to.print()


def _show_parting(comparison: Comparison, names: tuple[str, str], to: Console) -> None:
    if comparison.drift and comparison.drift.worst:
        drift = comparison.drift
        to.print(f"    times {drift.mean:.2f} s apart, {drift.worst:.2f} s at most")
    if comparison.divergence:
        to.print(Text(f"    {_parting(comparison.divergence, names)}", "yellow"))


def _parting(divergence: Divergence, names: tuple[str, str]) -> str:
    text = (
        f"first different token in the window at {divergence.seconds:.2f} s, "
        f"after {divergence.said!r}:"
    )
    for name, chosen, choices in zip(names, divergence.chosen, divergence.choices, strict=True):
        best = ", ".join(f"{choice.text!r} {choice.probability:.1%}" for choice in choices)
        text += f"\n      {name} takes {chosen!r} of {best}"
    return text


def words(chunks: Sequence[Chunk]) -> Text:
    """Aligned words: [-missing-] and {+heard+} instead, in red and green."""
    text = Text()
    for chunk in chunks:
        if chunk.same:
            text.append(printable(chunk.hypothesis) + " ")
            continue
        if chunk.reference:
            text.append(f"[-{printable(chunk.reference)}-] ", "red")
        if chunk.hypothesis:
            text.append(f"{{+{printable(chunk.hypothesis)}+}} ", "green")
    return text


def _devices(devices: Sequence[DeviceResult]) -> Table:
    table = Table("device", "verdict", "time / audio", "speed-up", "peak memory", box=None)
    for device in devices:
        table.add_row(
            device.name,
            Text(device.verdict, "green" if device.safe else "red"),
            str(device.real_time_factor),
            str(device.speed_up),
            "-" if device.peak_memory is None else f"{device.peak_memory / 1e6:.0f} MB",
        )
    return table


def stage_table(devices: Mapping[str, Mapping[str, Figure]]) -> Table:
    """Seconds by stage, a row for each device."""
    stages = list(dict.fromkeys(stage for seconds in devices.values() for stage in seconds))
    table = Table("", *stages, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, seconds in devices.items():
        table.add_row(name, *(str(seconds[stage]) if stage in seconds else "-" for stage in stages))
    return table
