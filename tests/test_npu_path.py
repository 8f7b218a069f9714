"""Layers or graph: what was asked for, else the faster one on this board."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from whisper_npu import cache
from whisper_npu.devices import npu_path
from whisper_npu.devices.device import DeviceInfo
from whisper_npu.devices.opening import open_device
from whisper_npu.errors import DeviceError, OptionError
from whisper_npu.options import DeviceOptions

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.checkpoint import Checkpoint


class Way:
    """A device that takes its time."""

    def __init__(self, name: str, seconds: float) -> None:
        kind: Any = {"layers": "npu"}.get(name, name)
        self.info = DeviceInfo(name, kind, "fp16", "int8", "rk3588")
        self.seconds = seconds
        self.n_encoded = 0
        self.closed = False

    def encode(self, mel: Any, *, observe: Any = None) -> None:
        self.n_encoded += 1
        time.sleep(self.seconds)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> dict[str, Way]:
    found = {"layers": Way("layers", 0.05), "graph": Way("graph", 0)}

    def open_graph(checkpoint: Any, decoder: Any, options: Any, root: Path) -> Way:
        return found["graph"]

    monkeypatch.setattr(npu_path, "NpuDevice", lambda checkpoint, options: found["layers"])
    monkeypatch.setattr(npu_path, "open_graph_device", open_graph)
    return found


def opened(checkpoint: Checkpoint, path: str = "auto", **options: Any) -> Any:
    return open_device(checkpoint, DeviceOptions("npu", npu_path=path, **options))


@pytest.mark.parametrize("path", ["layers", "graph"])
def test_what_was_asked_for(checkpoint: Checkpoint, ways: dict[str, Way], path: str) -> None:
    assert opened(checkpoint, path) is ways[path]
    assert ways["layers"].n_encoded == ways["graph"].n_encoded == 0


@pytest.mark.parametrize(("faster", "slower"), [("graph", "layers"), ("layers", "graph")])
def test_the_faster_one(
    checkpoint: Checkpoint, ways: dict[str, Way], faster: str, slower: str
) -> None:
    ways[faster].seconds, ways[slower].seconds = 0, 0.05
    assert opened(checkpoint) is ways[faster]
    assert (ways[faster].closed, ways[slower].closed) == (False, True)
    n_encoded = ways[slower].n_encoded
    assert opened(checkpoint) is ways[faster]
    assert ways[slower].n_encoded == n_encoded  # measured once


def test_kept_times_that_are_damaged_are_measured_again(
    checkpoint: Checkpoint, ways: dict[str, Way]
) -> None:
    opened(checkpoint)
    kept = cache.folder() / "npu-path.json"
    assert len(cache.remembered(kept)) == 2
    kept.write_text("[]")
    assert opened(checkpoint) is ways["graph"]
    assert ways["graph"].n_encoded == 6


def test_layers_where_there_is_no_graph(
    checkpoint: Checkpoint, ways: dict[str, Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DeviceError("no fp16 graph")

    monkeypatch.setattr(npu_path, "open_graph_device", fail)
    assert opened(checkpoint) is ways["layers"]
    with pytest.raises(DeviceError, match="no fp16 graph"):
        opened(checkpoint, "graph")


def test_the_options_of_a_graph(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(npu_path, "open_graph_device", lambda *given: seen.append(given[2]))
    opened(checkpoint, "graph", npu_precision="int8", npu_cores=3, short_windows=True)
    opened(checkpoint, "graph")
    assert [(o.precision, o.n_cores, o.short_windows) for o in seen] == [
        ("int8", 3, True),
        ("fp16", 1, False),
    ]


def test_ways_that_do_not_exist(checkpoint: Checkpoint) -> None:
    with pytest.raises(OptionError, match="'shortcut' is not one of auto, layers, graph"):
        opened(checkpoint, "shortcut")
    with pytest.raises(OptionError, match="cannot be emulated"):
        opened(checkpoint, "graph", emulate="rk3588")
