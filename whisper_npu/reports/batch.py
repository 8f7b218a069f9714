"""What became of a batch -> a page for people."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from whisper_npu.figures import Figure
from whisper_npu.messages import printable
from whisper_npu.pages import render
from whisper_npu.reports.charts import bars, legend

if TYPE_CHECKING:
    from whisper_npu.batch.report import Report


def page(report: Report) -> str:
    """HTML of a batch: one file, no network, nothing runs."""
    source = report.origin
    seconds = {stage: Figure(spent, "s", source) for stage, spent in report.stages.items()}
    return render(
        "batch",
        title=f"Recordings on {report.device or 'no device'}",
        summary=report.summary(),
        origin="" if source == "measured" else source,
        results=[
            replace(result, outputs=tuple(map(printable, result.outputs)))
            for result in report.results
        ],
        stages=legend(list(seconds)),
        bars=bars([(report.device, seconds)], list(seconds)) if seconds else [],
    )
