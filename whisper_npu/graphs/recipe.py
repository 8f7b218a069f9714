"""What a graph is compiled for, and where compiled graphs lie.

A graph is a folder of the cache: encoder.rknn, manifest.json and the vendor's log. The key is what
went in, since the vendor's files differ from build to build.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from whisper_npu import cache
from whisper_npu.errors import DeviceError, OptionError
from whisper_npu.rknpu.soc import SOCS

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.checkpoint import Checkpoint
    from whisper_npu.options.compiling import CompileOptions

FORMAT = 1  # of the graph's interface and of the manifest
MANIFEST = "manifest.json"
GRAPH = "encoder.rknn"
LOG = "toolchain.log"


@dataclass(frozen=True)
class Recipe:
    """What to compile a checkpoint for. Raises OptionError when it cannot be."""

    target: str  # rk3588, rk3566, ...
    precision: str = "fp16"  # or int8
    window: int = 30  # seconds

    def __post_init__(self) -> None:
        if self.target not in SOCS:
            raise OptionError(f"target: {self.target!r} is not one of {', '.join(SOCS)}", "target")
        if self.precision not in ("fp16", "int8"):
            raise OptionError(f"unknown precision {self.precision!r}: use fp16 or int8")
        if not 1 <= self.window <= 30:
            raise OptionError(f"window: {self.window} is not 1 to 30 seconds", "window")

    @property
    def n_frames(self) -> int:
        from whisper_npu.features import FRAMES_PER_SECOND  # a board's graph needs no audio library

        return self.window * FRAMES_PER_SECOND


def recipes(options: CompileOptions) -> list[Recipe]:
    """One for each target and each window. Raises OptionError."""
    if not options.target or not options.window:
        raise OptionError("target and window need one value at the least", "target", "window")
    precision = "int8" if options.npu_precision == "int8" else "fp16"
    return [
        Recipe(target, precision, seconds)
        for target in options.target
        for seconds in options.window
    ]


def graphs_folder() -> Path:
    """Where compiled graphs live, each in its folder; a board's can be filled from a PC's."""
    return cache.folder() / "graphs"


def find_graph(checkpoint: Checkpoint, recipe: Recipe) -> tuple[Path, dict[str, Any]]:
    """The newest graph of this checkpoint for a recipe, by any toolchain.

    return  its folder and its manifest; the file has the length that the manifest states

    Raises DeviceError when there is none, or when it is damaged.
    """
    wanted = {"format": FORMAT, "checkpoint": checkpoint.fingerprint}
    wanted |= asdict(recipe)
    found = []
    for folder, manifest in manifests().items():
        if wanted.items() <= manifest.items():
            made = (folder / MANIFEST).stat().st_mtime
            found.append((manifest["toolchain"], made, folder, manifest))
    if not found:
        raise DeviceError(
            f"no {recipe.precision} graph of {checkpoint.name} for {recipe.target} with a "
            f"window of {recipe.window} s in {graphs_folder()}: run `whisper-npu compile` on a PC "
            "and copy its folder there"
        )
    *_, folder, manifest = max(found, key=lambda each: each[:2])
    return folder, manifest


def manifests() -> dict[Path, dict[str, Any]]:
    """Folder -> manifest of all compiled graphs, for any board."""
    found = {path.parent: _manifest(path) for path in sorted(graphs_folder().glob(f"*/{MANIFEST}"))}
    return {folder: manifest for folder, manifest in found.items() if manifest}


def _manifest(path: Path) -> dict[str, Any]:
    """Empty where there is none of ours."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
