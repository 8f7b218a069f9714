"""Tables, colours and a bar on a terminal; plain text where there is none, or with NO_COLOR.

Texts are data: control characters in them do not reach the terminal. The door to rich.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from whisper_npu.messages import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from whisper_npu.bench import Benchmark
    from whisper_npu.comparison.accuracy import Chunk
    from whisper_npu.comparison.divergence import Divergence
    from whisper_npu.comparison.verdict import Comparison, DeviceResult, Findings, RecordingResult
    from whisper_npu.figures import Figure
    from whisper_npu.machine import Finding

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}
_OFTEN = 0.1  # seconds between two drawings of the bar


def console(*, stderr: bool = False) -> Console:
    """Where reports are printed: no markup and no guessing at what numbers mean."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


class Captions:
    """Words on standard output while they are spoken: the tentative ones dim, where they can be
    taken back; otherwise a line for each segment.
    """

    def __init__(self) -> None:
        self._console = console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._final = ""
        if self._console.is_terminal:
            self._live.start()

    def final(self, text: str) -> None:
        """These words stay; tentative ones are told again behind them."""
        self._final += text
        self.tentative("")

    def tentative(self, text: str) -> None:
        """These words may change."""
        if self._live.is_started:
            line = Text(printable(self._final).lstrip()).append(printable(text), "dim")
            self._live.update(line, refresh=True)

    def segment(self, text: str) -> None:
        """A segment has ended: its line is finished."""
        self._final = self._final[len(text) :]
        if self._live.is_started:
            self._live.update(Text(""))
        self._console.print(Text(printable(text.strip())), soft_wrap=True)
        if not self._live.is_started:
            self._console.file.flush()

    def close(self) -> None:
        """Leave the terminal tidy."""
        self._live.stop()


class ProgressBar:
    """Seconds done of seconds to do, at the foot of standard error where that is a terminal."""

    def __init__(self) -> None:
        to = console(stderr=True)
        self.is_shown = to.is_interactive
        self._progress = Progress(
            TaskProgressColumn(),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} s"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            TextColumn("{task.fields[note]}"),
            console=to,
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=1.0, note="")
        self._drawn = 0.0
        self._show()

    def _show(self) -> None:
        if self.is_shown:
            self._progress.start()
            self._progress.console.show_cursor(True)  # we may be ended at any time

    def update(self, seconds: float, total: float, note: str) -> None:
        """Show where we are."""
        self._progress.update(self._task, completed=seconds, total=total, note=note)
        if self.is_shown and time.monotonic() - self._drawn > _OFTEN:
            self._progress.refresh()
            self._drawn = time.monotonic()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """While something else is written to the terminal."""
        if self.is_shown:
            self._progress.stop()
        try:
            yield
        finally:
            self._show()

    def close(self) -> None:
        """Leave it as it is now."""
        if self.is_shown:
            self._progress.live.transient = False
            self._progress.stop()


def show_finding(finding: Finding, to: Console) -> None:
    """Print one line of a diagnosis, and how to mend what it found."""
    status = f"{finding.status:<4}", _COLOURS[finding.status]
    rest = f"  {finding.name:<12} {finding.message}"
    to.print(Text.assemble(status, rest), soft_wrap=True)
    if finding.fix:
        to.print(Text(f"{'':<19}-> {finding.fix}"), soft_wrap=True)


def percent(rate: float) -> str:
    """0.0123 -> 1.23 %."""
    return f"{100 * rate:.2f} %"


def show(findings: Findings, to: Console) -> None:
    """Print a comparison."""
    names = [device.name for device in findings.devices]
    for recording in findings.recordings:
        _show_recording(recording, names, to)
    for name, reason in findings.failures.items():
        to.print(Text(f"{printable(name)}: {printable(reason)}", "red"))
    to.print(_figures(findings.devices))
    for device in findings.devices[1:]:
        line = Text("safe   " if device.safe else "UNSAFE ", "green" if device.safe else "bold red")
        to.print(line.append(f"{device.name}: {device.verdict}", "default"))


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
        to.print(f"    times {drift.mean:.2f} s apart on average, {drift.worst:.2f} s at most")
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


def _figures(devices: Sequence[DeviceResult]) -> Table:
    """Speed, memory and the worst layer; a column for each device."""
    table = stage_table([(device.name, device.seconds) for device in devices])
    table.add_section()
    table.add_row("time / audio", *(str(device.real_time_factor) for device in devices))
    table.add_row("speed-up", *(str(device.speed_up) for device in devices))
    table.add_row("peak memory", *(megabytes(device.peak_memory) for device in devices))
    if len(devices) > 1:
        table.add_row("largest layer error", "-", *(_worst(device) for device in devices[1:]))
    return table


def _worst(device: DeviceResult) -> str:
    return f"{max((error.relative for error in device.layers), default=0):.1e}"


def megabytes(n_bytes: int | None) -> str:
    """For people."""
    return "not known" if n_bytes is None else f"{n_bytes / 1e6:.0f} MB"


def stage_table(devices: Sequence[tuple[str, Mapping[str, Figure]]]) -> Table:
    """Time by stage; a column for each device."""
    table = Table("", *(Column(name, justify="right") for name, _ in devices), box=SIMPLE)
    for stage in dict.fromkeys(stage for _, seconds in devices for stage in seconds):
        if any(stage in seconds and seconds[stage].value for _, seconds in devices):
            times = [str(seconds[stage]) if stage in seconds else "-" for _, seconds in devices]
            table.add_row(stage, *times)
    return table


def show_benchmark(found: Benchmark, to: Console) -> None:
    """Print what was measured."""
    to.print(f"{found.model} on {found.device}; {found.machine}; {found.repeats} times")
    columns = (Column(name, justify="right") for name in ("median", "least", "most"))
    table = Table("", *columns, box=SIMPLE)
    for timing in found.timings:
        table.add_row(timing.stage, str(timing.median), str(timing.least), str(timing.most))
    to.print(table)
    figures = Table("", Column("", justify="right"), box=None, show_header=False)
    for name, figure in found.figures.items():
        figures.add_row(name, str(figure))
    to.print(figures)
    for line in found.plan:
        to.print(line)
