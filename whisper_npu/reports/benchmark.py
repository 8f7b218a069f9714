"""What a benchmark measured -> a page for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper_npu.figures import Figure
from whisper_npu.pages import render
from whisper_npu.reports.charts import bars, legend

if TYPE_CHECKING:
    from whisper_npu.bench import Benchmark


def page(found: Benchmark) -> str:
    """HTML of a benchmark: one file, no network, nothing runs."""
    seconds = {
        timing.stage: Figure(timing.median.value, "ms", timing.median.origin)
        for timing in found.timings
        if timing.stage in ("encoder", "K/V", "prompt")
    }
    return render(
        "benchmark",
        title=f"{found.model} on {found.device}",
        found=found,
        stages=legend(list(seconds)),
        bars=bars([("one window", seconds)], list(seconds)),
    )
