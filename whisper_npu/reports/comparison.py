"""What a comparison found -> JSON, and a page for people with the same numbers."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from whisper_npu.languages import UNSPACED
from whisper_npu.pages import render
from whisper_npu.reports.charts import bars, layer_chart, legend

if TYPE_CHECKING:
    from whisper_npu.comparison.verdict import Findings


@runtime_checkable
class Recorded(Protocol):
    """What says itself how JSON knows it."""

    def record(self) -> dict[str, Any]:
        """Names and plain values."""
        ...


def plain(value: Any) -> Any:
    """Results as JSON knows them."""
    if isinstance(value, Recorded):
        return value.record()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no infinity
    return value


def page(findings: Findings, tolerance: float) -> str:
    """HTML of a comparison: one file, no network, nothing runs."""
    spent = [item for device in findings.devices for item in device.seconds.items()]
    stages = list(dict.fromkeys(stage for stage, figure in spent if figure.value))
    languages = {r.devices[0].transcript.language for r in findings.recordings}
    return render(
        "comparison",
        title=f"{len(findings.devices)} devices compared",
        report=findings,
        rate="CER" if languages <= UNSPACED else "WER",
        tolerance=tolerance,
        emulated=any(device.real_time_factor.origin == "emulated" for device in findings.devices),
        stages=legend(stages),
        bars=bars([(device.name, device.seconds) for device in findings.devices], stages),
        chart=layer_chart(
            [(device.name, device.layers, device.suspect) for device in findings.devices[1:]]
        ),
    )
