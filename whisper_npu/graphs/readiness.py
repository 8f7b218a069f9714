"""Can this board run compiled graphs? A machine -> one finding, with the command that mends it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whisper_npu.graphs.recipe import GRAPH, graphs_folder, manifests
from whisper_npu.graphs.runtime import LIBRARY
from whisper_npu.machine import Finding
from whisper_npu.rknpu.board import GET_LIBRARY
from whisper_npu.rknpu.librknnrt import find_library, library_version
from whisper_npu.rknpu.soc import detect

if TYPE_CHECKING:
    from pathlib import Path

    from whisper_npu.machine import Machine

_LITE_UNTIL = (3, 12)  # the last Python with a wheel of rknn-toolkit-lite2


def examine(machine: Machine) -> Finding:
    """What .rknn graphs need; without them the NPU still runs layer by layer."""
    name, lite, soc = "graphs", "rknn-toolkit-lite2", detect(machine.root)
    version = machine.version_of(lite)
    if not version and machine.python > _LITE_UNTIL:
        message = f"{lite}, which runs .rknn graphs, has no wheel for this Python"
        return Finding(name, "warn", message, "use Python 3.12 or older if you need .rknn graphs")
    if not version:
        message = f"{lite}, which runs .rknn graphs, is not installed"
        if machine.version_of("rknn-toolkit2"):
            message += "; rknn-toolkit2 is the one for PCs"
        return Finding(name, "warn", message, f"pip install {lite}")
    library = machine.root / LIBRARY
    if not library.exists():
        found = find_library(root=machine.root)
        fix = f"sudo ln -s {found} /{LIBRARY}" if found.is_file() else GET_LIBRARY
        message = f"{lite} {version} looks for /{LIBRARY} and nowhere else: it is missing"
        return Finding(name, "warn", message, fix)
    return _compiled(f"{lite} {version}", soc.name if soc else "", library)


def _compiled(package: str, chip: str, library: Path) -> Finding:
    """Which graphs are there, and whether they can run."""
    name, known = "graphs", manifests()
    mine = {folder: each for folder, each in known.items() if each.get("target") == chip}
    compile_it = f"whisper-npu compile base --target {chip}, on a PC, and copy what it prints"
    if not mine:
        others = ", ".join(sorted({str(each.get("target")) for each in known.values()}))
        if others:
            message = f"{package}, but the graphs in {graphs_folder()} are for {others}"
            return Finding(name, "warn", message, compile_it)
        return Finding(name, "pass", f"{package}; no graph is compiled: layer by layer, then")
    for folder, each in mine.items():
        file = folder / GRAPH
        if not file.is_file() or file.stat().st_size != each.get("bytes"):
            return Finding(name, "warn", f"{file} is not as long as it was made", compile_it)
    newest = max((str(each.get("toolchain")) for each in mine.values()), key=_numbers)
    runtime = library_version(library)
    if runtime and _numbers(runtime) < _numbers(newest):
        message = f"/{LIBRARY} is {runtime}, older than a graph made by {newest}"
        return Finding(name, "warn", message, GET_LIBRARY)
    kinds = sorted(f"{each.get('precision')} {each.get('window')} s" for each in mine.values())
    return Finding(name, "pass", f"{package}, {len(mine)} compiled for {chip}: {', '.join(kinds)}")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
