"""What became of each recording and of the batch: for people, for programs, as exit code."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_npu.errors import OutputError
from whisper_npu.figures import Figure, Origin
from whisper_npu.stages import recording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DONE, SKIPPED, FAILED, INTERRUPTED = "done", "skipped", "failed", "interrupted"
_THERMAL = Path("/sys/class/thermal")


@dataclass(frozen=True)
class Result:
    """What became of one recording."""

    recording: str  # printable
    status: str  # done, skipped, failed or interrupted
    reason: str = ""  # why, when not done
    exit_code: int = 0  # of the error, when failed
    seconds: float = 0.0  # of audio transcribed now
    elapsed: float = 0.0  # seconds it took
    language: str = ""
    outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    device: str = ""  # that did it, when done
    origin: Origin = "measured"  # of its times


@dataclass
class Report:
    """A batch while it runs, and when it has ended."""

    device: str = ""
    origin: Origin = "measured"  # of the times on that device
    total: int | None = None  # recordings, begun or not; None: nobody knows, we watch
    results: list[Result] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)  # seconds, by stage
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _started: float = field(default_factory=time.monotonic)
    _hottest: float | None = None  # degrees Celsius
    _throttled: bool | None = None

    @contextmanager
    def timing(self) -> Iterator[None]:
        """The block's time counts by stage. Workers, and what is prepared ahead, overlap."""
        try:
            with recording() as stages:
                yield
        finally:
            self.count(stages.seconds)

    def count(self, seconds: Mapping[str, float]) -> None:
        """Work that was timed elsewhere, by stage."""
        with self._lock:
            self.stages.update(seconds)

    def add(self, result: Result) -> None:
        """One recording has ended; a good moment to look at the board."""
        self.results.append(result)
        hottest = _temperature()
        if hottest is not None:
            self._hottest = max(hottest, self._hottest or hottest)
        throttled = _is_throttled()
        if throttled is not None:
            self._throttled = throttled or bool(self._throttled)

    @property
    def exit_code(self) -> int:
        """0, or 3 some failed, 4 all failed, 8 something could not be written; its own of one."""
        if self.total == 1:
            return max((result.exit_code for result in self.results), default=0)
        counts = Counter(result.status for result in self.results)
        if not counts[FAILED]:
            return 0
        if any(result.exit_code == OutputError.exit_code for result in self.results):
            return OutputError.exit_code
        return 4 if counts[FAILED] == len(self.results) else 3

    def summary(self) -> dict[str, Any]:
        """The batch in figures; what the board does not tell is None."""
        counts = Counter(result.status for result in self.results)
        seconds = sum(result.seconds for result in self.results)
        elapsed = time.monotonic() - self._started
        return {
            "device": self.device,
            **{status: counts[status] for status in (DONE, SKIPPED, FAILED, INTERRUPTED)},
            "not_begun": max(0, (self.total or 0) - len(self.results)),
            "audio_seconds": round(seconds, 2),
            "elapsed_seconds": round(elapsed, 2),
            "rtf": round(elapsed / seconds, 4) if seconds else None,
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "hottest_celsius": self._hottest,
            "throttled": self._throttled,
        }

    def table(self) -> str:
        """For stderr: figures, then what failed and why."""
        figures = self.summary()
        heard, took = duration(figures["audio_seconds"]), duration(figures["elapsed_seconds"])
        lines = [
            f"{figures[DONE]} done, {figures[SKIPPED]} skipped, {figures[FAILED]} failed"
            + (f", {figures[INTERRUPTED]} interrupted" if figures[INTERRUPTED] else "")
            + (f", {figures['not_begun']} not begun" if figures["not_begun"] else ""),
            f"{heard} of audio in {took}"
            + (f", RTF {Figure(figures['rtf'], '', self.origin)}" if figures["rtf"] else "")
            + f", peak memory {figures['peak_rss_bytes'] / 1e6:.0f} MB"
            + (f", {self._hottest:.0f} °C" if self._hottest is not None else "")
            + (", throttled" if self._throttled else "")
            + (f", on {self.device}" if self.device else ""),
        ]
        lines += [
            f"  {result.status:<11} {result.recording}: {result.reason}"
            for result in self.results
            if result.status in (FAILED, INTERRUPTED)
        ]
        return "\n".join(lines)

    def json(self) -> str:
        """The whole report."""
        recordings: list[dict[str, Any]] = [asdict(result) for result in self.results]
        return json.dumps({"summary": self.summary(), "recordings": recordings}, indent=1) + "\n"


def duration(seconds: float) -> str:
    """h:mm:ss, or seconds when there are few."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _numbers(pattern: str) -> list[int]:
    found = []
    for path in _THERMAL.glob(pattern):
        try:
            found.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # noqa: PERF203  a sensor that is asleep
            continue
    return found


def _temperature() -> float | None:
    """Degrees Celsius of the hottest sensor."""
    return max(_numbers("thermal_zone*/temp"), default=0) / 1000 or None


def _is_throttled() -> bool | None:
    """Whether the kernel is cooling by slowing something down."""
    states = _numbers("cooling_device*/cur_state")
    return any(states) if states else None
