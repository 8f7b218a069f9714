"""Numbers -> where the marks of a chart go; the templates draw them as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisper_npu.stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whisper_npu.comparison.layers import LayerError
    from whisper_npu.figures import Figure

WIDTH = 760  # of every chart, in its own units; the page scales it
_LEFT = 46  # room for the scale
_HEIGHT = 240
_DECADES = (-8, 1)  # of relative errors that are shown


@dataclass(frozen=True)
class Part:
    """One stage in a bar."""

    x: float
    width: float
    colour: int
    title: str


@dataclass(frozen=True)
class Bar:
    """The stages of one device, side by side."""

    label: str
    total: str
    parts: tuple[Part, ...]


def bars(devices: Sequence[tuple[str, Mapping[str, Figure]]], stages: Sequence[str]) -> list[Bar]:
    """One bar a device; the longest of each origin fills the width.

    Emulated time is not to be held against measured time, so the two have scales of their own.
    """
    longest: dict[str, float] = {}
    for _, seconds in devices:
        for origin in {figure.origin for figure in seconds.values()}:
            total = sum(figure.value for figure in seconds.values())
            longest[origin] = max(longest.get(origin, 1e-9), total)
    return [_bar(name, seconds, stages, longest) for name, seconds in devices]


def _bar(
    name: str, seconds: Mapping[str, Figure], stages: Sequence[str], longest: Mapping[str, float]
) -> Bar:
    parts, x = [], 0.0
    for stage in stages:
        figure = seconds.get(stage)
        if figure is None:
            continue
        width = WIDTH * figure.value / longest[figure.origin]
        parts.append(Part(round(x, 2), round(width, 2), colour(stage), f"{stage}: {figure}"))
        x += width
    total = sum(figure.value for figure in seconds.values())
    example = next(iter(seconds.values()))
    return Bar(name, str(type(example)(total, example.unit, example.origin)), tuple(parts))


def colour(stage: str) -> int:
    """The same for a stage on every page."""
    stage = {"prompt": "decoder"}.get(stage, stage)
    return STAGES.index(stage if stage in STAGES else "other")


def legend(stages: Sequence[str]) -> list[tuple[str, int]]:
    """Names of stages with their colours."""
    return [(stage, colour(stage)) for stage in stages]


@dataclass(frozen=True)
class Dot:
    """The error of one layer on one device."""

    x: float
    y: float
    title: str
    blamed: bool


@dataclass(frozen=True)
class Line:
    """All layers of one device."""

    label: str
    colour: int
    points: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class LayerChart:
    """Relative error of each layer over the depth of the network, on a logarithmic scale."""

    height: int
    lines: tuple[Line, ...]
    decades: tuple[tuple[float, str], ...]  # y and label of the horizontal lines
    blocks: tuple[tuple[float, str], ...]  # x and label of where a block of layers begins


def layer_chart(
    devices: Sequence[tuple[str, Sequence[LayerError], LayerError | None]],
) -> LayerChart:
    """Errors by layer. For each device: its name, its layers' errors, and the layer to blame."""
    names = list(dict.fromkeys(error.name for _, errors, _ in devices for error in errors))
    step = (WIDTH - _LEFT - 10) / max(1, len(names) - 1)
    place = {name: round(_LEFT + i * step, 2) for i, name in enumerate(names)}
    lines = []
    for colour, (label, errors, blamed) in enumerate(devices):
        dots = tuple(
            Dot(
                place[error.name],
                _y(error.relative),
                f"{label}, {error.name}: {error.relative:.2e}",
                error == blamed,
            )
            for error in errors
        )
        points = " ".join(f"{dot.x},{dot.y}" for dot in dots)
        lines.append(Line(label, colour, points, dots))
    low, high = _DECADES
    decades = tuple((_y(10.0**decade), f"1e{decade}") for decade in range(low, high, 2))
    return LayerChart(_HEIGHT, tuple(lines), decades, tuple(_blocks(names, place)))


def _y(relative: float) -> float:
    low, high = _DECADES
    decade = high if math.isinf(relative) else math.log10(max(relative, 10.0**low))
    share = (min(decade, high) - low) / (high - low)
    return round(_HEIGHT - 24 - share * (_HEIGHT - 34), 2)


def _blocks(names: Sequence[str], place: Mapping[str, float]) -> list[tuple[float, str]]:
    """Where each block begins, with a label; labels keep their distance."""
    found: list[tuple[float, str]] = []
    seen = set()
    for name in names:
        label = block(name)
        if label and label not in seen:
            seen.add(label)
            near = found and place[name] - found[-1][0] < 34
            if not near:
                found.append((place[name], label))
    return found


def block(name: str) -> str:
    """A short name of the part of the network that a layer belongs to; "" for the last norm."""
    parts = name.split(".")
    if "encoder_attn" in parts:
        return "K/V"
    if "layers" in parts:
        return f"layer {parts[parts.index('layers') + 1]}"
    return "" if parts[-1] == "layer_norm" else "stem"
