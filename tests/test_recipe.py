"""What a graph is for, and finding it again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from whisper_npu.errors import DeviceError, OptionError
from whisper_npu.graphs.recipe import FORMAT, Recipe, find_graph, graphs_folder, recipes
from whisper_npu.options.compiling import CompileOptions

if TYPE_CHECKING:
    from whisper_npu.checkpoint import Checkpoint


def store(
    name: str, checkpoint: Checkpoint, recipe: Recipe, other: dict[str, Any] | None = None
) -> None:
    content = {
        "format": FORMAT,
        "checkpoint": checkpoint.fingerprint,
        **asdict(recipe),
        "toolchain": "2.3.2",
    }
    folder = graphs_folder() / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(content | (other or {})))


def test_every_target_with_every_window() -> None:
    chosen = CompileOptions(target=("rk3588", "rk3566"), window=(30, 10))
    assert recipes(chosen) == [
        Recipe("rk3588", "fp16", 30),
        Recipe("rk3588", "fp16", 10),
        Recipe("rk3566", "fp16", 30),
        Recipe("rk3566", "fp16", 10),
    ]


@pytest.mark.parametrize(
    ("target", "precision", "window", "expected"),
    [
        (("rk3399",), "fp16", (30,), "target: 'rk3399' is not one of rk3588"),
        (("rk3588",), "int4", (30,), "npu_precision: 'int4' is not one of auto, fp16, int8"),
        (("rk3588",), "fp16", (31,), "window: 31 is not 1 to 30 seconds"),
        (("rk3588",), "fp16", (0,), "window: 0 is not 1 to 30 seconds"),
        (("rk3588",), "fp16", (), "one value at the least"),
        ((), "fp16", (30,), "one value at the least"),
    ],
)
def test_what_cannot_be(
    target: tuple[str, ...], precision: str, window: tuple[int, ...], expected: str
) -> None:
    with pytest.raises(OptionError, match=expected):
        recipes(CompileOptions(target, precision, window=window))


def test_the_newest_toolchain_wins(checkpoint: Checkpoint) -> None:
    recipe = Recipe("rk3588")
    store("a", checkpoint, recipe, {"toolchain": "2.5.0"})
    store("b", checkpoint, recipe)
    store("c", checkpoint, recipe, {"toolchain": "2.4.0"})
    folder, manifest = find_graph(checkpoint, recipe)
    assert (folder.name, manifest["toolchain"]) == ("a", "2.5.0")


@pytest.mark.parametrize(
    "other",
    [
        {"checkpoint": "another"},
        {"format": FORMAT + 1},
        {"target": "rk3566"},
        {"precision": "int8"},
        {"window": 10},
    ],
)
def test_a_graph_for_something_else_is_not_found(
    checkpoint: Checkpoint, other: dict[str, Any]
) -> None:
    store("a", checkpoint, Recipe("rk3588"), other)
    with pytest.raises(DeviceError, match="run `whisper-npu compile`"):
        find_graph(checkpoint, Recipe("rk3588"))


def test_a_damaged_manifest_is_no_graph(checkpoint: Checkpoint) -> None:
    (graphs_folder() / "a").mkdir(parents=True)
    for content in ("{", "[]"):
        (graphs_folder() / "a" / "manifest.json").write_text(content)
        with pytest.raises(DeviceError, match="no fp16 graph"):
            find_graph(checkpoint, Recipe("rk3588"))
